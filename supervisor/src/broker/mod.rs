//! Answers the agent's socket calls.

use std::{io, net::TcpStream, sync::Arc};

use crate::{confine::Listener, egress::identity::Identities, flow::Egress};

/// A running broker.
#[derive(Debug)]
pub struct BrokerHandle {}

/// Answers the agent's socket calls.
#[derive(Debug)]
pub struct Broker {}

impl Broker {
    /// Starts answering. Threads of its own wait for the calls; what takes time runs on `runtime`.
    pub fn start(
        listener: Listener,
        egress: Arc<dyn Egress>,
        identities: Arc<Identities>,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<BrokerHandle> {
        let _ = (listener, egress, identities, runtime);
        Ok(BrokerHandle {})
    }
}

impl BrokerHandle {
    /// Connects to a server inside the sandbox that listens on this port. Blocks shortly.
    pub fn dial_loopback(&self, port: u16) -> io::Result<TcpStream> {
        let _ = port;
        Err(io::ErrorKind::ConnectionRefused.into())
    }
}
