//! A gateway that misbehaves: what the supervisor makes of it.

use std::{pin::Pin, time::Duration};

use openshell_proto::supervisor::{
    Accepted, Config, ConfigResult, ExchangeRequest, FromGateway, FromSupervisor, Hello, MainCommand, Rejected, RelayDown, RelayUp,
    RenewRequest, SandboxToken,
    config_result::Outcome,
    from_gateway, from_supervisor, main_process,
    supervisor_session_server::{SupervisorSession, SupervisorSessionServer},
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::{POLICY, Room, supervisor::Supervisor};

type Answers = mpsc::Sender<Result<FromGateway, Status>>;

/// One session, played by the test.
struct Call {
    hello: Hello,
    inbound: Streaming<FromSupervisor>,
    answers: Answers,
}

struct Fake(mpsc::Sender<Call>);

#[tonic::async_trait]
impl SupervisorSession for Fake {
    type ControlStream = Pin<Box<dyn Stream<Item = Result<FromGateway, Status>> + Send>>;
    type RelayStream = Pin<Box<dyn Stream<Item = Result<RelayDown, Status>> + Send>>;

    async fn control(&self, request: Request<Streaming<FromSupervisor>>) -> Result<Response<Self::ControlStream>, Status> {
        let mut inbound = request.into_inner();
        let Some(FromSupervisor { payload: Some(from_supervisor::Payload::Hello(hello)) }) = inbound.message().await? else {
            return Err(Status::invalid_argument("no Hello"));
        };
        let (answers, stream) = mpsc::channel(16);
        let _ = self.0.send(Call { hello, inbound, answers }).await;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn relay(&self, _: Request<Streaming<RelayUp>>) -> Result<Response<Self::RelayStream>, Status> {
        Err(Status::unimplemented("none here"))
    }

    async fn exchange(&self, _: Request<ExchangeRequest>) -> Result<Response<SandboxToken>, Status> {
        Err(Status::unimplemented("none here"))
    }

    async fn renew(&self, _: Request<RenewRequest>) -> Result<Response<SandboxToken>, Status> {
        Err(Status::unimplemented("none here"))
    }
}

struct Stage {
    calls: mpsc::Receiver<Call>,
    supervisor: Supervisor,
    _room: Room,
}

impl Stage {
    async fn set(test: &str) -> Self {
        let room = Room::new(test);
        let mut ground = room.ground();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        ground.address = listener.local_addr().unwrap();
        let (calls, received) = mpsc::channel(4);
        let server = Server::builder().tls_config(ground.tls()).unwrap().add_service(SupervisorSessionServer::new(Fake(calls)));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        let supervisor = Supervisor::start(&ground, "fake");
        Self { calls: received, supervisor, _room: room }
    }

    async fn call(&mut self) -> Call {
        let call = timeout(Duration::from_secs(10), self.calls.recv()).await;
        call.unwrap_or_else(|_| panic!("no session came:\n{}", self.supervisor.log())).unwrap()
    }
}

impl Call {
    async fn say(&self, payload: from_gateway::Payload) {
        self.answers.send(Ok(FromGateway { payload: Some(payload) })).await.unwrap();
    }

    async fn accept(&self, heartbeat: Duration, config: Option<Config>) {
        let heartbeat_interval = prost_types::Duration::try_from(heartbeat).ok();
        self.say(from_gateway::Payload::Accepted(Accepted { session_id: "s".into(), heartbeat_interval, config, log_acked: 0 })).await;
    }

    /// The first message that `pick` takes; others are passed over.
    async fn next<T>(&mut self, pick: impl Fn(from_supervisor::Payload) -> Option<T>) -> T {
        let found = async {
            loop {
                let payload = self.inbound.message().await.expect("the session lives").expect("the session lives").payload;
                if let Some(found) = payload.and_then(&pick) {
                    return found;
                }
            }
        };
        timeout(Duration::from_secs(10), found).await.expect("it says so in time")
    }

    async fn result(&mut self) -> ConfigResult {
        self.next(|p| if let from_supervisor::Payload::ConfigResult(r) = p { Some(r) } else { None }).await
    }
}

fn config(revision: u64, policy: &str) -> Config {
    let policy = openshell_policy::from_yaml(policy).unwrap();
    Config {
        revision,
        policy_json: policy.canonical_json(),
        policy_hash: policy.hash().to_string(),
        policy_version: revision as u32,
        main: Some(MainCommand { command: vec!["sleep".into(), "1000".into()], ..MainCommand::default() }),
        ..Config::default()
    }
}

const LONG: Duration = Duration::from_mins(1);

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_gateway_is_left_and_called_again() {
    let mut stage = Stage::set("silent").await;
    let first = stage.call().await;
    first.accept(Duration::from_millis(100), Some(config(1, POLICY))).await;
    let began = std::time::Instant::now();
    let second = stage.call().await;
    assert!(began.elapsed() >= Duration::from_millis(250), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    // Nothing is forgotten meanwhile, and it is the same supervisor.
    assert_eq!(second.hello.instance_id, first.hello.instance_id);
    assert_eq!((second.hello.config_revision, second.hello.policy_hash.clone()), (1, config(1, POLICY).policy_hash));
    assert_eq!(second.hello.main_process.as_ref().unwrap().state(), main_process::State::Running);
    assert!(second.hello.enforcement.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn it_says_that_it_is_there() {
    let mut stage = Stage::set("beats").await;
    let mut call = stage.call().await;
    call.accept(Duration::from_millis(50), None).await;
    for _ in 0..2 {
        call.next(|p| matches!(p, from_supervisor::Payload::Heartbeat(_)).then_some(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_configuration_is_refused_as_a_whole() {
    let mut stage = Stage::set("bad-config").await;
    let mut call = stage.call().await;
    call.accept(LONG, Some(config(1, POLICY))).await;
    assert_eq!(call.result().await.outcome(), Outcome::Applied);

    let other_hash = Config { policy_hash: "sha256:00".into(), ..config(2, POLICY) };
    let unknown = Config { policy_json: br#"{"version":1,"surprise":true}"#.to_vec(), ..config(3, POLICY) };
    let environment = Config { environment: [("OPENSHELL_X".to_owned(), String::new())].into(), ..config(4, POLICY) };
    let fixed = config(5, &POLICY.replace("/dev/zero", "/dev/full"));
    for (bad, why) in [(other_hash, "hash"), (unknown, "surprise"), (environment, "reserved"), (fixed, "/dev/zero")] {
        let revision = bad.revision;
        call.say(from_gateway::Payload::Config(bad)).await;
        let result = call.result().await;
        assert_eq!((result.revision, result.outcome()), (revision, Outcome::Refused));
        assert!(result.error.contains(why), "{}", result.error);
    }
    drop(call);
    let again = stage.call().await;
    assert_eq!((again.hello.config_revision, again.hello.policy_hash), (1, config(1, POLICY).policy_hash));
    assert_eq!(again.hello.main_process.unwrap().state(), main_process::State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_agent_waits_for_its_credentials() {
    let mut stage = Stage::set("await").await;
    let mut call = stage.call().await;
    call.accept(LONG, Some(Config { await_enforcement: true, ..config(1, POLICY) })).await;
    assert_eq!(call.result().await.outcome(), Outcome::Applied);
    let report = call.next(|p| if let from_supervisor::Payload::Enforcement(r) = p { Some(r) } else { None }).await;
    assert!(!report.kernel.is_empty());
    let early =
        timeout(Duration::from_millis(200), call.next(|p| if let from_supervisor::Payload::MainProcess(m) = p { Some(m) } else { None }))
            .await;
    assert!(early.is_err(), "{early:?}");
    call.say(from_gateway::Payload::Config(config(2, POLICY))).await;
    let main = call.next(|p| if let from_supervisor::Payload::MainProcess(m) = p { Some(m) } else { None }).await;
    assert_eq!(main.state(), main_process::State::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_first_policy_starts_nothing() {
    let mut stage = Stage::set("first-bad").await;
    let mut call = stage.call().await;
    call.accept(LONG, Some(Config { policy_hash: "sha256:00".into(), ..config(1, POLICY) })).await;
    assert_eq!(call.result().await.outcome(), Outcome::Refused);
    call.say(from_gateway::Payload::Config(config(2, POLICY))).await;
    assert_eq!(call.result().await.outcome(), Outcome::Applied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejection_for_good_ends_the_sandbox_and_a_passing_one_does_not() {
    let mut stage = Stage::set("rejected").await;
    let call = stage.call().await;
    call.accept(LONG, Some(config(1, POLICY))).await;
    let rejected = |retry| from_gateway::Payload::Rejected(Rejected { code: "Superseded".into(), message: "test".into(), retry });
    call.say(rejected(true)).await;
    let again = stage.call().await;
    assert!(stage.supervisor.running());
    again.say(rejected(false)).await;
    assert_eq!(stage.supervisor.wait(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grant_over_a_protected_path_cannot_be_enforced() {
    let mut stage = Stage::set("protected").await;
    let call = stage.call().await;
    let own = stage.supervisor.directory.display().to_string();
    call.accept(LONG, Some(config(1, &POLICY.replace("/dev/zero", &own)))).await;
    // The session ends with the fatal error, and the reason comes with the farewell.
    assert_eq!(stage.supervisor.wait(), 69);
    let failure: serde_json::Value =
        serde_json::from_slice(&std::fs::read(stage.supervisor.directory.join("failure.json")).unwrap()).unwrap();
    assert_eq!(failure["code"], "GrantOverProtectedPath", "{failure}");
    let farewell = stage.call().await;
    let main = farewell.hello.main_process.unwrap();
    assert_eq!((main.state(), main.reason.as_str()), (main_process::State::Failed, "GrantOverProtectedPath"));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_not_acknowledged_come_again() {
    let mut stage = Stage::set("resend").await;
    let mut call = stage.call().await;
    let echo =
        Config { main: Some(MainCommand { command: vec!["echo".into(), "once".into()], ..MainCommand::default() }), ..config(1, POLICY) };
    call.accept(LONG, Some(echo)).await;
    let logs =
        |p| if let from_supervisor::Payload::Logs(batch) = p { batch.records.into_iter().find(|r| r.message == "once") } else { None };
    let first = call.next(logs).await;
    drop(call);
    let mut again = stage.call().await;
    again.accept(LONG, None).await;
    assert_eq!(again.next(logs).await, first);
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_the_supervisor_ends_every_process() {
    let mut stage = Stage::set("killed").await;
    let mut call = stage.call().await;
    let script = "setsid sh -c 'sleep 4321 & sleep 4322' >/dev/null 2>&1 & sleep 4323";
    let main = MainCommand { command: vec!["sh".into(), "-c".into(), script.into()], ..MainCommand::default() };
    call.accept(LONG, Some(Config { main: Some(main), ..config(1, POLICY) })).await;
    let is_running =
        |p| if let from_supervisor::Payload::MainProcess(m) = p { (m.state() == main_process::State::Running).then_some(()) } else { None };
    call.next(is_running).await;
    let guardian = stage.supervisor.pid();
    for _ in 0..200 {
        if sleepers(guardian).len() == 3 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let agents = sleepers(guardian);
    assert_eq!(agents.len(), 3, "{agents:?}");
    let supervisor = children(guardian)[0];
    rustix::process::kill_process(rustix::process::Pid::from_raw(supervisor).unwrap(), rustix::process::Signal::KILL).unwrap();
    assert_eq!(stage.supervisor.wait(), 137);
    for pid in agents {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_launcher_ends_the_sandbox_with_its_reason() {
    let mut stage = Stage::set("launcher").await;
    let mut call = stage.call().await;
    call.accept(LONG, Some(config(1, POLICY))).await;
    let with = |wanted| move |p| if let from_supervisor::Payload::MainProcess(m) = p { (m.state() == wanted).then_some(m) } else { None };
    call.next(with(main_process::State::Running)).await;
    let supervisor = children(stage.supervisor.pid())[0];
    let launcher = children(supervisor)[0];
    rustix::process::kill_process(rustix::process::Pid::from_raw(launcher).unwrap(), rustix::process::Signal::KILL).unwrap();
    let failed = call.next(with(main_process::State::Failed)).await;
    assert_eq!(failed.reason, "LauncherDied");
    drop(call);
    assert_eq!(stage.supervisor.wait(), 70);
    let failure: serde_json::Value =
        serde_json::from_slice(&std::fs::read(stage.supervisor.directory.join("failure.json")).unwrap()).unwrap();
    assert_eq!(failure["code"], "LauncherDied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_guardian_ends_the_sandbox_with_its_reason() {
    let mut stage = Stage::set("guardian").await;
    let mut call = stage.call().await;
    call.accept(LONG, Some(config(1, POLICY))).await;
    let with = |wanted| move |p| if let from_supervisor::Payload::MainProcess(m) = p { (m.state() == wanted).then_some(m) } else { None };
    call.next(with(main_process::State::Running)).await;
    let agents = sleepers(stage.supervisor.pid());
    assert!(!agents.is_empty());
    stage.supervisor.signal(rustix::process::Signal::KILL);
    let failed = call.next(with(main_process::State::Failed)).await;
    assert_eq!(failed.reason, "GuardianDied");
    for pid in agents {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "{pid} lives");
    }
    drop(call);
    assert_eq!(stage.supervisor.wait(), 137);
    let record = stage.supervisor.directory.join("failure.json");
    for _ in 0..500 {
        if record.exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let failure: serde_json::Value = serde_json::from_slice(&std::fs::read(record).unwrap()).unwrap();
    assert_eq!(failure["code"], "GuardianDied");
}

fn children(pid: i32) -> Vec<i32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|p| p.parse().ok()).collect()
}

/// The `sleep`s below a process.
fn sleepers(root: i32) -> Vec<i32> {
    let mut all = vec![root];
    let mut next = 0;
    while next < all.len() {
        all.extend(children(all[next]));
        next += 1;
    }
    all.retain(|pid| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "sleep"));
    all
}
