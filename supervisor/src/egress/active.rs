//! The revision in force: everything that a decision needs, swapped as one.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use http::StatusCode;
use openshell_policy::{EndpointPlan, Engine, Process, Verdict};

use super::{
    ActivePolicy, InstallError,
    credentials::Vault,
    destination::{self, Forbidden, ForbiddenHost},
    identity::{Identity, Integrity},
    resolve::{ResolveError, Resolver},
};
use crate::flow::Errno;

/// One revision, ready to decide.
pub(super) struct Active {
    pub(super) engine: Engine,
    pub(super) revision: u64,
    /// Counts installations here; revisions are the gateway's business.
    pub(super) generation: u64,
    pub(super) vault: Vault,
    aliases: HashMap<String, IpAddr>,
    forbidden: Vec<Forbidden>,
}

/// A connection that the policy grants.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Granted {
    pub(super) policy: Option<String>,
    pub(super) plan: EndpointPlan,
}

/// Something that is refused, with all that the client and the record are told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Denial {
    /// Stable code, e.g. `policy_denied`.
    pub(super) code: &'static str,
    /// For a client that speaks HTTP.
    pub(super) status: StatusCode,
    /// For a client that only calls `connect(2)`.
    pub(super) errno: Errno,
    pub(super) reason: String,
    pub(super) policy: Option<String>,
    pub(super) rule: Option<String>,
}

impl Denial {
    pub(super) fn new(code: &'static str, status: StatusCode, reason: impl Into<String>) -> Self {
        Self { code, status, errno: Errno::Denied, reason: reason.into(), policy: None, rule: None }
    }

    pub(super) fn forbidden(code: &'static str, reason: impl Into<String>) -> Self {
        Self::new(code, StatusCode::FORBIDDEN, reason)
    }

    /// It was allowed; what lies behind did not work.
    pub(super) fn unreachable(errno: Errno, reason: impl Into<String>) -> Self {
        Self { errno, ..Self::new("upstream_unreachable", StatusCode::BAD_GATEWAY, reason) }
    }

    pub(super) fn with_policy(mut self, policy: Option<String>) -> Self {
        self.policy = policy;
        self
    }

    /// A failure of the network and no decision of ours.
    pub(super) fn is_failure(&self) -> bool {
        matches!(self.code, "upstream_unreachable" | "tls_handshake_failed")
    }
}

impl Active {
    pub(super) fn new(policy: ActivePolicy, generation: u64) -> Result<Self, InstallError> {
        let aliases = policy
            .host_aliases
            .into_iter()
            .map(|(name, address)| match address.parse() {
                Ok(parsed) => Ok((name.trim_end_matches('.').to_ascii_lowercase(), destination::unwrap(parsed))),
                Err(_) => Err(InstallError::HostAlias { name, address }),
            })
            .collect::<Result<_, _>>()?;
        let forbidden = policy
            .forbidden
            .into_iter()
            .map(|text| Forbidden::parse(&text).ok_or(InstallError::Forbidden(text)))
            .collect::<Result<_, _>>()?;
        let vault = Vault::new(policy.credentials)?;
        Ok(Self { engine: policy.engine, revision: policy.revision, generation, vault, aliases, forbidden })
    }

    /// Whether policy DNS answers this name.
    pub(super) fn resolvable(&self, name: &str) -> bool {
        self.aliases.contains_key(name) || self.engine.resolvable(name)
    }

    /// Whether this process may connect to `host:port`.
    pub(super) fn decide(&self, identity: &Identity, host: &str, port: u16) -> Result<Granted, Denial> {
        match &identity.integrity {
            Integrity::Unchanged => {}
            Integrity::Changed { path } => {
                let reason = format!("{path} is not the file that was first used at this path: restart the sandbox to trust the new one");
                return Err(Denial::forbidden("binary_changed", reason));
            }
            Integrity::Unknown => {
                return Err(Denial::forbidden("binary_changed", "more executables were used than can be remembered"));
            }
        }
        let decision = self.engine.connect(process(identity), host, port);
        match (decision.verdict, decision.endpoint) {
            (Verdict::Allow, Some(plan)) => Ok(Granted { policy: decision.policy, plan }),
            _ => Err(Denial::forbidden("policy_denied", decision.reason).with_policy(decision.policy)),
        }
    }

    /// The addresses behind an allowed destination. Every one of them has passed, or none is given.
    pub(super) async fn route(&self, resolver: &Resolver, granted: &Granted, host: &str, port: u16) -> Result<Vec<SocketAddr>, Denial> {
        let addresses: Arc<[IpAddr]> = if let Ok(literal) = host.parse::<IpAddr>() {
            [literal].into()
        } else if let Some(alias) = self.aliases.get(host) {
            [*alias].into()
        } else {
            resolver.addresses(host).await.map_err(|error| match error {
                ResolveError::TimedOut(_) => Denial::unreachable(Errno::TimedOut, error.to_string()),
                ResolveError::Failed { .. } => Denial::unreachable(Errno::Unreachable, error.to_string()),
                ResolveError::TooMany(_) => Denial::forbidden("ssrf_denied", error.to_string()),
            })?
        };
        for address in addresses.iter() {
            self.check_address(host, port, *address, granted)?;
        }
        self.check_forbidden_names(resolver, host, port, &addresses).await?;
        Ok(addresses.iter().map(|address| SocketAddr::new(*address, port)).collect())
    }

    /// Judges one address for a granted connection.
    pub(super) fn check_address(&self, host: &str, port: u16, address: IpAddr, granted: &Granted) -> Result<(), Denial> {
        let deny = |reason| Err(Denial::forbidden("ssrf_denied", reason).with_policy(granted.policy.clone()));
        if let Err(blocked) = destination::check(address, &granted.plan.allowed_ips) {
            let check = if granted.plan.allowed_ips.is_empty() { "declared endpoint" } else { "allowed_ips" };
            let place = crate::audit::ocsf::join(host, port);
            return deny(format!("{place} blocked: {check} check failed: {blocked}"));
        }
        let plain = destination::unwrap(address);
        let hit = self.forbidden.iter().any(|forbidden| {
            forbidden.port.is_none_or(|only| only == port)
                && match &forbidden.host {
                    ForbiddenHost::Address(forbidden) => *forbidden == plain,
                    ForbiddenHost::Name(name) => name == host,
                }
        });
        if hit {
            return deny(format!("{host}:{port} is a part of OpenShell itself, which no policy can grant"));
        }
        Ok(())
    }

    /// The addresses of a forbidden name are forbidden under any other name as well. A name
    /// that does not resolve has none.
    async fn check_forbidden_names(&self, resolver: &Resolver, host: &str, port: u16, addresses: &[IpAddr]) -> Result<(), Denial> {
        for forbidden in self.forbidden.iter().filter(|forbidden| forbidden.port.is_none_or(|only| only == port)) {
            if let ForbiddenHost::Name(name) = &forbidden.host
                && let Ok(theirs) = resolver.addresses(name).await
                && addresses.iter().any(|address| theirs.contains(address))
            {
                return Err(Denial::forbidden(
                    "ssrf_denied",
                    format!("{host}:{port} is a part of OpenShell itself, which no policy can grant"),
                ));
            }
        }
        Ok(())
    }
}

/// An identity as the engine takes it.
pub(super) fn process(identity: &Identity) -> Process<'_> {
    Process { path: &identity.exe, ancestors: &identity.ancestors }
}
