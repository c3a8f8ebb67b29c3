//! The methods over the real listener.

#![allow(clippy::unwrap_used)]

mod support;

use k8s_openapi::api::apps::v1::ControllerRevision;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use openshell_crds::{OpenShellSandbox, Provider};
use openshell_operator::LOCAL_NAMESPACE;
use openshell_proto::datamodel::{self, workspace_selector::Selection};
use openshell_proto::v1::{self, SandboxPhase, exec_sandbox_event, exec_sandbox_input, sandbox_stream_event};
use openshell_proto::{sandbox as wire, supervisor as session};
use support::{Gateway, create};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

fn fields(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    details.bad_request().map(|b| b.field_violations.iter().map(|v| v.field.clone()).collect()).unwrap_or_default()
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|i| i.reason.clone()).unwrap_or_default()
}

fn get(name: &str) -> v1::GetSandboxRequest {
    v1::GetSandboxRequest { name: name.to_owned(), workspace_scope: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_is_refused_with_every_field() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let spec = v1::SandboxSpec {
        environment: [("OPENSHELL_X".to_owned(), String::new()), ("1A".to_owned(), "x".repeat(9000))].into(),
        command: vec![String::new()],
        log_level: "debug".into(),
        restart_policy: v1::SandboxRestartPolicy::Always.into(),
        resource_requirements: Some(v1::ResourceRequirements { gpu: Some(v1::GpuResourceRequirements { count: Some(1) }) }),
        template: Some(v1::SandboxTemplate { image: "i".into(), runtime_class_name: "r".into(), ..Default::default() }),
        policy: Some(wire::SandboxPolicy { version: 7, ..Default::default() }),
        ..Default::default()
    };
    let request = v1::CreateSandboxRequest {
        spec: Some(spec),
        name: "a--b".into(),
        labels: [("openshell.ai/x".to_owned(), "-".to_owned())].into(),
        workload_template: "t".into(),
        service_exposures: vec![v1::SandboxServiceExposure::default()],
        ..Default::default()
    };
    let status = api.create_sandbox(request).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    let found = fields(&status);
    for field in [
        "name",
        "labels[\"openshell.ai/x\"]",
        "workload_template",
        "service_exposures",
        "spec.log_level",
        "spec.restart_policy",
        "spec.resource_requirements.gpu",
        "spec.template.image",
        "spec.template.runtime_class_name",
        "spec.environment[\"OPENSHELL_X\"]",
        "spec.environment[\"1A\"]",
        "spec.command[0]",
        "spec.policy.version",
    ] {
        assert!(found.iter().any(|f| f == field), "{field} is not among {found:?}");
    }
    let details = status.get_error_details();
    let template = details.bad_request().unwrap().field_violations.iter().filter(|v| v.field.starts_with("spec.template"));
    for violation in template {
        assert!(violation.description.starts_with("the process driver"), "{violation:?}");
    }
    // Nothing was written.
    assert!(api.list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap().into_inner().sandboxes.is_empty());

    let missing = api.create_sandbox(v1::CreateSandboxRequest::default()).await.unwrap_err();
    assert_eq!(fields(&missing), ["spec"]);
    let elsewhere = datamodel::WorkspaceSelector { selection: Some(Selection::Workspace("other".into())) };
    let elsewhere = v1::CreateSandboxRequest { workspace_scope: Some(elsewhere), ..create("x", &[]) };
    assert_eq!(api.create_sandbox(elsewhere).await.unwrap_err().code(), Code::NotFound);
    let everywhere = datamodel::WorkspaceSelector { selection: Some(Selection::AllWorkspaces(datamodel::AllWorkspaces {})) };
    let everywhere = v1::GetSandboxRequest { name: "x".into(), workspace_scope: Some(everywhere) };
    assert_eq!(fields(&api.get_sandbox(everywhere).await.unwrap_err()), ["workspace_scope"]);
    for name in ["../secrets/x", "X", ""] {
        assert_eq!(api.get_sandbox(get(name)).await.unwrap_err().code(), Code::InvalidArgument, "{name:?}");
    }
    // A provider that is not there, and a grant over the gateway's own keys.
    let mut unknown = create("x", &[]);
    unknown.spec.as_mut().unwrap().providers = vec!["nope".into()];
    assert_eq!(fields(&api.create_sandbox(unknown).await.unwrap_err()), ["spec.providers"]);
    let unimplemented = api.create_ssh_session(v1::CreateSshSessionRequest::default()).await.unwrap_err();
    assert_eq!((unimplemented.code(), reason(&unimplemented).as_str()), (Code::Unimplemented, "METHOD_NOT_IMPLEMENTED"));
    assert!(unimplemented.message().contains("CreateSshSession"));
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_from_creation_to_deletion() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let (ready, supervisor) = gateway.sandbox(create("life", &["agent"])).await;
    let status = ready.status.unwrap();
    assert_eq!(status.current_policy_version, 1);
    assert!(status.conditions.iter().any(|c| c.r#type == "Ready" && c.status == "True"));

    let again = api.create_sandbox(create("life", &["agent"])).await.unwrap_err();
    assert_eq!((again.code(), reason(&again).as_str()), (Code::AlreadyExists, "SANDBOX_ALREADY_EXISTS"));

    let name = || "life".to_owned();
    let stopped = api.stop_sandbox(v1::StopSandboxRequest { name: name(), ..Default::default() }).await.unwrap().into_inner();
    assert_eq!(stopped.sandbox.unwrap().status.unwrap().phase(), SandboxPhase::Stopping);
    drop(supervisor);
    gateway.wait("life", SandboxPhase::Stopped).await;
    let exec = v1::ExecSandboxRequest { sandbox: name(), command: vec!["env".into()], ..Default::default() };
    let refused = api.exec_sandbox(exec).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "SANDBOX_NOT_RUNNING"));

    let started = api.start_sandbox(v1::StartSandboxRequest { name: name(), ..Default::default() }).await.unwrap().into_inner();
    let started = started.sandbox.unwrap();
    assert_eq!(started.status.unwrap().phase(), SandboxPhase::Starting, "a client that waits for ready must not see Stopped");
    let uid = started.metadata.unwrap().id;
    let _supervisor = support::Supervisor::connect(&gateway, &uid).await;
    gateway.wait("life", SandboxPhase::Ready).await;

    let delete = v1::DeleteSandboxRequest { name: name(), ..Default::default() };
    let begun = std::time::Instant::now();
    let deleted = api.delete_sandbox(delete.clone()).await.unwrap().into_inner();
    let took = begun.elapsed();
    assert_eq!((deleted.outcome(), deleted.sandbox_id.as_str()), (v1::DeletionOutcome::Accepted, uid.as_str()));
    assert!(took < std::time::Duration::from_secs(10), "acknowledged after {took:?}");
    let gone = std::time::Instant::now();
    while api.get_sandbox(get("life")).await.is_ok() {
        assert!(gone.elapsed() < std::time::Duration::from_secs(20));
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(api.delete_sandbox(delete.clone()).await.unwrap_err().code(), Code::NotFound);
    let absent = api.delete_sandbox(v1::DeleteSandboxRequest { allow_missing: true, ..delete }).await.unwrap().into_inner();
    assert_eq!(absent.outcome(), v1::DeletionOutcome::AlreadyAbsent);
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    for i in 0..5 {
        let mut request = create(&format!("s{i}"), &[]);
        request.labels = [("parity".to_owned(), (i % 2).to_string())].into();
        api.create_sandbox(request).await.unwrap();
    }
    let unnamed = api.create_sandbox(create("", &[])).await.unwrap().into_inner().sandbox.unwrap().metadata.unwrap().name;
    assert!(unnamed.contains('-'), "{unnamed}");
    let mut request = v1::ListSandboxesRequest { page_size: 4, ..Default::default() };
    let (mut names, mut pages) = (Vec::new(), 0);
    loop {
        let page = api.list_sandboxes(request.clone()).await.unwrap().into_inner();
        assert!(page.sandboxes.len() <= 4);
        names.extend(page.sandboxes.into_iter().map(|s| s.metadata.unwrap().name));
        pages += 1;
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    names.retain(|n| *n != unnamed);
    assert_eq!((names, pages), (["s0", "s1", "s2", "s3", "s4"].map(str::to_owned).to_vec(), 2));

    let odd = v1::ListSandboxesRequest { label_selector: "parity=1".into(), ..Default::default() };
    assert_eq!(api.list_sandboxes(odd).await.unwrap().into_inner().sandboxes.len(), 2);
    // A token of another list, a token of nobody, a negative size, a bad selector.
    let mixed = v1::ListSandboxesRequest { label_selector: "parity=1".into(), ..request.clone() };
    for (bad, field) in [
        (mixed, "page_token"),
        (v1::ListSandboxesRequest { page_token: "x".into(), ..Default::default() }, "page_token"),
        (v1::ListSandboxesRequest { page_size: -1, ..Default::default() }, "page_size"),
        (v1::ListSandboxesRequest { label_selector: "a=(".into(), ..Default::default() }, "label_selector"),
    ] {
        assert_eq!(fields(&api.list_sandboxes(bad).await.unwrap_err()), [field]);
    }
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_comes_twice_is_carried_out_once() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let request = v1::CreateSandboxRequest { request_id: "r-1".into(), ..create("", &["x"]) };
    let first = api.create_sandbox(request.clone()).await.unwrap().into_inner().sandbox.unwrap().metadata.unwrap();
    let second = api.create_sandbox(request.clone()).await.unwrap().into_inner().sandbox.unwrap().metadata.unwrap();
    assert_eq!(first.id, second.id);
    let other = v1::CreateSandboxRequest { request_id: "r-1".into(), ..create("", &["y"]) };
    assert_eq!(fields(&api.create_sandbox(other).await.unwrap_err()), ["request_id"]);
    // A gateway that was restarted in between has forgotten the answer, not what it made.
    gateway.stop().await;
    gateway.start_again().await.unwrap();
    let mut api = gateway.api().await;
    let third = api.create_sandbox(request).await.unwrap().into_inner().sandbox.unwrap().metadata.unwrap();
    assert_eq!((first.id, first.name), (third.id, third.name));
    gateway.clean().await;
}

async fn run(
    api: &mut v1::open_shell_client::OpenShellClient<tonic::transport::Channel>,
    request: v1::ExecSandboxRequest,
) -> (String, String, i32) {
    let mut stream = api.exec_sandbox(request).await.unwrap().into_inner();
    let (mut out, mut err, mut code) = (Vec::new(), Vec::new(), None);
    while let Some(event) = stream.next().await {
        match event.unwrap().payload.unwrap() {
            exec_sandbox_event::Payload::Stdout(o) => out.extend(o.data),
            exec_sandbox_event::Payload::Stderr(e) => err.extend(e.data),
            exec_sandbox_event::Payload::Exit(e) => code = Some(e.exit_code),
        }
    }
    (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), code.unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_run_with_their_input_and_environment() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let (_, supervisor) = gateway.sandbox(create("box", &["agent"])).await;
    let exec = |command: &[&str]| v1::ExecSandboxRequest {
        sandbox: "box".into(),
        command: command.iter().map(|&c| c.to_owned()).collect(),
        ..Default::default()
    };
    let input = "0123456789abcdef".repeat(8192);
    let (out, _, code) = run(&mut api, v1::ExecSandboxRequest { stdin: input.clone().into_bytes(), ..exec(&["cat"]) }).await;
    assert_eq!((out == input, code), (true, 0));
    let environment = [("A".to_owned(), "1".to_owned()), ("OPENSHELL_PYFUNC_B64".to_owned(), "eA==".to_owned())].into();
    let (out, ..) = run(&mut api, v1::ExecSandboxRequest { environment, workdir: "/srv".into(), ..exec(&["env"]) }).await;
    assert_eq!(out, "A=1\nOPENSHELL_PYFUNC_B64=eA==\n/srv");
    assert_eq!(run(&mut api, exec(&["exit", "42"])).await.2, 42);
    assert_eq!(run(&mut api, exec(&["missing"])).await, (String::new(), "missing: command not found\n".to_owned(), 127));

    let bad = v1::ExecSandboxRequest {
        environment: [("OPENSHELL_TOKEN".to_owned(), String::new())].into(),
        execution_timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }),
        ..exec(&["cat"])
    };
    let mut found = fields(&api.exec_sandbox(bad).await.unwrap_err());
    found.sort();
    assert_eq!(found, ["environment[\"OPENSHELL_TOKEN\"]", "execution_timeout"]);
    assert_eq!(fields(&api.exec_sandbox(exec(&[])).await.unwrap_err()), ["command"]);

    // Interactive: input and resizes while it runs; the end of the stream is the end of the input.
    let frame = |payload| v1::ExecSandboxInput { payload: Some(payload) };
    let frames = vec![
        frame(exec_sandbox_input::Payload::Start(exec(&["cat"]))),
        frame(exec_sandbox_input::Payload::Stdin(b"hello".to_vec())),
        frame(exec_sandbox_input::Payload::Resize(v1::ExecSandboxWindowResize { cols: 120, rows: 40 })),
    ];
    let mut events = api.exec_sandbox_interactive(tokio_stream::iter(frames)).await.unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(event) = events.next().await {
        seen.push(event.unwrap().payload.unwrap());
    }
    assert!(matches!(&seen[0], exec_sandbox_event::Payload::Stdout(o) if o.data == b"hello"));
    assert!(matches!(&seen[1], exec_sandbox_event::Payload::Stderr(e) if e.data == b"120x40"));
    assert!(matches!(&seen[2], exec_sandbox_event::Payload::Exit(e) if e.exit_code == 0));

    // Without a command: the main process.
    let attach = vec![frame(exec_sandbox_input::Payload::Start(exec(&[])))];
    let mut events = api.exec_sandbox_interactive(tokio_stream::iter(attach)).await.unwrap().into_inner();
    assert!(matches!(events.next().await.unwrap().unwrap().payload.unwrap(), exec_sandbox_event::Payload::Stdout(o) if o.data == b"main"));
    assert!(matches!(events.next().await.unwrap().unwrap().payload.unwrap(), exec_sandbox_event::Payload::Exit(e) if e.exit_code == 5));
    let nothing = vec![frame(exec_sandbox_input::Payload::Stdin(Vec::new()))];
    assert_eq!(fields(&api.exec_sandbox_interactive(tokio_stream::iter(nothing)).await.unwrap_err()), ["start"]);

    // The sandbox is lost while a command runs: an error, never a pretended exit.
    let mut events = api.exec_sandbox(exec(&["sleep"])).await.unwrap().into_inner();
    drop(supervisor);
    let lost = events.next().await.unwrap().unwrap_err();
    assert_eq!((lost.code(), reason(&lost).as_str()), (Code::Unavailable, "SANDBOX_LOST"));
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_change_is_a_revision_and_is_acknowledged() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let (_, _supervisor) = gateway.sandbox(create("pol", &[])).await;
    let sandbox = || "pol".to_owned();
    let current =
        api.get_sandbox_config(wire::GetSandboxConfigRequest { name: sandbox(), workspace_scope: None }).await.unwrap().into_inner();
    assert_eq!((current.version, current.configuration_admitted), (1, true));
    let mut policy = current.policy.unwrap();
    let same = v1::UpdateConfigRequest { sandbox: sandbox(), policy: Some(policy.clone()), ..Default::default() };
    let same = api.update_config(same).await.unwrap().into_inner();
    assert_eq!((same.version, same.policy_hash.as_str()), (1, current.policy_hash.as_str()), "the same policy is no new revision");

    let endpoint = wire::NetworkEndpoint { host: "example.com".into(), port: 443, ..Default::default() };
    let rule = wire::NetworkPolicyRule {
        name: "web".into(),
        endpoints: vec![endpoint],
        binaries: vec![wire::NetworkBinary { path: "/usr/bin/curl".into() }],
    };
    policy.network_policies.insert("web".into(), rule);
    let change = v1::UpdateConfigRequest { sandbox: sandbox(), policy: Some(policy.clone()), ..Default::default() };
    assert_eq!(api.update_config(change.clone()).await.unwrap().into_inner().version, 2);
    let begun = std::time::Instant::now();
    let status = loop {
        let request = v1::GetSandboxPolicyStatusRequest { sandbox: sandbox(), ..Default::default() };
        let status = api.get_sandbox_policy_status(request).await.unwrap().into_inner();
        if status.active_version == 2 {
            break status;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{status:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    };
    assert_eq!(status.revision.unwrap().status(), v1::PolicyStatus::Loaded);
    let first = v1::GetSandboxPolicyStatusRequest { sandbox: sandbox(), version: 1, ..Default::default() };
    let first = api.get_sandbox_policy_status(first).await.unwrap().into_inner().revision.unwrap();
    assert_eq!(first.status(), v1::PolicyStatus::Superseded);
    let mut list = v1::ListSandboxPoliciesRequest { sandbox: sandbox(), page_size: 1, ..Default::default() };
    let newest = api.list_sandbox_policies(list.clone()).await.unwrap().into_inner();
    list.page_token.clone_from(&newest.next_page_token);
    let oldest = api.list_sandbox_policies(list).await.unwrap().into_inner();
    assert_eq!((newest.revisions[0].version, oldest.revisions[0].version, oldest.next_page_token.as_str()), (2, 1, ""));

    // What a running sandbox cannot change, a stale writer, and forms that are not there.
    let mut fixed = policy.clone();
    fixed.filesystem.as_mut().unwrap().read_only.retain(|p| p != "/usr");
    let fixed = v1::UpdateConfigRequest { policy: Some(fixed), ..change.clone() };
    let refused = api.update_config(fixed).await.unwrap_err();
    assert_eq!(fields(&refused), ["policy.filesystem_policy.read_only"]);
    for part in ["the running sandbox has `/usr`", "leave `filesystem_policy` out", "openshell sandbox stop pol"] {
        assert!(refused.message().contains(part), "{part} is not in: {}", refused.message());
    }
    policy.network_policies.clear();
    let stale = v1::UpdateConfigRequest { policy: Some(policy), expected_resource_version: 1, ..change.clone() };
    assert_eq!(api.update_config(stale).await.unwrap_err().code(), Code::Aborted);
    let setting = v1::UpdateConfigRequest { sandbox: sandbox(), setting_key: "x".into(), ..Default::default() };
    assert_eq!(api.update_config(setting).await.unwrap_err().code(), Code::Unimplemented);
    let both = v1::UpdateConfigRequest { setting_key: "x".into(), ..change };
    assert_eq!(api.update_config(both).await.unwrap_err().code(), Code::InvalidArgument);
    gateway.clean().await;
}

/// The first policy is recorded when a second one follows, whoever sees that first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_policy_is_not_lost_to_a_change_while_the_gateway_was_away() {
    let mut gateway = Gateway::start().await;
    let (_, supervisor) = gateway.sandbox(create("away", &[])).await;
    let records = async |client: kube::Client| {
        let api: kube::Api<ControllerRevision> = kube::Api::namespaced(client, LOCAL_NAMESPACE);
        api.list(&kube::api::ListParams::default()).await.unwrap().items.len()
    };
    let list = || v1::ListSandboxPoliciesRequest { sandbox: "away".into(), ..Default::default() };
    let first = gateway.api().await.list_sandbox_policies(list()).await.unwrap().into_inner().revisions;
    assert_eq!(first.iter().map(|r| (r.version, r.status())).collect::<Vec<_>>(), [(1, v1::PolicyStatus::Loaded)]);
    assert!(first[0].policy.is_some() && first[0].created_time.is_some());
    assert_eq!(records(gateway.objects()).await, 0, "it is worth no write of its own");

    drop(supervisor);
    gateway.stop().await;
    let state = gateway.state().join("gateway");
    let store = openshell_operator::api::LocalApi::open(&state.join("openshell.db"), &state.join("seal.key")).await.unwrap();
    let sandboxes: kube::Api<OpenShellSandbox> = kube::Api::default_namespaced(store.client());
    let change = serde_json::json!({ "spec": { "policy": { "version": 1, "network_policies": {
        "web": { "endpoints": [{ "host": "example.com", "port": 443 }], "binaries": [{ "path": "/usr/bin/curl" }] }
    } } } });
    sandboxes.patch("away", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&change)).await.unwrap();
    store.close().await;
    gateway.start_again().await.unwrap();

    let begun = std::time::Instant::now();
    let all = loop {
        let all = gateway.api().await.list_sandbox_policies(list()).await.unwrap().into_inner().revisions;
        if all.len() == 2 {
            break all;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{all:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    };
    assert_eq!(all.iter().map(|r| r.version).collect::<Vec<_>>(), [2, 1]);
    assert_eq!((&all[1].policy, &all[1].policy_hash), (&first[0].policy, &first[0].policy_hash));
    assert_eq!(records(gateway.objects()).await, 2);
    let sandboxes: kube::Api<OpenShellSandbox> = kube::Api::namespaced(gateway.objects(), LOCAL_NAMESPACE);
    loop {
        let policy = sandboxes.get("away").await.unwrap().status.unwrap().policy.unwrap();
        if policy.revision == 2 {
            assert_eq!(policy.document, None, "the history has it");
            break;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{policy:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_leaves_its_filesystem_part_out_keeps_what_runs() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let (_, supervisor) = gateway.sandbox(create("keep", &[])).await;
    let set = |policy: &wire::SandboxPolicy| v1::UpdateConfigRequest {
        sandbox: "keep".into(),
        policy: Some(policy.clone()),
        ..Default::default()
    };
    let recorded = |version: u32| v1::GetSandboxPolicyStatusRequest { sandbox: "keep".into(), version, ..Default::default() };
    let rule = |host: &str| wire::NetworkPolicyRule {
        endpoints: vec![wire::NetworkEndpoint { host: host.into(), port: 443, ..Default::default() }],
        ..Default::default()
    };
    // Created without a policy; this one says nothing of files.
    let mut policy = wire::SandboxPolicy { version: 1, ..Default::default() };
    policy.network_policies.insert("a".into(), rule("a.example"));
    assert_eq!(api.update_config(set(&policy)).await.unwrap().into_inner().version, 2);
    let kept = api.get_sandbox_policy_status(recorded(2)).await.unwrap().into_inner().revision.unwrap().policy.unwrap();
    let default = openshell_proto::policy::to_wire(&openshell_policy::Policy::restrictive_default());
    assert_eq!(kept.filesystem, default.filesystem, "what is recorded says all of what is enforced");

    // Other paths need a start, so they have to wait for a stop.
    policy.filesystem = Some(wire::FilesystemPolicy { include_workdir: true, read_only: vec!["/usr".into()], read_write: Vec::new() });
    assert_eq!(api.update_config(set(&policy)).await.unwrap_err().code(), Code::InvalidArgument);
    api.stop_sandbox(v1::StopSandboxRequest { name: "keep".into(), ..Default::default() }).await.unwrap();
    drop(supervisor);
    gateway.wait("keep", SandboxPhase::Stopped).await;
    assert_eq!(api.update_config(set(&policy)).await.unwrap().into_inner().version, 3);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    let stopped = gateway.wait("keep", SandboxPhase::Stopped).await.status.unwrap().conditions;
    let reason = |kind: &str| stopped.iter().find(|c| c.r#type == kind).map(|c| c.reason.as_str());
    assert_eq!((reason("Connected"), reason("Enforced")), (Some("Stopped"), Some("Full")));
    let waiting = api.get_sandbox_policy_status(recorded(3)).await.unwrap().into_inner().revision.unwrap();
    assert_eq!((waiting.status(), waiting.load_error.as_str()), (v1::PolicyStatus::Pending, ""));
    // And what a stopped sandbox will start with is kept as well.
    let mut narrower = policy.clone();
    narrower.filesystem = None;
    narrower.network_policies.clear();
    assert_eq!(api.update_config(set(&narrower)).await.unwrap().into_inner().version, 4);
    let kept = api.get_sandbox_policy_status(recorded(4)).await.unwrap().into_inner().revision.unwrap().policy.unwrap();
    assert_eq!(kept.filesystem, policy.filesystem);
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_are_kept_and_followed_without_loss() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let (_, supervisor) = gateway.sandbox(create("log", &[])).await;
    let record = |seq: u64, level: &str, target: &str| session::LogRecord {
        seq,
        level: level.into(),
        target: target.into(),
        message: format!("m{seq}"),
        time: Some(prost_types::Timestamp { seconds: 1_700_000_000 + seq as i64, nanos: 0 }),
        ..Default::default()
    };
    supervisor.log(vec![record(1, "INFO", "proxy"), record(2, "DEBUG", "stdout"), record(3, "OCSF", "proxy")]).await;
    let query = |lines: u32, sources: &[&str], level: &str| v1::GetSandboxLogsRequest {
        sandbox: "log".into(),
        lines,
        sources: sources.iter().map(|&s| s.to_owned()).collect(),
        min_level: level.into(),
        ..Default::default()
    };
    let begun = std::time::Instant::now();
    loop {
        let logs = api.get_sandbox_logs(query(0, &[], "")).await.unwrap().into_inner().logs;
        if logs.len() == 3 {
            break;
        }
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{logs:?}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for (request, expected) in [
        (query(1, &[], ""), vec!["m3"]),
        (query(0, &["sandbox"], "info"), vec!["m1", "m3"]),
        (query(0, &["stdout"], ""), vec!["m2"]),
        (query(0, &["gateway"], ""), vec![]),
    ] {
        let logs = api.get_sandbox_logs(request).await.unwrap().into_inner().logs;
        assert_eq!(logs.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(), expected);
    }
    assert_eq!(fields(&api.get_sandbox_logs(query(0, &[], "loud")).await.unwrap_err()), ["min_level"]);

    let watch = v1::WatchSandboxRequest { sandbox: "log".into(), follow_logs: true, follow_status: true, ..Default::default() };
    let mut stream = api.watch_sandbox(watch.clone()).await.unwrap().into_inner();
    let (mut lines, mut cursor) = (Vec::new(), String::new());
    supervisor.log(vec![record(4, "INFO", "proxy")]).await;
    while lines.len() < 4 {
        let event = stream.next().await.unwrap().unwrap();
        cursor = event.cursor;
        if let Some(sandbox_stream_event::Payload::Log(line)) = event.payload {
            lines.push(line.message);
        }
    }
    assert_eq!(lines, ["m1", "m2", "m3", "m4"]);
    drop(stream);
    supervisor.log(vec![record(5, "INFO", "proxy")]).await;
    let resumed = v1::WatchSandboxRequest { resume_after_cursor: cursor, ..watch.clone() };
    let mut stream = api.watch_sandbox(resumed).await.unwrap().into_inner();
    let line = loop {
        if let Some(sandbox_stream_event::Payload::Log(line)) = stream.next().await.unwrap().unwrap().payload {
            break line.message;
        }
    };
    assert_eq!(line, "m5", "nothing twice, nothing lost");

    // The end of the sandbox is the end of the stream, after its last state.
    api.delete_sandbox(v1::DeleteSandboxRequest { name: "log".into(), ..Default::default() }).await.unwrap();
    let mut last = None;
    while let Some(event) = tokio::time::timeout(std::time::Duration::from_secs(20), stream.next()).await.unwrap() {
        if let Some(sandbox_stream_event::Payload::Sandbox(sandbox)) = event.unwrap().payload {
            last = Some(sandbox.status.unwrap().phase());
        }
    }
    assert_eq!(last, Some(SandboxPhase::Deleting));
    let bad = v1::WatchSandboxRequest { resume_after_cursor: "x".into(), ..watch };
    assert_eq!(fields(&api.watch_sandbox(bad).await.unwrap_err()), ["resume_after_cursor"]);
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_values_of_a_provider_never_come_back() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let value = "s3cr3t-value";
    let meta = |name: &str| Some(datamodel::ObjectMeta { name: name.into(), ..Default::default() });
    let provider = datamodel::Provider {
        metadata: meta("forge"),
        r#type: "generic".into(),
        credentials: [("FORGE_TOKEN".to_owned(), value.to_owned())].into(),
        config: [("endpoints".to_owned(), "forge.example:8443/api".to_owned()), ("FORGE_USER".to_owned(), "me".to_owned())].into(),
        ..Default::default()
    };
    let created = v1::CreateProviderRequest { provider: Some(provider.clone()), ..Default::default() };
    let created = api.create_provider(created).await.unwrap().into_inner().provider.unwrap();
    assert_eq!(created.credentials["FORGE_TOKEN"], "REDACTED");
    assert_eq!(created.config["endpoints"], "forge.example:8443/api");

    // Neither in an answer, nor in a Secret of the object API, nor in a file of ours.
    let https = support_http(&gateway, "/api/v1/namespaces/openshell/secrets/osprov-forge").await;
    assert!(https.contains("FORGE_TOKEN") && !https.contains(value), "{https}");
    let listed = api.list_providers(v1::ListProvidersRequest::default()).await.unwrap().into_inner();
    assert!(!format!("{:?}", listed.providers[0].config).contains(value));
    for file in walk(&gateway.state()) {
        let bytes = std::fs::read(&file).unwrap();
        assert!(!bytes.windows(value.len()).any(|w| w == value.as_bytes()), "{} holds the value", file.display());
    }

    let mut request = create("user", &[]);
    request.spec.as_mut().unwrap().providers = vec!["forge".into()];
    api.create_sandbox(request).await.unwrap();
    let delete = v1::DeleteProviderRequest { name: "forge".into(), ..Default::default() };
    let used = api.delete_provider(delete.clone()).await.unwrap_err();
    assert_eq!((used.code(), reason(&used).as_str()), (Code::FailedPrecondition, "PROVIDER_IN_USE"));
    assert!(used.message().contains("user"));
    let detach = v1::DetachSandboxProviderRequest { sandbox: "user".into(), provider: "forge".into(), ..Default::default() };
    assert!(api.detach_sandbox_provider(detach.clone()).await.unwrap().into_inner().detached);
    assert!(!api.detach_sandbox_provider(detach).await.unwrap().into_inner().detached);
    let attach = v1::AttachSandboxProviderRequest { sandbox: "user".into(), provider: "forge".into(), ..Default::default() };
    assert!(api.attach_sandbox_provider(attach.clone()).await.unwrap().into_inner().attached);
    assert!(!api.attach_sandbox_provider(attach).await.unwrap().into_inner().attached);
    let of = v1::ListSandboxProvidersRequest { sandbox: "user".into(), ..Default::default() };
    assert_eq!(api.list_sandbox_providers(of).await.unwrap().into_inner().providers.len(), 1);
    api.delete_sandbox(v1::DeleteSandboxRequest { name: "user".into(), ..Default::default() }).await.unwrap();
    let begun = std::time::Instant::now();
    while let Err(status) = api.delete_provider(delete.clone()).await {
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert!(begun.elapsed() < std::time::Duration::from_secs(20));
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }

    let bad = datamodel::Provider {
        metadata: meta("Bad"),
        r#type: "Generic".into(),
        credentials: [("A B".to_owned(), "x\ny".to_owned()), ("OPENSHELL_X".to_owned(), "v".to_owned())].into(),
        profile_workspace: "w".into(),
        ..Default::default()
    };
    let bad = api.create_provider(v1::CreateProviderRequest { provider: Some(bad), ..Default::default() }).await.unwrap_err();
    let found = fields(&bad);
    for field in [
        "provider.metadata.name",
        "provider.type",
        "provider.credentials[\"A B\"]",
        "provider.credentials[\"OPENSHELL_X\"]",
        "provider.profile_workspace",
        "provider.config[\"endpoints\"]",
    ] {
        assert!(found.iter().any(|f| f == field), "{field} is not among {found:?}");
    }
    assert!(!bad.message().contains("x\ny"));
    gateway.clean().await;
}

/// The request with what `--force` adds to it.
fn forced<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(openshell_proto::FORCE_METADATA, "true".parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_managed_elsewhere_is_stopped_and_started_but_changed_and_deleted_only_by_force() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let objects = gateway.objects();
    let sandboxes = kube::Api::<OpenShellSandbox>::default_namespaced(objects.clone());
    let apply = kube::api::PatchParams::apply("argocd-controller");
    let file = serde_json::json!({
        "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "metadata": {"name": "filed"}, "spec": {"command": ["agent"]},
    });
    let uid = sandboxes.patch("filed", &apply, &kube::api::Patch::Apply(&file)).await.unwrap().metadata.uid.unwrap();
    let supervisor = support::Supervisor::connect(&gateway, &uid).await;
    gateway.wait("filed", SandboxPhase::Ready).await;

    let mut policy = wire::SandboxPolicy { version: 1, ..Default::default() };
    let endpoints = vec![wire::NetworkEndpoint { host: "a.example".into(), port: 443, ..Default::default() }];
    policy.network_policies.insert("a".into(), wire::NetworkPolicyRule { endpoints, ..Default::default() });
    let set = v1::UpdateConfigRequest { sandbox: "filed".into(), policy: Some(policy), ..Default::default() };
    let delete = v1::DeleteSandboxRequest { name: "filed".into(), request_id: "again".into(), ..Default::default() };
    let provider = datamodel::Provider {
        metadata: Some(datamodel::ObjectMeta { name: "forge".into(), ..Default::default() }),
        r#type: "github".into(),
        credentials: [("TOKEN".to_owned(), "x".to_owned())].into(),
        ..Default::default()
    };
    api.create_provider(v1::CreateProviderRequest { provider: Some(provider), ..Default::default() }).await.unwrap();
    let attach = v1::AttachSandboxProviderRequest { sandbox: "filed".into(), provider: "forge".into(), ..Default::default() };
    for refused in [
        api.update_config(set.clone()).await.unwrap_err(),
        api.delete_sandbox(delete.clone()).await.unwrap_err(),
        api.attach_sandbox_provider(attach).await.unwrap_err(),
    ] {
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::FailedPrecondition, "MANAGED_ELSEWHERE"));
        assert!(refused.message().contains("argocd-controller") && refused.message().contains("--force"), "{}", refused.message());
    }
    let mut unclear = tonic::Request::new(delete.clone());
    unclear.metadata_mut().insert(openshell_proto::FORCE_METADATA, "please".parse().unwrap());
    assert_eq!(fields(&api.delete_sandbox(unclear).await.unwrap_err()), ["x-openshell-force"]);

    // Whether it runs is not what it is.
    api.stop_sandbox(v1::StopSandboxRequest { name: "filed".into(), ..Default::default() }).await.unwrap();
    drop(supervisor);
    gateway.wait("filed", SandboxPhase::Stopped).await;
    let suspended_by = |object: &OpenShellSandbox| -> Vec<String> {
        let entries = object.metadata.managed_fields.iter().flatten();
        let owns = |e: &&ManagedFieldsEntry| e.fields_v1.as_ref().is_some_and(|f| f.0["f:spec"].get("f:suspend").is_some());
        entries.filter(owns).filter_map(|e| e.manager.clone()).collect()
    };
    assert_eq!(suspended_by(&sandboxes.get("filed").await.unwrap()), ["openshell-suspend"]);
    let again = sandboxes.patch("filed", &apply, &kube::api::Patch::Apply(&file)).await.unwrap();
    assert!(again.spec.suspend, "what the file does not say stays");
    api.start_sandbox(v1::StartSandboxRequest { name: "filed".into(), ..Default::default() }).await.unwrap();
    let started = sandboxes.get("filed").await.unwrap();
    assert!(!started.spec.suspend);
    assert_eq!(suspended_by(&started), ["openshell-suspend"]);
    sandboxes.patch("filed", &apply, &kube::api::Patch::Apply(&file)).await.unwrap();

    assert_eq!(api.update_config(forced(set)).await.unwrap().into_inner().version, 2);
    // Refused before and forced now under the same request id: what was refused was not carried out.
    let gone = api.delete_sandbox(forced(delete)).await.unwrap().into_inner();
    assert_eq!((gone.outcome(), gone.sandbox_id), (v1::DeletionOutcome::Accepted, uid));

    // The same for a provider that a tool has marked.
    let marked = serde_json::json!({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "apps"}}});
    let providers = kube::Api::<Provider>::default_namespaced(objects);
    providers.patch("forge", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&marked)).await.unwrap();
    let delete = v1::DeleteProviderRequest { name: "forge".into(), ..Default::default() };
    let refused = api.delete_provider(delete.clone()).await.unwrap_err();
    assert!(refused.message().contains("the Flux Kustomization 'apps'"), "{}", refused.message());
    api.delete_provider(forced(delete)).await.unwrap();

    // What was made here is ours, also after it was stopped, started and changed.
    let (_, supervisor) = gateway.sandbox(create("own", &[])).await;
    api.stop_sandbox(v1::StopSandboxRequest { name: "own".into(), ..Default::default() }).await.unwrap();
    drop(supervisor);
    gateway.wait("own", SandboxPhase::Stopped).await;
    api.start_sandbox(v1::StartSandboxRequest { name: "own".into(), ..Default::default() }).await.unwrap();
    api.delete_sandbox(v1::DeleteSandboxRequest { name: "own".into(), ..Default::default() }).await.unwrap();
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deleted_secret_takes_its_credential_from_what_runs() {
    let mut gateway = Gateway::start().await;
    let mut api = gateway.api().await;
    let provider = datamodel::Provider {
        metadata: Some(datamodel::ObjectMeta { name: "forge".into(), ..Default::default() }),
        r#type: "generic".into(),
        credentials: [("FORGE_TOKEN".to_owned(), "value".to_owned())].into(),
        config: [("endpoints".to_owned(), "forge.example:8443".to_owned())].into(),
        ..Default::default()
    };
    api.create_provider(v1::CreateProviderRequest { provider: Some(provider), ..Default::default() }).await.unwrap();
    let mut request = create("user", &["sleep"]);
    request.spec.as_mut().unwrap().providers = vec!["forge".into()];
    let (_, mut supervisor) = gateway.sandbox(request).await;
    let minute = std::time::Duration::from_secs(20);
    let held = tokio::time::timeout(minute, supervisor.config.wait_for(|config| config.credentials.len() == 1)).await;
    let (revision, policy) = held.unwrap().map(|config| (config.revision, config.policy_hash.clone())).unwrap();

    let secret = "/api/v1/namespaces/openshell/secrets/osprov-forge";
    assert_eq!(support::http::send(&gateway, "DELETE", secret, &[]).await.0, 200);
    let left = tokio::time::timeout(minute, supervisor.config.wait_for(|config| config.revision > revision)).await;
    let left = left.unwrap().unwrap().clone();
    assert!(left.credentials.is_empty(), "its value stays in use");
    assert!(!left.environment.contains_key("FORGE_TOKEN"));
    assert_eq!((left.policy_hash, left.await_enforcement), (policy, false), "everything else stays as it was");
    gateway.wait("user", v1::SandboxPhase::Ready).await;
    gateway.clean().await;
}

fn walk(directory: &std::path::Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            found.extend(walk(&entry.path()));
        } else if kind.is_file() {
            found.push(entry.path());
        }
    }
    found
}

/// GET over HTTP/1.1 with the user's certificate.
async fn support_http(gateway: &Gateway, path: &str) -> String {
    support::http::get(gateway, path, &[]).await.1
}
