//! The explicit proxy, for clients that honour `HTTP_PROXY`.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
};

use futures::future::BoxFuture;
use tokio::net::TcpStream;

use super::{Shared, identity::Identity};
use crate::flow::Flow;

/// Where the agent finds the explicit proxy. No packet ever goes there: the broker hands the
/// connection over.
pub const PROXY_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 3128));

/// A connection to the explicit proxy.
pub(super) struct ProxyFlow {
    shared: Arc<Shared>,
    identity: Arc<Identity>,
}

impl ProxyFlow {
    pub(super) fn new(shared: Arc<Shared>, identity: Arc<Identity>) -> Self {
        Self { shared, identity }
    }
}

impl Flow for ProxyFlow {
    fn serve(self: Box<Self>, agent: TcpStream) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            drop((agent, self.shared, self.identity));
        })
    }
}
