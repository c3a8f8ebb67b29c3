//! A gateway on one machine, without a configuration file.
//!
//! Order of a start, so that nothing is half-written when it fails: rules, directories, lock,
//! listener, keys, store, controllers, registration, readiness. Whatever fails gives one
//! [`StartError`].
//!
//! Order of an end: no new calls; watches end; execs get [`limits::DRAIN`]; then sessions and
//! controllers end, and the store is closed. Sandboxes go on under their last known policy.

mod addresses;
mod bootstrap;
mod health;
mod port;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use openshell_crds::OpenShellGateway;
use openshell_operator::LOCAL_NAMESPACE;
use openshell_operator::api::LocalApi;
use openshell_operator::controllers::{self, ControllerConfig};
use openshell_operator::driver::process::{ProcessDriver, ProcessDriverConfig};
use openshell_operator::driver::{ComputeDriver, Registry};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, Context};
use crate::auth::{Guard, Hosts, Rules, guard};
use crate::pki::{Pki, Registration, SERVER_NAMES, SandboxTokens, endpoint, register};
use crate::serve::{Server, Stop, Transport, tls_config};
use crate::session::{Hub, HubConfig, LogStore};
use crate::settings::LocalConfig;
use crate::start::StartError;
use crate::state::Lock;
use crate::{http, limits};

/// Name of the `OpenShellGateway` object.
const OBJECT_NAME: &str = "local";

/// Starts gateways.
pub struct LocalGateway;

/// A gateway that serves.
pub struct Running {
    endpoint: String,
    address: SocketAddr,
    stop: Stop,
    /// Sessions and controllers.
    background: CancellationToken,
    failed: watch::Receiver<Option<String>>,
    execs: TaskTracker,
    tasks: TaskTracker,
    store: LocalApi,
    _lock: Lock,
}

impl LocalGateway {
    /// Starts a gateway: when this returns, it serves and is registered.
    pub async fn start(config: LocalConfig) -> Result<Running, StartError> {
        let rules = Rules::read(openshell_proto::DESCRIPTORS)?;
        config.directories.prepare()?;
        let lock = Lock::take(&config.directories)?;
        let listener = listen(config.bind).await?;
        let address = listener.local_addr().map_err(|e| bind_error(config.bind, &e))?;
        let health = match config.health {
            Some(health) => Some(listen(health).await?),
            None => None,
        };
        let pki = Pki::open(config.directories.tls(), &config.server_names)?;
        let (scheme, tls) = match config.transport {
            Transport::Tls => ("https", Some(Arc::new(tls_config(&pki)?))),
            Transport::Plaintext => ("http", None),
        };
        let Pki { ca_pem, client: certificate, tokens, .. } = pki;
        let tokens = Arc::new(tokens);
        let endpoint = endpoint(address, scheme);
        let driver = driver(&config, &tokens, &endpoint, &ca_pem)?;
        let store = open_store(&config).await?;
        let logs = LogStore::open(store.pool()).await.map_err(|e| StartError::Store(e.to_string()))?;
        let client = store.client();
        keep_gateway_object(&client).await?;

        let hub = Hub::new(HubConfig {
            client: client.clone(),
            secrets: store.secrets(),
            logs,
            namespace: LOCAL_NAMESPACE.to_owned(),
            gateway_name: OBJECT_NAME.to_owned(),
            forbidden_destinations: addresses::reaching(address),
        });
        let (stop, background) = (Stop::default(), CancellationToken::new());
        let (tasks, execs) = (TaskTracker::new(), TaskTracker::new());
        let api = Api::new(Context {
            client: client.clone(),
            namespace: LOCAL_NAMESPACE.to_owned(),
            gateway_name: OBJECT_NAME.to_owned(),
            hub: hub.clone(),
            driver: driver.clone(),
            shutdown: stop.draining.clone(),
            execs: execs.clone(),
        });
        let names = SERVER_NAMES.iter().map(|&n| n.to_owned()).chain(config.server_names.clone()).chain([config.bind.ip().to_string()]);
        let state = Arc::new(Guard { rules, tokens, hosts: Hosts::new(names) });
        let router = Router::new().merge(api.routes()).merge(http::routes(&store.service())).fallback(http::nothing);
        let router = router.layer(axum::middleware::from_fn_with_state(state, guard));

        let (failure, failed) = watch::channel(None);
        let token = background.clone();
        tasks.spawn(async move { hub.run(token).await });
        let controllers = ControllerConfig {
            client,
            driver,
            gateway_name: OBJECT_NAME.to_owned(),
            namespace: LOCAL_NAMESPACE.to_owned(),
            endpoint: Some(endpoint.clone()),
            deployment: None,
        };
        let token = background.clone();
        tasks.spawn(async move {
            if let Err(error) = controllers::run(controllers, token).await {
                let _ = failure.send(Some(error.to_string()));
            }
        });
        tasks.spawn(Server { listener, tls, router }.run(stop.clone()));
        if let Some(listener) = health {
            tasks.spawn(Server { listener, tls: None, router: health::routes() }.run(stop.clone()));
        }
        let running = Running { endpoint, address, stop, background, failed, execs, tasks, store, _lock: lock };
        let registration = match config.transport {
            Transport::Tls => Registration::Mtls { ca_pem: &ca_pem, client: &certificate },
            Transport::Plaintext => {
                tracing::warn!("TLS is off: everybody on this machine may do everything with this gateway");
                Registration::Plaintext
            }
        };
        if let Err(error) = register(config.directories.config(), address, &registration) {
            running.stop().await;
            return Err(error.into());
        }
        tracing::info!(endpoint = running.endpoint, "serving");
        Ok(running)
    }
}

impl Running {
    /// Where clients reach it.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits for a failure that the gateway cannot go on after, and says which.
    pub async fn failed(&self) -> String {
        let mut failed = self.failed.clone();
        let found = failed.wait_for(Option::is_some).await.ok().and_then(|reason| (*reason).clone());
        match found {
            Some(reason) => reason,
            // The controllers ended as they should.
            None => std::future::pending().await,
        }
    }

    /// Ends it. Sandboxes go on.
    pub async fn stop(self) {
        self.stop.draining.cancel();
        self.execs.close();
        if tokio::time::timeout(limits::DRAIN, self.execs.wait()).await.is_err() {
            tracing::warn!(execs = self.execs.len(), "commands did not end in time; they are cut off");
        }
        self.background.cancel();
        self.tasks.close();
        if tokio::time::timeout(limits::FAREWELL, self.tasks.wait()).await.is_err() {
            self.stop.abort.cancel();
            self.tasks.wait().await;
        }
        self.store.close().await;
    }
}

fn bind_error(address: SocketAddr, error: &std::io::Error) -> StartError {
    let reason = match (error.kind(), port::holder(address.port())) {
        (std::io::ErrorKind::AddrInUse, Some(holder)) => format!("the port is taken by {holder}"),
        (std::io::ErrorKind::AddrInUse, None) => "the port is taken by a process that this user cannot see".to_owned(),
        _ => error.to_string(),
    };
    StartError::Bind { address, reason, kind: error.kind() }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|e| bind_error(address, &e))
}

/// The driver that was asked for, or the one that is found.
fn driver(config: &LocalConfig, tokens: &Arc<SandboxTokens>, endpoint: &str, ca_pem: &str) -> Result<Arc<dyn ComputeDriver>, StartError> {
    let bootstrap = bootstrap::Bootstrap { tokens: tokens.clone(), endpoint: endpoint.to_owned(), ca_pem: ca_pem.to_owned() };
    let process = ProcessDriverConfig::new(
        config.directories.sandboxes(),
        config.supervisor.clone(),
        config.directories.protected(),
        Arc::new(bootstrap),
    );
    let mut registry = Registry::new();
    registry.register(Arc::new(ProcessDriver::new(process).map_err(|e| StartError::Driver(e.to_string()))?));
    let found = match &config.driver {
        Some(name) => registry.get(name),
        None => registry.detect(),
    };
    found.map_err(|e| StartError::Driver(e.to_string()))
}

async fn open_store(config: &LocalConfig) -> Result<LocalApi, StartError> {
    let directory = config.directories.gateway();
    LocalApi::open(&directory.join("openshell.db"), &directory.join("seal.key")).await.map_err(|e| StartError::Store(e.to_string()))
}

/// The object that holds this gateway's defaults, made on first start. A user may change it.
async fn keep_gateway_object(client: &kube::Client) -> Result<(), StartError> {
    let api = kube::Api::<OpenShellGateway>::namespaced(client.clone(), LOCAL_NAMESPACE);
    let object = OpenShellGateway::new(OBJECT_NAME, openshell_crds::OpenShellGatewaySpec::default());
    match api.create(&kube::api::PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(StartError::Store(error.to_string())),
    }
}
