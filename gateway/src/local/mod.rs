//! A gateway on one machine, without a configuration file.
//!
//! Order of a start, so that nothing is half-written when it fails: rules, directories, lock,
//! keys, store, listener, controllers, registration, readiness. Whatever fails gives one
//! [`StartError`].

mod health;
mod port;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::auth::{Guard, Hosts, Rules, guard};
use crate::pki::{Pki, Registration, SERVER_NAMES, register};
use crate::serve::{Server, Transport, tls_config};
use crate::settings::LocalConfig;
use crate::start::StartError;
use crate::state::Lock;

/// Starts gateways.
pub struct LocalGateway;

/// A gateway that serves.
pub struct Running {
    endpoint: String,
    address: SocketAddr,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    _lock: Lock,
}

impl LocalGateway {
    /// Starts a gateway: when this returns, it serves and is registered.
    pub async fn start(config: LocalConfig) -> Result<Running, StartError> {
        let rules = Rules::read(openshell_proto::DESCRIPTORS)?;
        config.directories.prepare()?;
        let lock = Lock::take(&config.directories)?;
        let pki = Pki::open(config.directories.tls(), &config.server_names)?;
        let tls = match config.transport {
            Transport::Tls => Some(Arc::new(tls_config(&pki)?)),
            Transport::Plaintext => None,
        };
        let listener = listen(config.bind).await?;
        let address = listener.local_addr().map_err(|e| bind_error(config.bind, &e))?;
        let health = match config.health {
            Some(health) => Some(listen(health).await?),
            None => None,
        };

        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let names = SERVER_NAMES.iter().map(|&n| n.to_owned()).chain(config.server_names.clone()).chain([config.bind.ip().to_string()]);
        let Pki { ca_pem, client, tokens, .. } = pki;
        let state = Arc::new(Guard { rules, tokens: Arc::new(tokens), hosts: Hosts::new(names) });
        let router = Router::new().merge(Api::new().routes()).layer(axum::middleware::from_fn_with_state(state, guard));

        tasks.spawn(Server { listener, tls, router }.run(shutdown.clone()));
        if let Some(listener) = health {
            tasks.spawn(Server { listener, tls: None, router: health::routes() }.run(shutdown.clone()));
        }
        let registration = match config.transport {
            Transport::Tls => Registration::Mtls { ca_pem: &ca_pem, client: &client },
            Transport::Plaintext => {
                tracing::warn!("TLS is off: everybody on this machine may do everything with this gateway");
                Registration::Plaintext
            }
        };
        let endpoint = register(config.directories.config(), address, &registration)?;
        tracing::info!(endpoint, "serving");
        Ok(Running { endpoint, address, shutdown, tasks, _lock: lock })
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

    /// Ends it: new calls are refused, those under way get a moment. Sandboxes go on.
    pub async fn stop(self) {
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
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
