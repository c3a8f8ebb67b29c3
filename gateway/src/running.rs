//! A gateway put together, and its life: the same whether its objects are on this machine or in a cluster.
//!
//! Order of an end: no new calls; watches end; execs get [`limits::DRAIN`]; then sessions and
//! whatever runs beside them end, and the store is closed. Sandboxes go on under their last known
//! policy.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use openshell_operator::api::{LocalApi, SecretValues};
use rustls::ServerConfig;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::{Api, Context, Placement};
use crate::auth::{Guard, Hosts, Rules, guard};
use crate::pki::SandboxTokens;
use crate::serve::{Server, Stop};
use crate::session::{Exchange, Hub, HubConfig, LogStore};
use crate::start::StartError;
use crate::state::Lock;
use crate::{addresses, health, http, limits, port};

/// What a gateway is put together from.
pub(crate) struct Parts {
    /// What methods ask for.
    pub(crate) rules: Rules,
    /// The objects.
    pub(crate) client: kube::Client,
    /// Namespace of the sandboxes.
    pub(crate) namespace: String,
    /// Name of the `OpenShellGateway` whose defaults apply, and where it is.
    pub(crate) gateway_name: String,
    pub(crate) gateway_namespace: String,
    /// Values of the Secrets that providers refer to.
    pub(crate) secrets: Arc<dyn SecretValues>,
    pub(crate) logs: LogStore,
    /// Who runs what.
    pub(crate) placement: Placement,
    pub(crate) tokens: Arc<SandboxTokens>,
    /// How supervisors in pods get a token.
    pub(crate) exchange: Option<Exchange>,
    /// Names of this gateway.
    pub(crate) hosts: Hosts,
    /// Bound already.
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<Arc<ServerConfig>>,
    pub(crate) health: Option<TcpListener>,
    /// The object API, where it is served here.
    pub(crate) objects: Option<Router>,
    /// What else no sandbox may reach, where that changes.
    pub(crate) places: Option<watch::Receiver<Vec<String>>>,
}

/// A gateway that serves.
pub struct Running {
    address: SocketAddr,
    pub(crate) endpoint: String,
    stop: Stop,
    /// Sessions, and what runs beside them.
    background: CancellationToken,
    failure: watch::Sender<Option<String>>,
    execs: TaskTracker,
    tasks: TaskTracker,
    /// Closed at the end, and what keeps others off it.
    pub(crate) store: Option<(LocalApi, Lock)>,
}

impl Parts {
    /// Serves from now on.
    pub(crate) fn start(self, endpoint: String) -> Result<Running, StartError> {
        let address = self.listener.local_addr().map_err(|error| StartError::Failed(error.to_string()))?;
        let hub = Hub::new(HubConfig {
            client: self.client.clone(),
            secrets: self.secrets,
            logs: self.logs,
            namespace: self.namespace.clone(),
            gateway_name: self.gateway_name.clone(),
            gateway_namespace: self.gateway_namespace.clone(),
            forbidden_destinations: addresses::reaching(address),
            places: self.places,
            exchange: self.exchange,
        });
        let (stop, background) = (Stop::default(), CancellationToken::new());
        let (tasks, execs) = (TaskTracker::new(), TaskTracker::new());
        let api = Api::new(Context {
            client: self.client,
            namespace: self.namespace,
            gateway_name: self.gateway_name,
            gateway_namespace: self.gateway_namespace,
            hub: hub.clone(),
            placement: self.placement,
            shutdown: stop.draining.clone(),
            execs: execs.clone(),
        });
        let state = Arc::new(Guard { rules: self.rules, tokens: self.tokens, hosts: self.hosts });
        let router = Router::new().merge(api.routes()).merge(self.objects.unwrap_or_default()).fallback(http::nothing);
        let router = router.layer(axum::middleware::from_fn_with_state(state, guard));
        let token = background.clone();
        tasks.spawn(async move { hub.run(token).await });
        tasks.spawn(Server { listener: self.listener, tls: self.tls, router }.run(stop.clone()));
        if let Some(listener) = self.health {
            tasks.spawn(Server { listener, tls: None, router: health::routes() }.run(stop.clone()));
        }
        Ok(Running { address, endpoint, stop, background, failure: watch::Sender::new(None), execs, tasks, store: None })
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

    /// Runs something until the gateway ends; the gateway cannot go on without it.
    pub(crate) fn beside<E: std::fmt::Display + 'static>(&self, work: impl FnOnce(CancellationToken) -> BeforeEnd<E>) {
        let (work, failure) = (work(self.background.clone()), self.failure.clone());
        self.tasks.spawn(async move {
            if let Err(error) = work.await {
                failure.send_replace(Some(error.to_string()));
            }
        });
    }

    /// Waits for a failure that the gateway cannot go on after, and says which.
    pub async fn failed(&self) -> String {
        let mut failed = self.failure.subscribe();
        let found = failed.wait_for(Option::is_some).await.ok().and_then(|reason| (*reason).clone());
        match found {
            Some(reason) => reason,
            // What ran beside it ended as it should.
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
        if let Some((store, lock)) = self.store {
            store.close().await;
            drop(lock);
        }
    }
}

/// Work that ends when it is told to, or because it cannot go on.
pub(crate) type BeforeEnd<E> = futures::future::BoxFuture<'static, Result<(), E>>;

/// Listens, or says who does already.
pub(crate) async fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).await.map_err(|error| {
        let reason = match (error.kind(), port::holder(address.port())) {
            (std::io::ErrorKind::AddrInUse, Some(holder)) => format!("the port is taken by {holder}"),
            (std::io::ErrorKind::AddrInUse, None) => "the port is taken by a process that this user cannot see".to_owned(),
            _ => error.to_string(),
        };
        StartError::Bind { address, reason, kind: error.kind() }
    })
}
