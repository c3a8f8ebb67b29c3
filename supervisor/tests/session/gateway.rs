//! A real hub over a real API service and database, behind TLS, that can be killed and started
//! again on the same port.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use kube::{
    Api,
    api::{ObjectMeta, PostParams},
};
use openshell_crds::{OpenShellSandbox, OpenShellSandboxSpec, policy::PolicyDocument};
use openshell_gateway::session::{Exchange, Hub, HubConfig, LogStore, SandboxPrincipal};
use openshell_operator::{LOCAL_NAMESPACE, api::LocalApi};
use openshell_proto::supervisor::supervisor_session_server::SupervisorSessionServer;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    transport::{Identity, Server, ServerTlsConfig},
};

/// What survives a restart: keys, port, files.
pub(crate) struct Ground {
    pub(crate) directory: PathBuf,
    pub(crate) address: SocketAddr,
    pub(crate) ca_pem: String,
    identity: Identity,
}

impl Ground {
    pub(crate) fn new(directory: PathBuf) -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().signed_by(&key, &issuer).unwrap();
        let identity = Identity::from_pem(leaf.pem(), key.serialize_pem());
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self { directory, address, ca_pem, identity }
    }

    pub(crate) fn tls(&self) -> ServerTlsConfig {
        ServerTlsConfig::new().identity(self.identity.clone())
    }

    pub(crate) async fn start(&self) -> Gateway {
        self.start_with_heartbeat(Duration::from_secs(5)).await
    }

    pub(crate) async fn start_with_heartbeat(&self, heartbeat: Duration) -> Gateway {
        self.start_as(heartbeat, None).await
    }

    pub(crate) async fn start_as(&self, heartbeat: Duration, exchange: Option<Exchange>) -> Gateway {
        let api = LocalApi::open(&self.directory.join("openshell.db"), &self.directory.join("seal.key")).await.unwrap();
        let logs = LogStore::open(api.pool()).await.unwrap();
        let config = HubConfig {
            client: api.client(),
            secrets: api.secrets(),
            logs,
            namespace: LOCAL_NAMESPACE.into(),
            gateway_name: "local".into(),
            gateway_namespace: LOCAL_NAMESPACE.into(),
            exchange: exchange.clone(),
            places: None,
            forbidden_destinations: vec![self.address.to_string()],
        };
        let hub = Hub::with_heartbeat(config, heartbeat);
        let stop = CancellationToken::new();
        let watching = tokio::spawn({
            let (hub, stop) = (hub.clone(), stop.clone());
            async move { Box::pin(hub.run(stop)).await }
        });
        let service = SupervisorSessionServer::with_interceptor(hub.clone(), move |request| principal(request, exchange.as_ref()));
        let server = Server::builder().tls_config(ServerTlsConfig::new().identity(self.identity.clone())).unwrap().add_service(service);
        let (address, stopped) = (self.address, stop.clone());
        // The port is freed by the one before in a moment.
        let listener = loop {
            match tokio::net::TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let serving = tokio::spawn(async move {
            let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tokio::select! {
                served = server.serve_with_incoming(incoming) => served.unwrap(),
                () = stopped.cancelled() => {}
            }
        });
        Gateway { api, hub, stop, tasks: vec![watching, serving] }
    }
}

/// Without exchanges the test's tokens are the uids.
fn principal(mut request: Request<()>, exchange: Option<&Exchange>) -> Result<Request<()>, Status> {
    let token = request.metadata().get("authorization").and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let principal = match (token, exchange) {
        (Some(token), Some(exchange)) => exchange.tokens.check(token).map_err(|error| Status::unauthenticated(error.to_string()))?,
        (Some(token), None) => SandboxPrincipal { sandbox_id: token.to_owned(), exchange: None },
        // The method says what it makes of that.
        (None, _) => return Ok(request),
    };
    request.extensions_mut().insert(principal);
    Ok(request)
}

pub(crate) struct Gateway {
    pub(crate) api: LocalApi,
    pub(crate) hub: Hub,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Gateway {
    pub(crate) fn sandboxes(&self) -> Api<OpenShellSandbox> {
        Api::namespaced(self.api.client(), LOCAL_NAMESPACE)
    }

    pub(crate) async fn create(&self, name: &str, spec: OpenShellSandboxSpec) -> OpenShellSandbox {
        let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
        self.sandboxes().create(&PostParams::default(), &OpenShellSandbox { metadata, spec, status: None }).await.unwrap()
    }

    /// Waits until the object is as it should be.
    pub(crate) async fn until(&self, name: &str, what: &str, mut holds: impl FnMut(&OpenShellSandbox) -> bool) -> OpenShellSandbox {
        let mut last = None;
        for _ in 0..1000 {
            let sandbox = self.sandboxes().get(name).await.unwrap();
            if holds(&sandbox) {
                return sandbox;
            }
            last = Some(sandbox);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{what}: {:#?}", last.and_then(|s| s.status));
    }

    /// Ends it as a crash would: connections break, nothing is said.
    pub(crate) async fn kill(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
        drop(self.hub);
        self.api.close().await;
    }
}

pub(crate) fn spec(command: &[&str], policy: &str) -> OpenShellSandboxSpec {
    let policy: serde_json::Value = serde_json::from_slice(&openshell_policy::from_yaml(policy).unwrap().canonical_json()).unwrap();
    OpenShellSandboxSpec {
        command: command.iter().map(|a| (*a).to_owned()).collect(),
        policy: Some(PolicyDocument(policy)),
        ..OpenShellSandboxSpec::default()
    }
}
