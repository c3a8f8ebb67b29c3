//! This machine, as a sandbox may see it.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

/// Name under which a sandbox reaches this machine.
pub const ALIAS: &str = "host.openshell.internal";

/// An IPv4 address of this machine that is not loopback: the source address towards a
/// documentation address. Nothing is sent.
pub fn address() -> anyhow::Result<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(198, 51, 100, 1), 9))?;
    match socket.local_addr()?.ip() {
        IpAddr::V4(address) if !address.is_loopback() && !address.is_unspecified() => Ok(address),
        other => anyhow::bail!("this machine has no address but {other}: the suites need a non-loopback IPv4 address and a default route"),
    }
}

/// Whether this process is root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
