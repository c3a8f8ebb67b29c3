//! From creation to the end, with a gateway that comes and goes.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use openshell_crds::{
    conditions,
    sandbox::{MainProcessState, OpenShellSandboxStatus},
};
use openshell_gateway::session::{AcknowledgeError, LogQuery};
use openshell_proto::supervisor::{AttachMain, relay_down, relay_up};
use serde_json::json;

use super::{
    NAME, POLICY, Room, Running,
    exec::{collect, sh},
    gateway,
    supervisor::Supervisor,
};

fn status(sandbox: &openshell_crds::OpenShellSandbox) -> OpenShellSandboxStatus {
    sandbox.status.clone().unwrap_or_default()
}

fn main_state(sandbox: &openshell_crds::OpenShellSandbox) -> Option<MainProcessState> {
    status(sandbox).main_process.map(|m| m.state)
}

async fn stdout_lines(running: &Running) -> Vec<String> {
    let query = LogQuery { targets: vec!["stdout".into()], ..LogQuery::default() };
    running.gateway.hub.logs().tail(&running.uid, &query).await.unwrap().into_iter().map(|l| l.record.message).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn from_creation_to_exit_in_two_writes() {
    let running = Running::start("create", &["sh", "-c", "echo hello; sleep 0.5; exit 5"]).await;
    let sandbox = running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    let now = status(&sandbox);
    assert!(conditions::is_true(&now.conditions, conditions::CONNECTED), "{now:#?}");
    assert!(conditions::is_true(&now.conditions, conditions::POLICY_ACKNOWLEDGED), "{now:#?}");
    let policy = now.policy.unwrap();
    assert_eq!((policy.revision, policy.acknowledged_revision, policy.error), (1, Some(1), None));
    assert!(now.session.unwrap().connected);
    assert!(now.enforcement.is_some());
    let ended = running.gateway.until(NAME, "exited", |s| main_state(s) == Some(MainProcessState::Exited)).await;
    assert_eq!(status(&ended).main_process.unwrap().exit_code, Some(5));
    // Writes by us between creation and running: one for the revision object, at most two here.
    let version = |s: &openshell_crds::OpenShellSandbox| s.metadata.resource_version.as_ref().unwrap().parse::<u64>().unwrap();
    assert!(version(&ended) <= 5, "{}", version(&ended));
    for _ in 0..200 {
        if stdout_lines(&running).await == ["hello"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{:?}", stdout_lines(&running).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_finds_everything_when_it_returns() {
    let mut running =
        Running::start("restart", &["sh", "-c", "i=0; while [ $i -lt 60 ]; do i=$((i+1)); echo line $i; sleep 0.05; done; exit 9"]).await;
    running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        running.gateway.kill().await;
        tokio::time::sleep(Duration::from_millis(200)).await;
        running.gateway = running.ground.start().await;
    }
    let sandbox = running.gateway.until(NAME, "exited", |s| main_state(s) == Some(MainProcessState::Exited)).await;
    assert_eq!(status(&sandbox).main_process.unwrap().exit_code, Some(9));
    assert_eq!(status(&sandbox).policy.unwrap().acknowledged_revision, Some(1));
    let expected: Vec<String> = (1..=60).map(|i| format!("line {i}")).collect();
    for _ in 0..300 {
        if stdout_lines(&running).await.len() >= expected.len() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(stdout_lines(&running).await, expected);
    running.connected().await;
    let outcome = collect(running.gateway.hub.exec(&running.uid, sh("echo back")).await.unwrap()).await;
    assert_eq!(outcome.stdout, "back\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_change_is_acknowledged_and_a_static_one_is_not_applied() {
    let running = Running::start("policy", &["sleep", "1000"]).await;
    running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    let set = |policy: String| {
        let document = gateway::spec(&[], &policy).policy;
        let api = running.gateway.sandboxes();
        async move { api.patch(NAME, &PatchParams::default(), &Patch::Merge(json!({ "spec": { "policy": document } }))).await.unwrap() }
    };
    let network = format!(
        "{POLICY}network_policies:\n  web:\n    endpoints: [{{ host: example.com, port: 443 }}]\n    binaries: [{{ path: \"/**\" }}]\n"
    );
    set(network.clone()).await;
    running.gateway.hub.wait_acknowledged(&running.uid, 2, Duration::from_secs(20)).await.unwrap();
    running.gateway.until(NAME, "revision 2", |s| status(s).policy.is_some_and(|p| p.acknowledged_revision == Some(2))).await;

    set(network.replace("/dev/zero", "/dev/full").replace("example.com", "example.org")).await;
    let refused = running.gateway.hub.wait_acknowledged(&running.uid, 3, Duration::from_secs(5)).await.unwrap_err();
    assert!(matches!(&refused, AcknowledgeError::Refused(why) if why.contains("/dev/zero")), "{refused}");
    let held = running.gateway.until(NAME, "refused", |s| status(s).policy.is_some_and(|p| p.error.is_some())).await;
    let policy = status(&held).policy.unwrap();
    assert_eq!((policy.revision, policy.acknowledged_revision), (3, Some(2)));
    assert_eq!(conditions::find(&status(&held).conditions, conditions::POLICY_ACKNOWLEDGED).unwrap().reason, "Refused");

    set(network).await;
    let back = running.gateway.until(NAME, "back", |s| status(s).policy.is_some_and(|p| p.error.is_none() && p.revision == 4)).await;
    assert_eq!(status(&back).policy.unwrap().acknowledged_revision, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_is_refused_leaves_the_one_in_force() {
    let running = Running::start("refused", &["sleep", "1000"]).await;
    running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    let bad = json!({ "spec": { "policy": { "version": 1, "network_polices": {} } } });
    running.gateway.sandboxes().patch(NAME, &PatchParams::default(), &Patch::Merge(&bad)).await.unwrap();
    let refused = running.gateway.until(NAME, "refused", |s| status(s).policy.is_some_and(|p| p.error.is_some())).await;
    let now = status(&refused);
    assert!(now.policy.as_ref().unwrap().error.as_ref().unwrap().contains("network_polices"), "{now:#?}");
    assert_eq!(now.policy.unwrap().acknowledged_revision, Some(1));
    assert!(running.gateway.hub.connected(&running.uid));
}

#[tokio::test(flavor = "multi_thread")]
async fn attaching_shows_what_was_written_and_what_is() {
    let running = Running::start("attach", &["sh", "-c", "echo first; sleep 0.5; echo second; exit 4"]).await;
    running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    let attach = || running.gateway.hub.attach_main(&running.uid, AttachMain::default());
    let outcome = collect(attach().await.unwrap()).await;
    assert_eq!((outcome.stdout.as_str(), outcome.code()), ("first\nsecond\n", 4));
    let again = collect(attach().await.unwrap()).await;
    assert_eq!((again.stdout.as_str(), again.code()), ("first\nsecond\n", 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_main_process_can_wait_for_whoever_attaches() {
    let room = Room::new("await-attach");
    let ground = room.ground();
    let gateway = ground.start().await;
    let mut spec = gateway::spec(&["sh", "-c", "stty size; read line; echo got $line"], POLICY);
    spec.tty = true;
    let mut sandbox = openshell_crds::OpenShellSandbox::new(NAME, spec);
    sandbox.metadata.annotations = Some([("openshell.ai/await-attachment".to_owned(), "true".to_owned())].into());
    let uid = gateway.sandboxes().create(&PostParams::default(), &sandbox).await.unwrap().metadata.uid.unwrap();
    let _supervisor = Supervisor::start(&ground, &uid);
    gateway.until(NAME, "acknowledged", |s| conditions::is_true(&status(s).conditions, conditions::POLICY_ACKNOWLEDGED)).await;
    assert_ne!(main_state(&gateway.sandboxes().get(NAME).await.unwrap()), Some(MainProcessState::Running));
    let mut handle = gateway.hub.attach_main(&uid, AttachMain { cols: 77, rows: 22, read_only: false }).await.unwrap();
    let mut shown = String::new();
    while !shown.contains("22 77") {
        match handle.events.recv().await {
            Some(relay_up::Payload::Stdout(bytes)) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {shown:?}"),
        }
    }
    // Detaching leaves it alone; what it shows is there for the next one.
    drop(handle);
    let handle = gateway.hub.attach_main(&uid, AttachMain { cols: 77, rows: 22, read_only: false }).await.unwrap();
    handle.stdin.send(relay_down::Payload::Stdin(b"me\r".to_vec())).await.unwrap();
    let outcome = collect(handle).await;
    assert!(outcome.stdout.contains("22 77") && outcome.stdout.contains("got me"), "{}", outcome.stdout);
    assert_eq!(outcome.code(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_the_agent_gracefully() {
    let mut running = Running::start("sigterm", &["sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done"]).await;
    for _ in 0..500 {
        if stdout_lines(&running).await == ["up"] {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.supervisor.signal(rustix::process::Signal::TERM);
    assert_eq!(running.supervisor.wait(), 0);
    assert_eq!(stdout_lines(&running).await, ["up", "bye"]);
    let sandbox = running.gateway.until(NAME, "exited", |s| main_state(s) == Some(MainProcessState::Exited)).await;
    assert_eq!(status(&sandbox).main_process.unwrap().exit_code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_can_end_a_sandbox() {
    let mut running = Running::start("shutdown", &["sleep", "1000"]).await;
    running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    running.gateway.hub.shutdown_sandbox(&running.uid, "test").await;
    assert_eq!(running.supervisor.wait(), 0);
    running.gateway.until(NAME, "exited", |s| main_state(s) == Some(MainProcessState::Exited)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_whose_object_is_gone_ends_itself() {
    let mut running = Running::start("deleted", &["sleep", "1000"]).await;
    running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    running.gateway.sandboxes().delete(NAME, &DeleteParams::default()).await.unwrap();
    assert_eq!(running.supervisor.wait(), 0);
    for _ in 0..200 {
        if running.gateway.hub.logs().tail(&running.uid, &LogQuery::default()).await.unwrap().is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the logs outlived the sandbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_supervisor_does_not_start() {
    let running = Running::start("second", &["sleep", "1000"]).await;
    running.gateway.until(NAME, "running", |s| main_state(s) == Some(MainProcessState::Running)).await;
    let mut second = Supervisor::start(&running.ground, &running.uid);
    assert_eq!(second.wait(), 75);
    assert!(running.gateway.hub.connected(&running.uid));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_given_ca_is_trusted() {
    let room = Room::new("other-ca");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = gateway.create(NAME, gateway::spec(&["sleep", "1000"], POLICY)).await.metadata.uid.unwrap();
    let mut other = room.ground();
    other.address = ground.address;
    let mut supervisor = Supervisor::start(&other, &uid);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert!(!gateway.hub.connected(&uid));
    assert!(supervisor.running(), "it keeps trying");
    assert!(supervisor.log().contains("session lost"), "{}", supervisor.log());
}

#[test]
fn a_bootstrap_that_is_none_is_code_64() {
    let room = Room::new("bootstrap");
    let mut supervisor = Supervisor::spawn(&room.0, "{\"version\": 1, \"surprise\": true}");
    assert_eq!(supervisor.wait(), 64);
    assert!(supervisor.log().contains("unknown field `surprise`"), "{}", supervisor.log());
}
