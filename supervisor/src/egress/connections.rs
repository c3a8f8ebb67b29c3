//! The live connections, so that a new revision can judge them again.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use openshell_policy::{RequestFacts, Verdict};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    active::{Active, Denial, Granted, process},
    identity::Identity,
};
use crate::limits::egress::CONNECTIONS;

/// Every live connection of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Connections {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Arc<Live>>>,
}

/// One live connection.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) identity: Arc<Identity>,
    pub(super) host: Arc<str>,
    pub(super) port: u16,
    pub(super) granted: Granted,
    /// Installation that last allowed it.
    pub(super) generation: AtomicU64,
    state: Mutex<State>,
    cut: CancellationToken,
}

#[derive(Debug, Default)]
struct State {
    /// Address that was dialled.
    address: Option<IpAddr>,
    /// Request that is under way.
    request: Option<RequestKey>,
    /// Why it was cut.
    reason: Option<Denial>,
}

/// What a request was decided by.
#[derive(Clone, Debug)]
pub(super) struct RequestKey {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
}

impl RequestKey {
    pub(super) fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { method: &self.method, path: &self.path, query: &self.query }
    }
}

impl Live {
    /// Waits until a revision takes the connection away; gives the reason.
    pub(super) async fn cut(&self) -> Denial {
        self.cut.cancelled().await;
        self.state.lock().reason.clone().unwrap_or_else(|| Denial::forbidden("policy_denied", "the policy changed"))
    }

    pub(super) fn is_cut(&self) -> bool {
        self.cut.is_cancelled()
    }

    /// Ends when the connection is cut.
    pub(super) fn cancellation(&self) -> &CancellationToken {
        &self.cut
    }

    pub(super) fn address(&self) -> Option<IpAddr> {
        self.state.lock().address
    }

    pub(super) fn set_address(&self, address: IpAddr) {
        self.state.lock().address = Some(address);
    }

    pub(super) fn set_request(&self, request: Option<RequestKey>) {
        self.state.lock().request = request;
    }

    /// Judges it by a revision and cuts it if that forbids it. Whether it was cut now.
    pub(super) fn judge(&self, active: &Active) -> bool {
        if self.is_cut() {
            return false;
        }
        match self.verdict(active) {
            Ok(()) => {
                self.generation.fetch_max(active.generation, Ordering::Relaxed);
                false
            }
            Err(denial) => {
                self.cut_for(denial);
                true
            }
        }
    }

    fn cut_for(&self, denial: Denial) {
        self.state.lock().reason.get_or_insert(denial);
        self.cut.cancel();
    }

    fn verdict(&self, active: &Active) -> Result<(), Denial> {
        let granted = active.decide(&self.identity, &self.host, self.port)?;
        let changed = |what| Err(Denial::forbidden("policy_denied", what).with_policy(granted.policy.clone()));
        if granted.plan.inspection != self.granted.plan.inspection
            || granted.plan.allow_encoded_slash != self.granted.plan.allow_encoded_slash
        {
            return changed("the policy changed how this connection is inspected");
        }
        let (address, request) = {
            let state = self.state.lock();
            (state.address, state.request.clone())
        };
        if let Some(address) = address {
            active.check_address(&self.host, self.port, address, &granted)?;
        }
        if let Some(request) = request
            && granted.plan.inspection == openshell_policy::Inspection::Http
        {
            let decision = active.engine.request(process(&self.identity), &self.host, self.port, request.facts());
            if decision.verdict == Verdict::Deny {
                return changed("the policy changed and forbids the request that is under way");
            }
        }
        Ok(())
    }
}

impl Connections {
    /// Takes a place for a connection; `None` when there are too many.
    pub(super) fn enter(
        self: &Arc<Self>,
        identity: Arc<Identity>,
        host: Arc<str>,
        port: u16,
        granted: Granted,
        generation: u64,
    ) -> Option<LiveGuard> {
        let live = Arc::new(Live {
            identity,
            host,
            port,
            granted,
            generation: AtomicU64::new(generation),
            state: Mutex::default(),
            cut: CancellationToken::new(),
        });
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut table = self.live.lock();
        if table.len() >= CONNECTIONS {
            return None;
        }
        table.insert(id, live.clone());
        Some(LiveGuard { id, live, connections: self.clone() })
    }

    /// Cuts every live connection.
    pub(super) fn cut_all(&self, denial: &Denial) {
        for live in self.live.lock().values() {
            live.cut_for(denial.clone());
        }
    }

    /// Judges every live connection; gives how many were cut.
    pub(super) fn judge(&self, active: &Active) -> usize {
        let live: Vec<_> = self.live.lock().values().cloned().collect();
        live.iter().filter(|live| live.judge(active)).count()
    }
}

/// A connection's place among the live ones; given back when dropped.
#[derive(Debug)]
pub(super) struct LiveGuard {
    id: u64,
    live: Arc<Live>,
    connections: Arc<Connections>,
}

impl std::ops::Deref for LiveGuard {
    type Target = Arc<Live>;

    fn deref(&self) -> &Arc<Live> {
        &self.live
    }
}

impl Drop for LiveGuard {
    fn drop(&mut self) {
        self.connections.live.lock().remove(&self.id);
    }
}
