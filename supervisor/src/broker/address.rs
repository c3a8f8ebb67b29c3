//! Socket addresses as the kernel lays them out, from bytes and to bytes.
//!
//! An address is read from the caller once, into a value; every decision and every call after that
//! is made on the value.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::answer::Errno;

/// Longest address of the kernel (`struct sockaddr_storage`).
pub(super) const LONGEST: usize = 128;

/// An address that a call names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    /// Dissolves an association.
    Unspecified,
    /// IPv4 or IPv6, as it was written.
    Internet(SocketAddr),
    /// A path, without its terminating zero; empty for autobind.
    Path(Vec<u8>),
    /// An abstract name.
    Abstract(Vec<u8>),
    /// Route netlink.
    Netlink,
    /// Anything else.
    Other(u16),
}

impl Address {
    /// Reads an address; short ones are `EINVAL`, as in the kernel.
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, Errno> {
        let family = u16::from_ne_bytes(*bytes.first_chunk::<2>().ok_or(Errno(libc::EINVAL))?);
        match i32::from(family) {
            libc::AF_UNSPEC => Ok(Self::Unspecified),
            libc::AF_INET => {
                let rest = bytes.get(2..8).ok_or(Errno(libc::EINVAL))?;
                if bytes.len() < 16 {
                    return Err(Errno(libc::EINVAL));
                }
                let address = Ipv4Addr::new(rest[2], rest[3], rest[4], rest[5]);
                Ok(Self::Internet(SocketAddrV4::new(address, port(rest)).into()))
            }
            libc::AF_INET6 => {
                // The scope is optional (RFC 2133).
                let rest = bytes.get(2..24).ok_or(Errno(libc::EINVAL))?;
                let address = <[u8; 16]>::try_from(&rest[6..22]).expect("a slice of 16 bytes");
                Ok(Self::Internet(SocketAddrV6::new(Ipv6Addr::from(address), port(rest), 0, 0).into()))
            }
            libc::AF_UNIX => Ok(Self::parse_unix(&bytes[2..])),
            libc::AF_NETLINK => Ok(Self::Netlink),
            _ => Ok(Self::Other(family)),
        }
    }

    fn parse_unix(name: &[u8]) -> Self {
        match name.first() {
            Some(0) => Self::Abstract(name[1..].to_vec()),
            _ => Self::Path(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec()),
        }
    }
}

fn port(rest: &[u8]) -> u16 {
    u16::from_be_bytes([rest[0], rest[1]])
}

/// The bytes of an address for a socket of this family: an IPv4 address is shown mapped to a
/// program that holds an IPv6 socket.
pub(super) fn encode(address: SocketAddr, family: Family) -> Vec<u8> {
    match (family, address) {
        (Family::V4, SocketAddr::V4(v4)) => {
            let mut bytes = (libc::AF_INET as u16).to_ne_bytes().to_vec();
            bytes.extend(v4.port().to_be_bytes());
            bytes.extend(v4.ip().octets());
            bytes.extend([0; 8]);
            bytes
        }
        (_, address) => {
            let ip = match address.ip() {
                IpAddr::V4(v4) => v4.to_ipv6_mapped(),
                IpAddr::V6(v6) => v6,
            };
            let mut bytes = (libc::AF_INET6 as u16).to_ne_bytes().to_vec();
            bytes.extend(address.port().to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(ip.octets());
            bytes.extend([0; 4]);
            bytes
        }
    }
}

/// Family of an internet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    /// The wildcard address.
    pub(super) fn any(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::UNSPECIFIED.into(),
            Self::V6 => Ipv6Addr::UNSPECIFIED.into(),
        }
    }

    /// The loopback address.
    pub(super) fn loopback(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::LOCALHOST.into(),
            Self::V6 => Ipv6Addr::LOCALHOST.into(),
        }
    }
}

/// The address that is meant: a mapped IPv4 address is that IPv4 address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Whether a (canonical) address stands for the machine itself. A connection to the wildcard
/// address goes to loopback (`tcp(7)`).
pub(super) fn is_loopback(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
    }
}
