//! What passes between the broker, which answers the agent's system calls, and egress, which
//! decides and carries. Neither knows more of the other than this file.
//!
//! ```text
//!  connect(2) ─▶ broker ── Egress::open(intent) ─▶ decide, resolve, check, dial
//!                  │◀──────── Flow or Refusal ───────────┘
//!                  ├ refused: errno to the agent, recorded
//!                  └ opened:  the agent's own socket is connected to our listener;
//!                             accepted by address pair, once ─▶ Flow::serve(stream)
//! ```

use std::{net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use tokio::net::TcpStream;

use crate::egress::identity::Identity;

/// A connection that a process inside the sandbox asks for.
#[derive(Clone, Debug)]
pub struct Intent {
    /// Who asks. Captured while the call was pending and checked to be still pending after.
    pub identity: Arc<Identity>,
    /// Where to: a synthetic address of policy DNS, or an address the agent chose itself.
    pub destination: SocketAddr,
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the agent sees.
    pub errno: Errno,
    /// What the record says.
    pub reason: String,
}

/// The errors that an agent can get for a connection. Every one is a real answer of `connect(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Errno {
    /// Not allowed (`EACCES`).
    Denied,
    /// The other side refused (`ECONNREFUSED`).
    Refused,
    /// No answer in time (`ETIMEDOUT`).
    TimedOut,
    /// No route (`EHOSTUNREACH`).
    Unreachable,
    /// A bound of ours was reached (`EAGAIN`).
    Exhausted,
}

/// An allowed connection, ready to carry bytes. Dropping it closes what was dialled.
pub trait Flow: Send {
    /// Carries the connection until either side ends it or the policy takes it away.
    fn serve(self: Box<Self>, agent: TcpStream) -> BoxFuture<'static, ()>;
}

/// Decides and carries; implemented by `egress`.
pub trait Egress: Send + Sync + 'static {
    /// Decides, resolves, checks and (where nothing has to be read first) dials.
    fn open(&self, intent: Intent) -> BoxFuture<'static, Result<Box<dyn Flow>, Refusal>>;

    /// Answers one DNS message (UDP datagram, or TCP without its length prefix) from policy
    /// DNS. `None`: not DNS, drop it.
    fn resolve(&self, identity: Arc<Identity>, query: Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>>;

    /// Records something that the broker refused by itself: a datagram, a socket family, a
    /// UNIX socket path, a loopback service outside the sandbox.
    fn refused(&self, identity: Option<Arc<Identity>>, what: &str, target: &str, reason: &str);
}
