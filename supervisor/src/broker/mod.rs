//! The broker: answers the agent's socket calls.
//!
//! ```text
//!  a call of the agent waits in the kernel
//!    │ notification
//!  calls.rs      which call, on which socket
//!    ├ tcp.rs       makes, binds, listens, connects ─ flow ─▶ egress
//!    ├ datagram.rs  emulates; policy DNS
//!    └ local.rs     UNIX sockets by path
//!  table.rs      every socket we made, by inode; bounded and collected
//!  caller.rs     memory and descriptors of the caller, read once
//!  loopback.rs   the sandbox's own addresses
//!  rendezvous.rs a connect that was allowed meets its connection
//!  waits.rs      threads for what the agent can make hang
//! ```
//!
//! A `connect` is never left to the kernel: what we looked at could have changed when the kernel
//! looks. Calls that are left to it (a `sendmsg` on a stream, a `getsockname` of a socket that
//! `accept` made) are those whose arguments decide nothing: the agent holds no socket that could be
//! addressed, and Landlock denies it TCP of its own.
//!
//! If the broker is gone every such call fails with `ENOSYS`: fail closed.

mod address;
mod answer;
mod caller;
mod calls;
mod datagram;
mod dns;
mod local;
mod loopback;
mod rendezvous;
mod sources;
mod table;
mod tcp;
mod waits;

#[cfg(test)]
mod tests;

use std::{
    io,
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use self::{
    answer::{Answer, Answered, Errno},
    loopback::Loopback,
    rendezvous::Rendezvous,
    table::Table,
    waits::Waits,
};
use crate::{
    confine::Listener,
    egress::identity::Identities,
    flow::Egress,
    limits::broker::{COLLECT_EVERY, CONNECTS, QUERIES, RECEIVES, THREADS},
};

/// What the broker's threads and tasks share.
struct Shared {
    listener: Listener,
    egress: Arc<dyn Egress>,
    identities: Arc<Identities>,
    runtime: Handle,
    table: Table,
    loopback: Loopback,
    rendezvous: Rendezvous,
    connecting: Arc<Semaphore>,
    receives: Arc<Semaphore>,
    queries: Arc<Semaphore>,
    waits: Waits,
    ended: AtomicBool,
}

impl Shared {
    /// Room for one more connect.
    fn connects(&self) -> Result<OwnedSemaphorePermit, Errno> {
        Ok(Arc::clone(&self.connecting).try_acquire_owned()?)
    }

    /// Sends an answer. A caller that has gone needs none.
    fn answer(&self, id: u64, result: Answered) {
        let _ = match result {
            Ok(Answer::Value(value)) => self.listener.succeed(id, value),
            Ok(Answer::Proceed) => self.listener.proceed(id),
            Ok(Answer::Taken) => Ok(()),
            Err(Errno(errno)) => self.listener.fail(id, errno),
        };
    }
}

/// Answers the agent's socket calls.
#[derive(Debug)]
pub struct Broker;

/// A running broker. It answers until the last process of the sandbox has ended.
#[derive(Clone)]
pub struct BrokerHandle {
    shared: Arc<Shared>,
}

impl std::fmt::Debug for BrokerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerHandle").finish_non_exhaustive()
    }
}

impl Broker {
    /// Starts answering. Threads of its own wait for the calls; what takes time runs on `runtime`.
    pub fn start(listener: Listener, egress: Arc<dyn Egress>, identities: Arc<Identities>, runtime: Handle) -> io::Result<BrokerHandle> {
        listener.wake_synchronously();
        let (loopback, accepting) = Loopback::claim(&listener)?;
        accepting.set_nonblocking(true)?;
        let accepting = {
            let _context = runtime.enter();
            tokio::net::TcpListener::from_std(accepting)?
        };
        let shared = Arc::new(Shared {
            table: Table::new(listener.launcher()),
            rendezvous: Rendezvous::new(runtime.clone()),
            listener,
            egress,
            identities,
            runtime,
            loopback,
            connecting: Arc::new(Semaphore::new(CONNECTS)),
            receives: Arc::new(Semaphore::new(RECEIVES)),
            queries: Arc::new(Semaphore::new(QUERIES)),
            waits: Waits::new()?,
            ended: AtomicBool::new(false),
        });
        if shared.listener.listens() {
            for number in 0..THREADS {
                let shared = Arc::clone(&shared);
                std::thread::Builder::new().name(format!("broker-{number}")).spawn(move || calls::serve(&shared))?;
            }
        }
        shared.runtime.spawn(accept(Arc::clone(&shared), accepting));
        shared.runtime.spawn(housekeeping(Arc::clone(&shared)));
        Ok(BrokerHandle { shared })
    }
}

impl BrokerHandle {
    /// Connects to a server inside the sandbox that listens on this port. Blocks shortly.
    pub fn dial_loopback(&self, port: u16) -> io::Result<TcpStream> {
        tcp::dial(&self.shared, port)
    }
}

async fn accept(shared: Arc<Shared>, accepting: tokio::net::TcpListener) {
    loop {
        match accepting.accept().await {
            Ok((stream, _)) => shared.rendezvous.accepted(stream),
            // A full table of descriptors: the connection waits in the backlog.
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
        if shared.ended.load(Ordering::Relaxed) {
            return;
        }
    }
}

async fn housekeeping(shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(COLLECT_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !shared.ended.load(Ordering::Relaxed) {
        ticks.tick().await;
        shared.rendezvous.expire();
        if !shared.table.is_empty() {
            let shared = Arc::clone(&shared);
            // Failing means that nothing is known: everything stays.
            let _ = tokio::task::spawn_blocking(move || shared.table.collect()).await;
        }
    }
}
