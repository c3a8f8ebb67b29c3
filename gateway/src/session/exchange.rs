//! Sandbox tokens for supervisors that no driver of ours has started: their pod's service account
//! token is exchanged for one.
//!
//! A token names the exchange that it comes from. Only the newest exchange of a sandbox counts, in
//! this process and, by the object's status, in the next one.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::future::BoxFuture;
use openshell_proto::supervisor::{ExchangeRequest, RenewRequest, SandboxToken};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{Inner, SandboxPrincipal};
use crate::{
    limits::{EXCHANGES, TOKEN_LIFETIME},
    pki::SandboxTokens,
};

/// Finds out whose service account token it is.
pub trait Attest: Send + Sync {
    /// The sandbox whose pod holds this token.
    fn attest<'a>(&'a self, service_account_token: &'a str) -> BoxFuture<'a, Result<Attested, AttestError>>;
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attested {
    /// UID of the `OpenShellSandbox` that controls the pod.
    pub sandbox_id: String,
    /// UID of the pod.
    pub pod_uid: String,
}

/// Why nobody knows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttestError {
    /// The API server does not vouch for it.
    #[error("the API server does not vouch for the service account token: {0}")]
    Unknown(String),
    /// It is somebody's, and not a sandbox's.
    #[error("the service account token is not that of a sandbox's pod: {0}")]
    Foreign(String),
    /// The API server could not be asked.
    #[error("the API server could not be asked about the service account token: {0}")]
    Unavailable(String),
}

/// What exchanges are made with.
#[derive(Clone)]
pub struct Exchange {
    /// Mints.
    pub tokens: Arc<SandboxTokens>,
    /// Vouches.
    pub attest: Arc<dyn Attest>,
}

/// The exchanges of a hub.
pub(super) struct Exchanges {
    /// The newest by sandbox.
    newest: Mutex<HashMap<String, String>>,
    /// The caller has proven nothing yet: few are asked about at a time.
    asking: Semaphore,
}

impl Default for Exchanges {
    fn default() -> Self {
        Self { newest: Mutex::default(), asking: Semaphore::new(EXCHANGES) }
    }
}

impl Exchanges {
    /// The sandbox is gone.
    pub(super) fn forget(&self, sandbox: &str) {
        self.newest.lock().remove(sandbox);
    }
}

pub(super) async fn exchange(inner: &Arc<Inner>, request: Request<ExchangeRequest>) -> Result<Response<SandboxToken>, Status> {
    let exchange = inner.config.exchange.clone().ok_or_else(without)?;
    let ExchangeRequest { sandbox_id, service_account_token } = request.into_inner();
    let attested = {
        let _asking = inner.exchanges.asking.try_acquire().map_err(|_| Status::unavailable("too many exchanges at a time; try again"))?;
        exchange.attest.attest(&service_account_token).await.map_err(|error| refuse(&error))?
    };
    if attested.sandbox_id != sandbox_id {
        return Err(refuse(&AttestError::Foreign("its pod belongs to another sandbox than the one that is asked for".to_owned())));
    }
    if let Some(rejected) = inner.objects.admit(inner, &sandbox_id).await {
        return Err(Status::failed_precondition(format!("{}: {}", rejected.code, rejected.message)));
    }
    if inner.handle(&sandbox_id).connected() {
        return Err(Status::failed_precondition("the sandbox has a live session; a token is exchanged when that has ended"));
    }
    let id = Uuid::new_v4().to_string();
    let token = mint(&exchange.tokens, &sandbox_id, &id)?;
    inner.exchanges.newest.lock().insert(sandbox_id.clone(), id.clone());
    tracing::info!(sandbox = sandbox_id, pod = attested.pod_uid, exchange = id, "service account token exchanged");
    Ok(Response::new(token))
}

pub(super) fn renew(inner: &Arc<Inner>, request: &Request<RenewRequest>) -> Result<Response<SandboxToken>, Status> {
    let principal = principal(inner, request)?;
    let exchange = inner.config.exchange.as_ref().ok_or_else(without)?;
    let id = principal.exchange.ok_or_else(|| Status::failed_precondition("this token does not expire"))?;
    mint(&exchange.tokens, &principal.sandbox_id, &id).map(Response::new)
}

/// Who calls, if no later exchange has revoked the token.
pub(super) fn principal<T>(inner: &Arc<Inner>, request: &Request<T>) -> Result<SandboxPrincipal, Status> {
    let principal: &SandboxPrincipal =
        request.extensions().get().ok_or_else(|| Status::unauthenticated("a sandbox token is needed here"))?;
    let Some(id) = &principal.exchange else { return Ok(principal.clone()) };
    let newest = inner.exchanges.newest.lock().get(&principal.sandbox_id).cloned();
    let newest = newest.or_else(|| {
        let sandbox = inner.objects.sandbox(&principal.sandbox_id, &inner.config.namespace, None)?;
        sandbox.status.as_ref()?.session.as_ref()?.exchange.clone()
    });
    if newest.is_some_and(|newest| newest != *id) {
        return Err(Status::unauthenticated("a later exchange has revoked this sandbox token"));
    }
    Ok(principal.clone())
}

fn mint(tokens: &SandboxTokens, sandbox_id: &str, exchange: &str) -> Result<SandboxToken, Status> {
    let token = tokens.mint_for(sandbox_id, exchange, TOKEN_LIFETIME).map_err(|error| Status::internal(error.to_string()))?;
    Ok(SandboxToken { token, lifetime: Some(lifetime(TOKEN_LIFETIME)) })
}

fn lifetime(time: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(time.as_secs()).unwrap_or(i64::MAX), nanos: 0 }
}

fn without() -> Status {
    Status::unimplemented("this gateway gives supervisors their tokens with their bootstrap")
}

fn refuse(error: &AttestError) -> Status {
    tracing::warn!(%error, "no sandbox token was given");
    match error {
        AttestError::Unknown(_) => Status::unauthenticated(error.to_string()),
        AttestError::Foreign(_) => Status::permission_denied(error.to_string()),
        AttestError::Unavailable(_) => Status::unavailable(error.to_string()),
    }
}
