//! A gateway in this process, and a stand-in for its supervisors.
//!
//! The gateway is the real one: TLS, SQLite, controllers, process driver. The supervisor that
//! the driver starts is a script that identifies itself and waits; the session is held by the
//! test over the real listener with a real token, so that a test can say what a supervisor
//! does. The whole supervisor is tested end to end elsewhere.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

pub mod http;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use openshell_gateway::local::{LocalGateway, Running};
use openshell_gateway::pki::{GATEWAY_NAME, SandboxTokens};
use openshell_gateway::serve::Transport;
use openshell_gateway::settings::LocalConfig;
use openshell_gateway::start::StartError;
use openshell_gateway::state::Directories;
use openshell_proto::supervisor::supervisor_session_client::SupervisorSessionClient;
use openshell_proto::supervisor::{
    self as session, FromSupervisor, RelayUp, config_result::Outcome, from_gateway, from_supervisor, main_process, relay_down, relay_open,
    relay_up,
};
use openshell_proto::v1::open_shell_client::OpenShellClient;
use openshell_proto::v1::{self, SandboxPhase};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

const SCRIPT: &str = r#"#!/bin/sh
json=$(cat)
field() { printf '%s' "$json" | sed "s/.*\"$1\" *: *\"\([^\"]*\)\".*/\1/"; }
dir=$(field directory)
exec 9>>"$dir/lock"
flock -n 9 || exit 75
start=$(cut -d' ' -f22 "/proc/$$/stat")
printf '{"pid":%d,"start_time":%s,"instance":"i-%s-%d"}' "$$" "$start" "$(field sandbox_id)" "$$" > "$dir/supervisor.json.tmp"
mv "$dir/supervisor.json.tmp" "$dir/supervisor.json"
exec sleep 120
"#;

/// A gateway of one test.
pub struct Gateway {
    pub running: Option<Running>,
    pub config: LocalConfig,
    _root: tempfile::TempDir,
}

impl Gateway {
    pub async fn start() -> Self {
        // `RUST_LOG=debug cargo test` shows what the gateways log.
        let _ = tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_test_writer().try_init();
        let root = tempfile::tempdir().unwrap();
        let script = root.path().join("supervisor.sh");
        fs::write(&script, SCRIPT).unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let directories = Directories::new(root.path().join("state/openshell"), root.path().join("config/openshell"), None);
        let config = LocalConfig {
            directories,
            bind: "127.0.0.1:0".parse().unwrap(),
            health: None,
            transport: Transport::Tls,
            driver: None,
            supervisor: script,
            server_names: Vec::new(),
        };
        let running = LocalGateway::start(config.clone()).await.unwrap();
        Self { running: Some(running), config, _root: root }
    }

    /// Another gateway over the same state.
    pub async fn start_again(&mut self) -> Result<(), StartError> {
        self.running = Some(LocalGateway::start(self.config.clone()).await?);
        Ok(())
    }

    pub async fn stop(&mut self) {
        self.running.take().unwrap().stop().await;
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.running.as_ref().unwrap().address()
    }

    pub fn mtls(&self, file: &str) -> String {
        let path = self.config.directories.config().join("gateways/openshell/mtls").join(file);
        fs::read_to_string(path).unwrap()
    }

    fn tls(&self) -> ClientTlsConfig {
        ClientTlsConfig::new().ca_certificate(Certificate::from_pem(self.mtls("ca.crt"))).domain_name("localhost")
    }

    async fn connect(&self, tls: ClientTlsConfig) -> Channel {
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address())).unwrap();
        endpoint.tls_config(tls).unwrap().connect().await.unwrap()
    }

    /// A connection with the user's certificate.
    pub async fn channel(&self) -> Channel {
        self.connect(self.tls().identity(Identity::from_pem(self.mtls("tls.crt"), self.mtls("tls.key")))).await
    }

    /// A connection without a certificate.
    pub async fn anonymous(&self) -> Channel {
        self.connect(self.tls()).await
    }

    pub async fn api(&self) -> OpenShellClient<Channel> {
        OpenShellClient::new(self.channel().await)
    }

    /// A client of the object API, as `openshell apply` is one.
    pub fn objects(&self) -> kube::Client {
        use base64::Engine as _;
        use rustls_pki_types::{CertificateDer, pem::PemObject as _};
        let encode = |text: String| base64::engine::general_purpose::STANDARD.encode(text);
        let mut config = kube::Config::new(format!("https://localhost:{}", self.address().port()).parse().unwrap());
        "openshell".clone_into(&mut config.default_namespace);
        config.root_cert = Some(vec![CertificateDer::from_pem_slice(self.mtls("ca.crt").as_bytes()).unwrap().to_vec()]);
        config.auth_info.client_certificate_data = Some(encode(self.mtls("tls.crt")));
        config.auth_info.client_key_data = Some(encode(self.mtls("tls.key")).into());
        kube::Client::try_from(config).unwrap()
    }

    pub fn token(&self, uid: &str) -> String {
        SandboxTokens::open(&self.config.directories.tls().join("jwt"), GATEWAY_NAME).unwrap().mint(uid).unwrap()
    }

    /// A sandbox that is ready because a [`Supervisor`] stands in for its own.
    pub async fn sandbox(&self, request: v1::CreateSandboxRequest) -> (v1::Sandbox, Supervisor) {
        let mut api = self.api().await;
        let created = api.create_sandbox(request).await.unwrap().into_inner().sandbox.unwrap();
        let meta = created.metadata.clone().unwrap();
        let supervisor = Supervisor::connect(self, &meta.id).await;
        (self.wait(&meta.name, SandboxPhase::Ready).await, supervisor)
    }

    pub async fn wait(&self, name: &str, phase: SandboxPhase) -> v1::Sandbox {
        let mut api = self.api().await;
        let begun = Instant::now();
        loop {
            let request = v1::GetSandboxRequest { name: name.to_owned(), workspace_scope: None };
            let sandbox = api.get_sandbox(request).await.unwrap().into_inner().sandbox.unwrap();
            let status = sandbox.status.clone().unwrap_or_default();
            if status.phase() == phase {
                return sandbox;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} is not {phase:?} but {status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Deletes everything, so that no process of the test is left.
    pub async fn clean(&mut self) {
        let mut api = self.api().await;
        for sandbox in api.list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap().into_inner().sandboxes {
            let name = sandbox.metadata.unwrap().name;
            let request = v1::DeleteSandboxRequest { name, allow_missing: true, ..Default::default() };
            api.delete_sandbox(request).await.unwrap();
        }
        let begun = Instant::now();
        while !api.list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap().into_inner().sandboxes.is_empty() {
            assert!(begun.elapsed() < Duration::from_secs(20), "sandboxes are left");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.stop().await;
    }

    pub fn state(&self) -> PathBuf {
        self.config.directories.state().to_owned()
    }
}

pub fn create(name: &str, command: &[&str]) -> v1::CreateSandboxRequest {
    let command = command.iter().map(|&c| c.to_owned()).collect();
    let spec = Some(v1::SandboxSpec { command, ..Default::default() });
    v1::CreateSandboxRequest { name: name.to_owned(), spec, ..Default::default() }
}

/// Speaks for a sandbox: applies every configuration, runs pretended commands.
pub struct Supervisor {
    send: mpsc::Sender<FromSupervisor>,
    task: tokio::task::JoinHandle<()>,
    /// The last configuration that it was sent.
    pub config: tokio::sync::watch::Receiver<session::Config>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisor {
    pub async fn connect(gateway: &Gateway, uid: &str) -> Self {
        // As a supervisor does: it has identified itself on disk before it dials. The file of one
        // that has ended stays until the next one writes its own.
        let file = gateway.config.directories.sandboxes().join(uid).join("supervisor.json");
        let living = || {
            let identity: serde_json::Value = serde_json::from_slice(&fs::read(&file).ok()?).ok()?;
            let lives = std::path::Path::new("/proc").join(identity["pid"].to_string()).exists();
            identity["instance"].as_str().filter(|_| lives).map(str::to_owned)
        };
        let begun = Instant::now();
        let instance_id = loop {
            if let Some(instance) = living() {
                break instance;
            }
            assert!(begun.elapsed() < Duration::from_secs(20), "no supervisor was started for {uid}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        };
        let bearer: tonic::metadata::MetadataValue<_> = format!("Bearer {}", gateway.token(uid)).parse().unwrap();
        let channel = gateway.anonymous().await;
        let mut client = SupervisorSessionClient::with_interceptor(channel, move |mut request: tonic::Request<()>| {
            request.metadata_mut().insert("authorization", bearer.clone());
            Ok(request)
        });
        let (send, outgoing) = mpsc::channel(32);
        let message = |payload| FromSupervisor { payload: Some(payload) };
        let hello = session::Hello { sandbox_id: uid.to_owned(), instance_id, version: "test".into(), ..Default::default() };
        send.send(message(from_supervisor::Payload::Hello(hello))).await.unwrap();
        let mut incoming = client.control(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
        let answers = send.clone();
        let (newest, config) = tokio::sync::watch::channel(session::Config::default());
        let task = tokio::spawn(async move {
            let mut beat = tokio::time::interval(Duration::from_secs(2));
            // Ends with this task, as everything of a supervisor that is killed.
            let mut relays = tokio::task::JoinSet::new();
            loop {
                let order = tokio::select! {
                    order = incoming.message() => order,
                    _ = beat.tick() => {
                        let heartbeat = from_supervisor::Payload::Heartbeat(session::Heartbeat {});
                        let _ = answers.send(message(heartbeat)).await;
                        continue;
                    }
                };
                let Ok(Some(order)) = order else { return };
                let config = match order.payload.unwrap() {
                    from_gateway::Payload::Accepted(accepted) => accepted.config,
                    from_gateway::Payload::Config(config) => Some(config),
                    from_gateway::Payload::RelayOpen(open) => {
                        let mut client = client.clone();
                        relays.spawn(async move {
                            let (up, outgoing) = mpsc::channel(8);
                            let hello = session::RelayHello { relay_id: open.relay_id.clone() };
                            up.send(RelayUp { payload: Some(relay_up::Payload::Hello(hello)) }).await.unwrap();
                            let down = client.relay(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
                            pretend(open.target.unwrap(), up, down).await;
                        });
                        None
                    }
                    _ => None,
                };
                if let Some(config) = config {
                    newest.send_replace(config.clone());
                    let main = config.main.unwrap_or_default();
                    let state = if main.command.is_empty() { main_process::State::None } else { main_process::State::Running };
                    let report = session::EnforcementReport { level: 1, landlock_abi: 6, ..Default::default() };
                    let result = session::ConfigResult {
                        revision: config.revision,
                        policy_hash: config.policy_hash,
                        outcome: Outcome::Applied.into(),
                        error: String::new(),
                    };
                    let main = session::MainProcess { state: state.into(), pid: 7, ..Default::default() };
                    for payload in [
                        from_supervisor::Payload::Enforcement(report),
                        from_supervisor::Payload::ConfigResult(result),
                        from_supervisor::Payload::MainProcess(main),
                    ] {
                        if answers.send(message(payload)).await.is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Self { send, task, config }
    }

    pub async fn log(&self, records: Vec<session::LogRecord>) {
        let payload = Some(from_supervisor::Payload::Logs(session::LogBatch { records }));
        self.send.send(FromSupervisor { payload }).await.unwrap();
    }
}

/// Commands that need no process: `cat`, `env`, `exit N`, `sleep`, `missing`; the main process
/// says `main` and ends with 5.
async fn pretend(target: relay_open::Target, up: mpsc::Sender<RelayUp>, mut down: tonic::Streaming<session::RelayDown>) {
    let sender = up.clone();
    let send = move |payload| {
        let up = sender.clone();
        async move { up.send(RelayUp { payload: Some(payload) }).await.is_ok() }
    };
    let exit = |code: i32, reason: &str, message: &str| {
        relay_up::Payload::Exit(session::Exit { code, reason: reason.to_owned(), message: message.to_owned() })
    };
    let exec = if let relay_open::Target::Exec(exec) = target {
        exec
    } else {
        send(relay_up::Payload::Stdout(b"main".to_vec())).await;
        session::Exec { command: vec!["exit".to_owned(), "5".to_owned()], ..Default::default() }
    };
    match exec.command[0].as_str() {
        "cat" => {
            while let Ok(Some(input)) = down.message().await {
                match input.payload {
                    Some(relay_down::Payload::Stdin(bytes)) => {
                        send(relay_up::Payload::Stdout(bytes)).await;
                    }
                    Some(relay_down::Payload::Resize(size)) => {
                        send(relay_up::Payload::Stderr(format!("{}x{}", size.cols, size.rows).into_bytes())).await;
                    }
                    Some(relay_down::Payload::Eof(_)) | None => break,
                    _ => {}
                }
            }
            send(exit(0, "", "")).await;
        }
        "env" => {
            let mut all: Vec<String> = exec.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
            all.sort();
            all.push(exec.workdir.clone());
            send(relay_up::Payload::Stdout(all.join("\n").into_bytes())).await;
            send(exit(0, "", "")).await;
        }
        "exit" => {
            send(exit(exec.command[1].parse().unwrap(), "", "")).await;
        }
        "missing" => {
            send(exit(127, "NotFound", "missing: command not found")).await;
        }
        _ => while let Ok(Some(_)) = down.message().await {},
    }
    drop((up, send));
    // Dropping the stream before its end would reset it, and what was sent could be lost.
    while let Ok(Some(_)) = down.message().await {}
}
