//! Leader election: of several operators one works, the others wait.
//!
//! A `coordination.k8s.io` Lease, held and renewed as `k8s.io/client-go/tools/leaderelection` does
//! it. Nobody's clock is trusted: a lease has run out when it has not changed for its duration as
//! counted here. A leader that cannot renew stops before that, so that two never work at a time
//! but for what was already on its way to the API server; what the controllers write carries the
//! version that it was computed from.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::limits;

/// Times of the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long a lease is good for after its last renewal.
    pub duration: Duration,
    /// A leader that could not renew for this long ends.
    pub renew_deadline: Duration,
    /// Pause between two attempts.
    pub retry: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { duration: limits::LEASE_DURATION, renew_deadline: limits::LEASE_RENEW_DEADLINE, retry: limits::LEASE_RETRY }
    }
}

/// A candidate.
#[derive(Clone)]
pub struct Candidate {
    /// The leases.
    pub leases: Api<Lease>,
    /// Name of the lease.
    pub name: String,
    /// Who we are; no two candidates are the same.
    pub identity: String,
    /// Times.
    pub times: Times,
}

/// What the lease said, and since when it has said so.
struct Observed {
    lease: Lease,
    since: Instant,
}

impl Candidate {
    /// Waits until the lease is ours; false if `shutdown` came first. `alive` is called after every
    /// answer of the API server.
    pub async fn acquire(&self, shutdown: &CancellationToken, alive: impl Fn()) -> bool {
        let mut observed: Option<Observed> = None;
        loop {
            match self.attempt(&mut observed).await {
                Ok(held) => {
                    alive();
                    if held {
                        tracing::info!(lease = self.name, identity = self.identity, "leading");
                        return true;
                    }
                }
                Err(error) => tracing::warn!(lease = self.name, %error, "the lease could not be taken and is tried again"),
            }
            tokio::select! {
                () = tokio::time::sleep(self.times.retry) => {}
                () = shutdown.cancelled() => return false,
            }
        }
    }

    /// Renews the lease until `done`; returns early when it is lost.
    pub async fn keep(&self, done: &CancellationToken) {
        let mut observed: Option<Observed> = None;
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = tokio::time::sleep(self.times.retry) => {}
                () = done.cancelled() => return,
            }
            let deadline = renewed + self.times.renew_deadline;
            match tokio::time::timeout_at(deadline, self.attempt(&mut observed)).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::error!(lease = self.name, "another operator leads; this one ends");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(lease = self.name, %error, "the lease could not be renewed and is tried again"),
                Err(_) => {}
            }
            if Instant::now() >= deadline {
                tracing::error!(lease = self.name, "the lease could not be renewed in time; this operator ends");
                return;
            }
        }
    }

    /// Gives the lease back, so that the next one need not wait until it has run out.
    pub async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let spec = lease.spec.get_or_insert_default();
            if spec.holder_identity.as_deref() != Some(&self.identity) {
                return Ok(());
            }
            *spec = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                lease_transitions: spec.lease_transitions,
                ..LeaseSpec::default()
            };
            self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(|_| ())
        };
        match tokio::time::timeout(self.times.retry, released).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the lease was not given back and runs out by itself"),
            Err(_) => tracing::warn!("the lease was not given back in time and runs out by itself"),
        }
    }

    /// Takes or renews the lease, if it is free or ours. Somebody who is quicker makes it a
    /// conflict, which is no error.
    async fn attempt(&self, observed: &mut Option<Observed>) -> Result<bool, kube::Error> {
        let found = self.leases.get_opt(&self.name).await?;
        let answer = match found {
            None => {
                let lease =
                    Lease { metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() }, spec: Some(self.held(None)) };
                self.leases.create(&PostParams::default(), &lease).await
            }
            Some(mut lease) => {
                if observed.as_ref().is_none_or(|seen| seen.lease.spec != lease.spec) {
                    *observed = Some(Observed { lease: lease.clone(), since: Instant::now() });
                }
                let since = observed.as_ref().map_or_else(Instant::now, |seen| seen.since);
                let spec = lease.spec.clone().unwrap_or_default();
                if !self.may_take(&spec, since.elapsed()) {
                    return Ok(false);
                }
                lease.spec = Some(self.held(Some(&spec)));
                self.leases.replace(&self.name, &PostParams::default(), &lease).await
            }
        };
        match answer {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Whether a lease that has said this for so long is ours or nobody's.
    fn may_take(&self, spec: &LeaseSpec, unchanged: Duration) -> bool {
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        let duration = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default();
        holder.is_empty() || holder == self.identity || unchanged >= Duration::from_secs(duration)
    }

    /// The lease as ours.
    fn held(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let ours = before.is_some_and(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.times.duration.as_secs().max(1) as i32),
            acquire_time: before.filter(|_| ours).and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            lease_transitions: Some(transitions + i32::from(!ours && before.is_some())),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }
    }
}
