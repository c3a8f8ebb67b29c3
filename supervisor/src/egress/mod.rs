//! Decides and carries what the agent sends out.
//!
//! ```text
//!  intent ─▶ name ─▶ policy ─▶ addresses ─▶ every one checked ─▶ dial ─▶ flow
//!            names   active    resolve      destination          dial
//!                                                                         ┌ relay      bytes, by splice(2)
//!  flow + agent's socket ─▶ what it speaks ─▶ how its endpoint is carried ┼ hello      server name checked, bytes
//!                           rewind            connection                  └ http       every request decided,
//!                                                                                      credentials put in
//! ```
//!
//! One [`ActivePolicy`] decides at a time. A new one is swapped in as a whole, and every
//! live connection is judged by it at once. Without one, everything is refused.
//!
//! Names mean what policy DNS said they mean ([`names`]), so that nothing is guessed from addresses;
//! what is dialled is what was checked, without asking a resolver again.
//!
//! Not here: system calls (the broker), the language of policies (`openshell-policy`), and any look
//! into HTTP/2, which clients are not offered.

mod active;
pub mod ca;
mod connection;
mod connections;
pub mod credentials;
pub mod destination;
mod dial;
pub mod dns;
pub mod env;
pub mod hello;
pub mod http;
pub mod identity;
pub mod names;
pub mod proxy;
mod record;
mod relay;
mod resolve;
pub mod rewind;
pub mod roots;

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwapOption;
use futures::future::BoxFuture;
use openshell_proto::supervisor::Credential;

use crate::{
    audit::{Audit, Level},
    flow::{Egress, Errno, Flow, Intent, Refusal},
};

use active::{Active, Denial};
use ca::SandboxCa;
use connection::Connection;
use connections::Connections;
use dns::Lookup;
use identity::Identity;
use names::Names;
use record::Recorder;
use resolve::Resolver;
use roots::UpstreamRoots;

/// What an egress proxy is made of.
#[derive(Debug)]
pub struct EgressConfig {
    /// Signs certificates towards the agent.
    pub ca: SandboxCa,
    /// Where decisions are recorded.
    pub audit: Audit,
    /// Whom upstream servers are verified against; [`roots::SystemTrust`] outside of tests.
    pub roots: UpstreamRoots,
}

/// Everything that decides, as one revision. Installed as a whole or not at all.
pub struct ActivePolicy {
    /// The compiled policy.
    pub engine: openshell_policy::Engine,
    /// Revision of the configuration it came with.
    pub revision: u64,
    /// Secrets and where they may go.
    pub credentials: Vec<Credential>,
    /// Names with a fixed address, e.g. `host.openshell.internal` to the machine's own.
    pub host_aliases: HashMap<String, String>,
    /// Never to be dialled whatever the policy says: `address`, `address:port`, `name`, `name:port`.
    pub forbidden: Vec<String>,
}

/// Why a revision was not installed. What was in force before still is.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// A host alias does not name an address.
    #[error("host alias {name} = {address:?} is not an IP address")]
    HostAlias {
        /// The name.
        name: String,
        /// What it should have stood for.
        address: String,
    },
    /// A forbidden destination cannot be read.
    #[error("forbidden destination {0:?} is neither an address nor a name, with or without a port")]
    Forbidden(String),
    /// A credential cannot be used.
    #[error("the credential for {env} cannot be used: {reason}")]
    Credential {
        /// Environment variable of the credential.
        env: String,
        /// Why; never the value.
        reason: &'static str,
    },
}

/// What an installation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Installed {
    /// Connections that the new revision forbids and that were cut.
    pub cut: usize,
}

/// The egress proxy of one sandbox. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EgressProxy {
    shared: Arc<Shared>,
}

/// Of the nice values (nice(2)).
const LOWEST_PRIORITY: i32 = 19;

/// What every connection of a sandbox shares.
struct Shared {
    ca: SandboxCa,
    recorder: Recorder,
    upstream: UpstreamRoots,
    active: ArcSwapOption<Active>,
    generations: AtomicU64,
    names: Names,
    resolver: Resolver,
    connections: Arc<Connections>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("revision", &self.revision()).finish_non_exhaustive()
    }
}

impl EgressProxy {
    /// A proxy without a policy: it refuses everything until one is installed.
    pub fn new(config: EgressConfig) -> Self {
        let shared = Shared {
            ca: config.ca,
            recorder: Recorder(config.audit),
            upstream: config.roots,
            active: ArcSwapOption::empty(),
            generations: AtomicU64::new(1),
            names: Names::default(),
            resolver: Resolver::default(),
            connections: Arc::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Puts a revision in force and judges every live connection by it. When this returns, every
    /// decision is made by the new revision, and what it forbids has been told to end.
    pub fn install(&self, active: ActivePolicy) -> Result<Installed, InstallError> {
        let generation = self.shared.generations.fetch_add(1, Ordering::Relaxed);
        let active = Arc::new(Active::new(active, generation)?);
        // Connections enter the table before they look at the revision again (see `open`), so each
        // one is either seen here or sees the new revision there.
        self.shared.active.store(Some(active.clone()));
        let cut = self.shared.connections.judge(&active);
        self.verify(active);
        Ok(Installed { cut })
    }

    /// Has the engine's index held to the rules themselves, in the background: it takes longer than
    /// a revision may take to be in force. An engine that differs must not decide any longer.
    fn verify(&self, active: Arc<Active>) {
        let (shared, unverified) = (self.shared.clone(), active.clone());
        let verify = move || {
            if let Err(error) = active.engine.verify() {
                shared.disown(&active, &error.to_string());
            }
        };
        // A thread of its own, behind everything else: the agent is being started meanwhile.
        let behind = move || {
            std::thread::sleep(crate::limits::egress::VERIFY_AFTER);
            // Only later without it. On Linux this is the calling thread's alone (setpriority(2), notes).
            let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
            verify();
        };
        if let Err(error) = std::thread::Builder::new().name("verify".to_owned()).spawn(behind) {
            self.shared.disown(&unverified, &format!("it cannot be verified: {error}"));
        }
    }
}

impl Shared {
    fn revision(&self) -> u64 {
        self.active.load().as_ref().map_or(0, |active| active.revision)
    }

    /// Takes a revision out of force and everything it allowed with it.
    fn disown(&self, active: &Arc<Active>, error: &str) {
        let current = self.active.compare_and_swap(active, None);
        if current.as_ref().is_some_and(|current| Arc::ptr_eq(current, active)) {
            let reason = format!("revision {} was taken out of force: {error}", active.revision);
            self.recorder.0.log(Level::Error, "proxy", reason.clone());
            self.connections.cut_all(&Denial::forbidden("policy_denied", reason));
        }
    }

    fn active(&self) -> Result<Arc<Active>, Denial> {
        self.active.load_full().ok_or_else(|| Denial::forbidden("policy_denied", "no policy is in force yet"))
    }

    /// The host that an address chosen by the agent stands for.
    fn host_of(&self, address: IpAddr) -> Result<Arc<str>, Denial> {
        match destination::unwrap(address) {
            IpAddr::V4(v4) if names::is_synthetic(v4) => self
                .names
                .name_of(v4)
                .ok_or_else(|| Denial::forbidden("policy_denied", format!("{v4} is an address of policy DNS that stands for no name"))),
            plain => Ok(plain.to_string().into()),
        }
    }

    /// Decides, resolves, checks and dials. Whatever comes of it is recorded.
    async fn open(self: &Arc<Self>, identity: &Arc<Identity>, host: Arc<str>, port: u16) -> Result<Connection, Denial> {
        let result = self.try_open(identity, host.clone(), port).await;
        match &result {
            Ok(connection) => self.recorder.opened(connection.live(), self.revision()),
            Err(denial) => self.recorder.refused(identity, &host, port, None, denial, self.revision()),
        }
        result
    }

    async fn try_open(self: &Arc<Self>, identity: &Arc<Identity>, host: Arc<str>, port: u16) -> Result<Connection, Denial> {
        let active = self.active()?;
        let granted = active.decide(identity, &host, port)?;
        let live =
            self.connections.enter(identity.clone(), host.clone(), port, granted.clone(), active.generation).ok_or_else(|| Denial {
                errno: Errno::Exhausted,
                ..Denial::new("too_many_connections", ::http::StatusCode::SERVICE_UNAVAILABLE, "the sandbox has too many open connections")
            })?;
        let upstream = {
            let dialling = async {
                let addresses = active.route(&self.resolver, &granted, &host, port).await?;
                dial::dial(&addresses).await.map_err(|error| {
                    let errno = match error.kind() {
                        std::io::ErrorKind::ConnectionRefused => Errno::Refused,
                        std::io::ErrorKind::TimedOut => Errno::TimedOut,
                        _ => Errno::Unreachable,
                    };
                    Denial::unreachable(errno, format!("{host}:{port}: {error}")).with_policy(granted.policy.clone())
                })
            };
            tokio::select! {
                biased;
                denial = live.cut() => return Err(denial),
                upstream = dialling => upstream?,
            }
        };
        if let Ok(address) = upstream.peer_addr() {
            live.set_address(address.ip());
        }
        // The revision may have changed before the connection was in the table, or its address was
        // not known yet when it was judged.
        let now = self.active()?;
        if now.generation != active.generation && live.judge(&now) {
            return Err(live.cut().await);
        }
        Ok(Connection::new(self.clone(), live, upstream))
    }
}

impl Egress for EgressProxy {
    fn open(&self, intent: Intent) -> BoxFuture<'static, Result<Box<dyn Flow>, Refusal>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let destination = SocketAddr::new(destination::unwrap(intent.destination.ip()), intent.destination.port());
            if destination == proxy::PROXY_ADDRESS {
                return Ok(Box::new(proxy::ProxyFlow::new(shared, intent.identity)) as Box<dyn Flow>);
            }
            let refuse = |denial: Denial| Refusal { errno: denial.errno, reason: denial.reason };
            let host = shared.host_of(destination.ip()).map_err(|denial| {
                let address = destination.ip();
                shared.recorder.refused(
                    &intent.identity,
                    &address.to_string(),
                    destination.port(),
                    Some(address),
                    &denial,
                    shared.revision(),
                );
                refuse(denial)
            })?;
            let connection = shared.open(&intent.identity, host, destination.port()).await.map_err(refuse)?;
            Ok(Box::new(connection) as Box<dyn Flow>)
        })
    }

    fn resolve(&self, identity: Arc<Identity>, query: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let active = shared.active.load_full();
            let answer = dns::answer(&query, |name| match &active {
                Some(active) if active.resolvable(name) => shared.names.address_of(name).into(),
                _ => Lookup::Unknown,
            })?;
            if let Some(refused) = answer.refused {
                shared.recorder.name_refused(&identity, &refused.name, refused.reason, shared.revision());
            }
            Some(answer.message)
        })
    }

    fn refused(&self, identity: Option<Arc<Identity>>, what: &str, target: &str, reason: &str) {
        self.shared.recorder.call_refused(identity.as_deref(), what, target, reason, self.shared.revision());
    }
}

#[cfg(test)]
mod tests;
