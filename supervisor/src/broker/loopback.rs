//! The sandbox's own loopback.
//!
//! ```text
//!  what the agent says            what is bound or connected
//!  127/8, 0.0.0.0                 A4:port      (127.x.y.z, this sandbox's)
//!  ::1, [::] of IPv6 only         A6:port      (on the same socket as ::ffff:A6)
//!  [::] of both                   A4:port
//!  elsewhere, allowed             L            (where the broker accepts)
//! ```
//!
//! The three addresses are claimed together, by listening on L. With a network namespace of its
//! own the same is done inside; there the addresses are nobody else's anyway.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener},
};

use rand::Rng as _;

use super::address::Family;
use crate::{
    confine::{Listener, SocketKind},
    limits::broker::BACKLOG,
};

/// Ports that L is tried at: one that somebody uses on the wildcard address is of no use.
const PORTS: [u16; 3] = [47_471, 47_472, 47_473];
/// Addresses that are tried per port.
const TRIES: usize = 64;

/// The addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loopback {
    accepting: Ipv4Addr,
    port: u16,
    v4: Ipv4Addr,
    v6: Ipv4Addr,
}

impl Loopback {
    /// Claims addresses and starts to listen.
    pub(super) fn claim(listener: &Listener) -> io::Result<(Self, TcpListener)> {
        let mut failure = io::Error::from(io::ErrorKind::AddrInUse);
        for port in PORTS {
            for _ in 0..TRIES {
                // 127.64.0.0 to 127.191.255.255, in blocks of four; the lower half is what people use.
                let block: u32 = rand::rng().random_range(0..1 << 21);
                let base = 0x7f40_0000 + block * 4;
                let [accepting, v4, v6] = [1, 2, 3].map(|offset| Ipv4Addr::from(base + offset));
                let socket = listener.make_socket(SocketKind::Tcp4)?;
                let at = SocketAddr::from((accepting, port));
                match rustix::net::bind(&socket, &at).and_then(|()| rustix::net::listen(&socket, BACKLOG)) {
                    Ok(()) => return Ok((Self { accepting, port, v4, v6 }, TcpListener::from(socket))),
                    Err(error @ rustix::io::Errno::ADDRINUSE) => failure = error.into(),
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Err(failure)
    }

    /// Where the broker accepts, for a socket of this family.
    pub(super) fn accepting(&self, family: Family) -> SocketAddr {
        SocketAddr::new(on(family, self.accepting), self.port)
    }

    /// The sandbox's own address, for a socket of this family.
    pub(super) fn own(&self, family: Family, side: Side) -> IpAddr {
        on(family, self.of(side))
    }

    /// The sandbox's own address as IPv4.
    pub(super) fn of(&self, side: Side) -> Ipv4Addr {
        match side {
            Side::V4 => self.v4,
            Side::V6 => self.v6,
        }
    }
}

/// Which of the two loopbacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    V4,
    V6,
}

fn on(family: Family, address: Ipv4Addr) -> IpAddr {
    match family {
        Family::V4 => address.into(),
        Family::V6 => address.to_ipv6_mapped().into(),
    }
}
