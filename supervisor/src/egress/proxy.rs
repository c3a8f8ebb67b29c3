//! The explicit proxy, for clients that honour `HTTP_PROXY`.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// Where the agent finds the explicit proxy. No packet ever goes there: the broker hands the
/// connection over.
pub const PROXY_ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(198, 18, 0, 1), 3128));
