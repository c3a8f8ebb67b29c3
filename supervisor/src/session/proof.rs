//! What is shown to the gateway: a sandbox token, handed over or exchanged for the pod's.
//!
//! The kubelet keeps the service account token in its file fresh; it is read anew for every
//! exchange. The sandbox token that it gives is renewed when most of its time has passed, and
//! exchanged again when the gateway does not take it any more.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use openshell_proto::supervisor::{ExchangeRequest, RenewRequest, SandboxToken, supervisor_session_client::SupervisorSessionClient};
use parking_lot::RwLock;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tonic::{Request, Status, metadata::MetadataValue, service::Interceptor, transport::Channel};
use zeroize::Zeroizing;

use super::control::Client;
use crate::{
    bootstrap::Token,
    limits::session::{ACCEPT_TIME, RENEW_AGAIN, TOKEN_BYTES},
};

type Header = MetadataValue<tonic::metadata::Ascii>;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The file of the service account token.
    #[error("{path}: the service account token cannot be read: {why}; the pod must project it with the audience openshell-gateway")]
    File {
        /// Where.
        path: PathBuf,
        /// Why not.
        why: String,
    },
    /// The gateway gives no token for it.
    #[error("the gateway did not exchange the service account token: {:?}: {}", .0.code(), .0.message())]
    Exchange(Status),
    /// It is no token.
    #[error("the token is no header value")]
    NoHeader,
}

/// What is shown to the gateway.
pub struct Proof {
    source: Source,
    shown: RwLock<Option<Shown>>,
}

enum Source {
    /// It was handed over and does not expire.
    Given,
    /// A file that the kubelet keeps fresh, and the sandbox that it is exchanged for.
    ServiceAccount { file: PathBuf, sandbox_id: String },
}

#[derive(Clone)]
struct Shown {
    header: Header,
    /// When to renew it, and when it is of no use any more.
    times: Option<(Instant, Instant)>,
}

impl Proof {
    /// A sandbox token that does not expire.
    pub fn token(token: &Token) -> Result<Self, ProofError> {
        Ok(Self { source: Source::Given, shown: RwLock::new(Some(Shown { header: header(token.expose())?, times: None })) })
    }

    /// Whatever the service account token in this file is exchanged for.
    pub fn service_account(file: &Path, sandbox_id: &str) -> Self {
        Self { source: Source::ServiceAccount { file: file.to_owned(), sandbox_id: sandbox_id.to_owned() }, shown: RwLock::new(None) }
    }

    /// Sees to it that there is something to show on this connection.
    pub(super) async fn prepare(&self, channel: &Channel) -> Result<(), ProofError> {
        let Source::ServiceAccount { file, sandbox_id } = &self.source else { return Ok(()) };
        let good = |shown: &Shown| shown.times.is_none_or(|(_, ends)| Instant::now() < ends);
        if self.shown.read().as_ref().is_some_and(good) {
            return Ok(());
        }
        let service_account_token = read(file).await?.as_str().to_owned();
        let request = ExchangeRequest { sandbox_id: sandbox_id.clone(), service_account_token };
        let asked = Instant::now();
        let answer = timeout(ACCEPT_TIME, SupervisorSessionClient::new(channel.clone()).exchange(request)).await;
        let answer = answer.map_err(|_| ProofError::Exchange(Status::deadline_exceeded("no answer in time")))?;
        self.take(&answer.map_err(ProofError::Exchange)?.into_inner(), asked)
    }

    fn take(&self, token: &SandboxToken, asked: Instant) -> Result<(), ProofError> {
        let lifetime = token.lifetime.and_then(|lifetime| Duration::try_from(lifetime).ok());
        let times = lifetime.map(|lifetime| (asked + lifetime * 4 / 5, asked + lifetime));
        *self.shown.write() = Some(Shown { header: header(&token.token)?, times });
        Ok(())
    }

    /// The gateway does not take what it was shown.
    pub(super) fn refused(&self) {
        if matches!(self.source, Source::ServiceAccount { .. }) {
            *self.shown.write() = None;
        }
    }

    /// Renews what expires, as long as this is polled.
    pub(super) async fn keep(&self, mut client: Client) {
        loop {
            let Some((renew, _)) = self.shown.read().as_ref().and_then(|shown| shown.times) else { return };
            sleep_until(renew).await;
            let asked = Instant::now();
            let renewed = match timeout(ACCEPT_TIME, client.renew(RenewRequest {})).await {
                Ok(Ok(answer)) => self.take(&answer.into_inner(), asked).map_err(|error| error.to_string()),
                Ok(Err(status)) => Err(format!("{:?}: {}", status.code(), status.message())),
                Err(_) => Err("no answer in time".to_owned()),
            };
            if let Err(why) = renewed {
                tracing::warn!(why, "the sandbox token was not renewed; it is tried again");
                sleep(RENEW_AGAIN).await;
            }
        }
    }
}

fn header(token: &str) -> Result<Header, ProofError> {
    let text = Zeroizing::new(format!("Bearer {token}"));
    let mut header: Header = text.parse().map_err(|_| ProofError::NoHeader)?;
    header.set_sensitive(true);
    Ok(header)
}

async fn read(file: &Path) -> Result<Zeroizing<String>, ProofError> {
    let broken = |why: String| ProofError::File { path: file.to_owned(), why };
    let text = Zeroizing::new(tokio::fs::read_to_string(file).await.map_err(|error| broken(error.to_string()))?);
    let token = text.trim();
    if token.is_empty() || token.len() > TOKEN_BYTES || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(broken("it holds no token".to_owned()));
    }
    Ok(Zeroizing::new(token.to_owned()))
}

/// Puts it on every call.
#[derive(Clone)]
pub(super) struct Bearer(pub(super) std::sync::Arc<super::Identity>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let shown = self.0.proof.shown.read();
        let shown = shown.as_ref().ok_or_else(|| Status::unauthenticated("there is no sandbox token"))?;
        request.metadata_mut().insert("authorization", shown.header.clone());
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_holds_no_token_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("token");
        assert!(read(&file).await.unwrap_err().to_string().contains("/token: the service account token cannot be read"));
        for bad in ["", "\n", "two words", &"x".repeat(TOKEN_BYTES + 1)] {
            std::fs::write(&file, bad).unwrap();
            assert!(read(&file).await.unwrap_err().to_string().contains("it holds no token"), "{bad:?}");
        }
        std::fs::write(&file, "a.b.c\n").unwrap();
        assert_eq!(read(&file).await.unwrap().as_str(), "a.b.c");
    }

    #[test]
    fn a_given_token_is_never_renewed_and_never_forgotten() {
        let token: Token = serde_json::from_str("\"a.b.c\"").unwrap();
        let proof = Proof::token(&token).unwrap();
        proof.refused();
        assert!(proof.shown.read().as_ref().is_some_and(|shown| shown.times.is_none()));
    }

    #[tokio::test]
    async fn an_exchanged_token_is_renewed_in_time_and_forgotten_when_it_is_refused() {
        let proof = Proof::service_account(Path::new("/nowhere"), "u");
        let asked = Instant::now();
        let lifetime = Some(prost_types::Duration { seconds: 100, nanos: 0 });
        proof.take(&SandboxToken { token: "a.b.c".to_owned(), lifetime }, asked).unwrap();
        let times = proof.shown.read().as_ref().and_then(|shown| shown.times).unwrap();
        assert_eq!(times, (asked + Duration::from_secs(80), asked + Duration::from_secs(100)));
        proof.refused();
        assert!(proof.shown.read().is_none());
    }
}
