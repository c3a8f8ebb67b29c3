//! A gateway made for these tests: real gRPC over a real socket, with scripted answers, and the
//! real `openshell` program against it in directories of its own.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{Stream, StreamExt as _};
use openshell_proto::datamodel::{ObjectMeta, Provider};
use openshell_proto::v1::exec_sandbox_event::Payload as Event;
use openshell_proto::v1::exec_sandbox_input::Payload as Input;
use openshell_proto::v1::sandbox_stream_event::Payload as Watched;
use openshell_proto::v1::*;
use tokio::sync::mpsc;
use tonic::body::Body;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::service_fn;

/// What the gateway knows, and what was asked of it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
    pub(crate) providers: BTreeMap<String, Provider>,
    pub(crate) revisions: Vec<SandboxPolicyRevision>,
    pub(crate) active_version: u32,
    pub(crate) logs: Vec<SandboxLogLine>,
    /// Phases that a watch shows after creation, before it ends in the last one for ever.
    pub(crate) phases: Vec<SandboxPhase>,
    pub(crate) created: Vec<CreateSandboxRequest>,
    pub(crate) started: Vec<ExecSandboxRequest>,
    pub(crate) deleted: Vec<String>,
    /// Methods that were called with what `--force` adds.
    pub(crate) forced: Vec<String>,
    pub(crate) resizes: Vec<(u32, u32)>,
    pub(crate) stdin: Vec<u8>,
    /// Answers everything but Health with this.
    pub(crate) refuse: Option<Status>,
}

/// A running gateway; ends when dropped.
pub(crate) struct Fake {
    pub(crate) address: SocketAddr,
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) directory: tempfile::TempDir,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Fake {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let service = Service(Arc::clone(&state));
        runtime.spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming).await.unwrap();
        });
        Self { address, state, directory: tempfile::tempdir().unwrap(), runtime: Some(runtime) }
    }

    /// The program, with a clean environment and this gateway registered as `test`.
    pub(crate) fn openshell(&self, arguments: &[&str]) -> Command {
        let config = self.directory.path().join("config/openshell");
        let registered = config.join("gateways/test");
        std::fs::create_dir_all(&registered).unwrap();
        let metadata =
            format!(r#"{{"name":"test","gateway_endpoint":"http://{}","is_remote":false,"auth_mode":"plaintext"}}"#, self.address);
        std::fs::write(registered.join("metadata.json"), metadata).unwrap();
        std::fs::write(config.join("active_gateway"), "test\n").unwrap();
        let mut command = openshell(self.directory.path());
        command.args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Done {
        Done::of(self.openshell(arguments).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn run_with(&self, arguments: &[&str], stdin: &[u8]) -> Done {
        use std::io::Write as _;
        let mut child = self.openshell(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let bytes = stdin.to_vec();
        let writer = std::thread::spawn(move || input.write_all(&bytes));
        let done = Done::of(child.wait_with_output().unwrap());
        let _ = writer.join().unwrap();
        done
    }

    pub(crate) fn sandbox(&self, name: &str, phase: SandboxPhase) {
        self.state.lock().unwrap().sandboxes.insert(name.to_owned(), sandbox(name, phase));
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The program with nothing but its own directories.
pub(crate) fn openshell(directory: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openshell"));
    command
        .env_clear()
        .env("HOME", directory)
        .env("PATH", "/usr/bin:/bin")
        .env("XDG_CONFIG_HOME", directory.join("config"))
        .env("XDG_STATE_HOME", directory.join("state"))
        .env("OPENSHELL_SYSTEM_GATEWAY_DIR", directory.join("etc"))
        .env("TERM", "xterm-test");
    command
}

/// A finished command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) raw: Vec<u8>,
}

impl Done {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
            raw: output.stdout,
        }
    }

    #[track_caller]
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:#?}");
        self
    }

    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {self:#?}"))
    }
}

pub(crate) fn sandbox(name: &str, phase: SandboxPhase) -> Sandbox {
    Sandbox {
        metadata: Some(ObjectMeta {
            id: format!("id-{name}"),
            name: name.to_owned(),
            workspace: "default".to_owned(),
            labels: [("team".to_owned(), "red".to_owned())].into(),
            resource_version: 7,
            created_time: Some(prost_types::Timestamp { seconds: 1_700_000_000, nanos: 0 }),
            ..ObjectMeta::default()
        }),
        spec: Some(SandboxSpec { command: vec!["sleep".to_owned(), "a b".to_owned()], ..SandboxSpec::default() }),
        status: Some(SandboxStatus { phase: phase.into(), current_policy_version: 1, ..SandboxStatus::default() }),
        ..Sandbox::default()
    }
}

#[derive(Clone)]
struct Service(Arc<Mutex<State>>);

impl tonic::server::NamedService for Service {
    const NAME: &'static str = "openshell.v1.OpenShell";
}

type Answer = Result<http::Response<Body>, std::convert::Infallible>;

impl tower::Service<http::Request<Body>> for Service {
    type Response = http::Response<Body>;
    type Error = std::convert::Infallible;
    type Future = BoxFuture<'static, Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let state = Arc::clone(&self.0);
        Box::pin(async move { Ok(route(state, request).await) })
    }
}

async fn unary<Q, R, F>(request: http::Request<Body>, state: Arc<Mutex<State>>, answer: F) -> http::Response<Body>
where
    Q: prost::Message + Default + Send + 'static,
    R: prost::Message + Default + Send + 'static,
    F: Fn(&mut State, Q) -> Result<R, Status> + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let service = service_fn(move |request: Request<Q>| {
        let (state, answer) = (Arc::clone(&state), Arc::clone(&answer));
        async move {
            let mut state = state.lock().unwrap();
            if let Some(refusal) = &state.refuse {
                return Err(refusal.clone());
            }
            answer(&mut state, request.into_inner()).map(Response::new)
        }
    });
    tonic::server::Grpc::new(ProstCodec::<R, Q>::default()).unary(service, request).await
}

fn missing(kind: &str, name: &str) -> Status {
    let details = ErrorDetails::with_error_info("NOT_FOUND", "openshell.ai", [("name".to_owned(), name.to_owned())]);
    Status::with_error_details(Code::NotFound, format!("{kind} {name} does not exist"), details)
}

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

async fn route(state: Arc<Mutex<State>>, request: http::Request<Body>) -> http::Response<Body> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    if request.headers().get(openshell_proto::FORCE_METADATA).is_some_and(|value| value == "true") {
        state.lock().unwrap().forced.push(method.clone());
    }
    match method.as_str() {
        "Health" => {
            let healthy = HealthResponse { status: ServiceStatus::Healthy.into(), version: "9.9.9".to_owned() };
            unary(request, state, move |_, _: HealthRequest| Ok(healthy.clone())).await
        }
        "GetGatewayInfo" => {
            unary(request, state, |_, _: GetGatewayInfoRequest| {
                let driver = ComputeDriverInfo {
                    name: "process".to_owned(),
                    capabilities: Some(ComputeDriverCapabilities {
                        driver_name: "process".to_owned(),
                        driver_version: "1".to_owned(),
                        ..ComputeDriverCapabilities::default()
                    }),
                };
                Ok(GetGatewayInfoResponse {
                    status: ServiceStatus::Healthy.into(),
                    gateway_version: "9.9.9".to_owned(),
                    compute_drivers: vec![driver],
                    ..GetGatewayInfoResponse::default()
                })
            })
            .await
        }
        "CreateSandbox" => {
            unary(request, state, |state, create: CreateSandboxRequest| {
                let name = if create.name.is_empty() { "happy-otter".to_owned() } else { create.name.clone() };
                if state.sandboxes.contains_key(&name) {
                    return Err(Status::already_exists(format!("sandbox {name} exists")));
                }
                let mut made = sandbox(&name, SandboxPhase::Provisioning);
                made.spec.clone_from(&create.spec);
                state.created.push(create);
                state.sandboxes.insert(name, made.clone());
                Ok(SandboxResponse { sandbox: Some(made), ..SandboxResponse::default() })
            })
            .await
        }
        "GetSandbox" => {
            unary(request, state, |state, get: GetSandboxRequest| {
                let found = state.sandboxes.get(&get.name).cloned().ok_or_else(|| missing("sandbox", &get.name))?;
                Ok(SandboxResponse { sandbox: Some(found), ..SandboxResponse::default() })
            })
            .await
        }
        "ListSandboxes" => {
            unary(request, state, |state, list: ListSandboxesRequest| {
                // Two per page whatever is asked for, so that paging is used.
                let start: usize = list.page_token.parse().unwrap_or(0);
                let all: Vec<Sandbox> = state.sandboxes.values().cloned().collect();
                let end = (start + 2).min(all.len());
                let next_page_token = if end < all.len() { end.to_string() } else { String::new() };
                Ok(ListSandboxesResponse { sandboxes: all[start..end].to_vec(), next_page_token })
            })
            .await
        }
        "DeleteSandbox" => {
            unary(request, state, |state, delete: DeleteSandboxRequest| {
                if state.sandboxes.remove(&delete.name).is_none() && !delete.allow_missing {
                    return Err(missing("sandbox", &delete.name));
                }
                state.deleted.push(delete.name);
                Ok(DeleteSandboxResponse { outcome: DeletionOutcome::Accepted.into(), ..DeleteSandboxResponse::default() })
            })
            .await
        }
        "StopSandbox" => {
            unary(request, state, |state, stop: StopSandboxRequest| {
                let found = state.sandboxes.get_mut(&stop.name).ok_or_else(|| missing("sandbox", &stop.name))?;
                found.status.get_or_insert_default().phase = SandboxPhase::Stopping.into();
                state.phases = vec![SandboxPhase::Stopping, SandboxPhase::Stopped];
                Ok(SandboxResponse { sandbox: Some(found.clone()), ..SandboxResponse::default() })
            })
            .await
        }
        "GetSandboxPolicyStatus" => {
            unary(request, state, |state, get: GetSandboxPolicyStatusRequest| {
                let wanted = |r: &&SandboxPolicyRevision| get.version == 0 || r.version == get.version;
                let revision =
                    state.revisions.iter().rev().find(wanted).cloned().ok_or_else(|| missing("policy revision of", &get.sandbox))?;
                Ok(GetSandboxPolicyStatusResponse { revision: Some(revision), active_version: state.active_version })
            })
            .await
        }
        "ListSandboxPolicies" => {
            unary(request, state, |state, _: ListSandboxPoliciesRequest| {
                let revisions = state.revisions.iter().rev().cloned().collect();
                Ok(ListSandboxPoliciesResponse { revisions, ..ListSandboxPoliciesResponse::default() })
            })
            .await
        }
        "UpdateConfig" => {
            unary(request, state, |state, update: UpdateConfigRequest| {
                let version = state.revisions.len() as u32 + 1;
                state.revisions.push(SandboxPolicyRevision {
                    version,
                    policy: update.policy,
                    status: PolicyStatus::Pending.into(),
                    ..SandboxPolicyRevision::default()
                });
                match update.sandbox.as_str() {
                    "good" => {
                        state.active_version = version;
                        state.revisions.last_mut().unwrap().status = PolicyStatus::Loaded.into();
                    }
                    "bad" => {
                        let last = state.revisions.last_mut().unwrap();
                        last.status = PolicyStatus::Failed.into();
                        "the supervisor says no".clone_into(&mut last.load_error);
                    }
                    _ => {}
                }
                Ok(UpdateConfigResponse { version, ..UpdateConfigResponse::default() })
            })
            .await
        }
        "GetSandboxLogs" => {
            unary(request, state, |state, logs: GetSandboxLogsRequest| {
                let skip = state.logs.len().saturating_sub(logs.lines as usize);
                Ok(GetSandboxLogsResponse { logs: state.logs[skip..].to_vec(), buffer_total: state.logs.len() as u32 })
            })
            .await
        }
        "CreateProvider" => {
            unary(request, state, |state, create: CreateProviderRequest| {
                let provider = create.provider.unwrap_or_default();
                let name = provider.metadata.clone().unwrap_or_default().name;
                state.providers.insert(name, provider.clone());
                Ok(ProviderResponse { provider: Some(provider), ..ProviderResponse::default() })
            })
            .await
        }
        "GetProvider" => {
            unary(request, state, |state, get: GetProviderRequest| {
                let mut provider = state.providers.get(&get.name).cloned().ok_or_else(|| missing("provider", &get.name))?;
                provider.credentials.values_mut().for_each(|v| "REDACTED".clone_into(v));
                Ok(ProviderResponse { provider: Some(provider), ..ProviderResponse::default() })
            })
            .await
        }
        "WatchSandbox" => watch(state, request).await,
        "ExecSandboxInteractive" => exec(state, request).await,
        other => Status::unimplemented(format!("{other} is not implemented")).into_http(),
    }
}

async fn watch(state: Arc<Mutex<State>>, request: http::Request<Body>) -> http::Response<Body> {
    let service = service_fn(move |request: Request<WatchSandboxRequest>| {
        let state = Arc::clone(&state);
        async move {
            let watch = request.into_inner();
            let (events, receiver) = mpsc::channel(16);
            if watch.follow_logs {
                let logs = state.lock().unwrap().logs.clone();
                for log in logs {
                    let event = SandboxStreamEvent { payload: Some(Watched::Log(log)), ..SandboxStreamEvent::default() };
                    events.send(Ok(event)).await.unwrap();
                }
                let stream: Events<SandboxStreamEvent> = tokio_stream::wrappers::ReceiverStream::new(receiver).boxed();
                return Ok(Response::new(stream));
            }
            if !state.lock().unwrap().sandboxes.contains_key(&watch.sandbox) {
                return Err(missing("sandbox", &watch.sandbox));
            }
            tokio::spawn(async move {
                loop {
                    let next = {
                        let mut state = state.lock().unwrap();
                        let phase = if state.phases.is_empty() { None } else { Some(state.phases.remove(0)) };
                        state.sandboxes.get_mut(&watch.sandbox).map(|s| {
                            if let Some(phase) = phase {
                                s.status.get_or_insert_default().phase = phase.into();
                            }
                            s.clone()
                        })
                    };
                    let Some(snapshot) = next else { return };
                    let event = SandboxStreamEvent { payload: Some(Watched::Sandbox(snapshot)), ..SandboxStreamEvent::default() };
                    if events.send(Ok(event)).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            });
            let stream: Events<SandboxStreamEvent> = tokio_stream::wrappers::ReceiverStream::new(receiver).boxed();
            Ok(Response::new(stream))
        }
    });
    tonic::server::Grpc::new(ProstCodec::<SandboxStreamEvent, WatchSandboxRequest>::default()).server_streaming(service, request).await
}

async fn exec(state: Arc<Mutex<State>>, request: http::Request<Body>) -> http::Response<Body> {
    let service = service_fn(move |request: Request<Streaming<ExecSandboxInput>>| {
        let state = Arc::clone(&state);
        async move {
            let mut inputs = request.into_inner();
            let Some(ExecSandboxInput { payload: Some(Input::Start(start)) }) = inputs.message().await? else {
                return Err(Status::invalid_argument("the first message is no start"));
            };
            if !state.lock().unwrap().sandboxes.contains_key(&start.sandbox) {
                return Err(missing("sandbox", &start.sandbox));
            }
            state.lock().unwrap().started.push(start.clone());
            let (events, receiver) = mpsc::channel(16);
            tokio::spawn(script(state, start, inputs, events));
            let stream: Events<ExecSandboxEvent> = tokio_stream::wrappers::ReceiverStream::new(receiver).boxed();
            Ok(Response::new(stream))
        }
    });
    tonic::server::Grpc::new(ProstCodec::<ExecSandboxEvent, ExecSandboxInput>::default()).streaming(service, request).await
}

#[allow(clippy::unnecessary_wraps)] // Items of a stream are results.
fn event(payload: Event) -> Result<ExecSandboxEvent, Status> {
    Ok(ExecSandboxEvent { payload: Some(payload) })
}

fn stdout(data: impl Into<Vec<u8>>) -> Result<ExecSandboxEvent, Status> {
    event(Event::Stdout(ExecSandboxStdout { data: data.into() }))
}

fn stderr(data: impl Into<Vec<u8>>) -> Result<ExecSandboxEvent, Status> {
    event(Event::Stderr(ExecSandboxStderr { data: data.into() }))
}

#[allow(clippy::unnecessary_wraps)] // As above.
fn exit(code: i32) -> Result<ExecSandboxEvent, Status> {
    event(Event::Exit(ExecSandboxExit { exit_code: code }))
}

/// The programs that this gateway can "run".
async fn script(
    state: Arc<Mutex<State>>,
    start: ExecSandboxRequest,
    mut inputs: Streaming<ExecSandboxInput>,
    events: mpsc::Sender<Result<ExecSandboxEvent, Status>>,
) {
    let words: Vec<&str> = start.command.iter().map(String::as_str).collect();
    match words.as_slice() {
        // Attached to the main process: what it said before, then its code.
        [] => {
            let _ = events.send(stdout("early\n")).await;
            let _ = events.send(stderr("warned\n")).await;
            let _ = events.send(stdout("late\n")).await;
            let _ = events.send(exit(42)).await;
        }
        ["cat"] => {
            while let Ok(Some(input)) = inputs.message().await {
                if let Some(Input::Stdin(data)) = input.payload {
                    state.lock().unwrap().stdin.extend_from_slice(&data);
                    let _ = events.send(stdout(data)).await;
                }
            }
            let _ = events.send(exit(0)).await;
        }
        ["exit", code] => {
            let _ = events.send(exit(code.parse().unwrap())).await;
        }
        ["flood"] => while events.send(stdout(vec![b'x'; 32 * 1024])).await.is_ok() {},
        ["hang"] => {
            let _ = events.send(stdout("hanging\n")).await;
            events.closed().await;
        }
        ["vanish"] => {
            let _ = events.send(stdout("partial\n")).await;
        }
        // Says which size it got, echoes keys, ends on `q`.
        ["keys"] => {
            let _ = events.send(stdout(format!("size {}x{} tty {}\r\n", start.cols, start.rows, start.tty))).await;
            while let Ok(Some(input)) = inputs.message().await {
                match input.payload {
                    Some(Input::Stdin(data)) => {
                        state.lock().unwrap().stdin.extend_from_slice(&data);
                        let _ = events.send(stdout(format!("got {data:?}\r\n"))).await;
                        if data.contains(&b'q') {
                            let _ = events.send(exit(7)).await;
                            return;
                        }
                    }
                    Some(Input::Resize(size)) => {
                        state.lock().unwrap().resizes.push((size.cols, size.rows));
                        let _ = events.send(stdout(format!("resized {}x{}\r\n", size.cols, size.rows))).await;
                    }
                    _ => {}
                }
            }
        }
        other => {
            let _ = events.send(stderr(format!("{other:?}: not found\n"))).await;
            let _ = events.send(exit(127)).await;
        }
    }
}
