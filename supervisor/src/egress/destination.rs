//! Which addresses may be dialled at all.
//!
//! ```text
//!  never    loopback, link-local, unspecified, multicast, broadcast, cloud metadata,
//!           and what the configuration forbids (the gateway, the API server)
//!  special  private, shared (CGNAT), unique local, documentation, benchmark, reserved:
//!           only where the endpoint lists the address in `allowed_ips`
//!  public   allowed, unless the endpoint has `allowed_ips`: then only what they list
//! ```
//!
//! An address that carries an IPv4 address (mapped, compatible, NAT64, 6to4) is judged by the one
//! it carries. This is stricter than the reference system, which lets an exactly named host
//! resolve to a private address: a name is what an attacker with DNS controls, an address range
//! is what the policy's author meant.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use ipnet::IpNet;

/// What kind of address it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Globally reachable.
    Public,
    /// Only by `allowed_ips`. What it is, for the record.
    Special(&'static str),
    /// Whatever the policy says. What it is, for the record.
    Never(&'static str),
}

/// Why an address is not dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The address.
    pub address: IpAddr,
    /// Why, e.g. `private address, which allowed_ips does not list`.
    pub reason: String,
}

impl fmt::Display for Blocked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is a {}", self.address, self.reason)
    }
}

/// A destination that is never dialled whatever the policy says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forbidden {
    /// An address or a name in lower case.
    pub host: ForbiddenHost,
    /// Only this port; `None`: every port.
    pub port: Option<u16>,
}

/// What a forbidden destination is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ForbiddenHost {
    /// An address.
    Address(IpAddr),
    /// A name; its addresses are forbidden as well.
    Name(String),
}

impl Forbidden {
    /// Reads `address`, `address:port`, `[v6]:port`, `name`, `name:port`.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<IpAddr>() {
            return Some(Self { host: ForbiddenHost::Address(unwrap(address)), port: None });
        }
        if let Ok(address) = text.parse::<std::net::SocketAddr>() {
            return Some(Self { host: ForbiddenHost::Address(unwrap(address.ip())), port: Some(address.port()) });
        }
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port.parse().ok()?)),
            None => (text, None),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        valid.then_some(Self { host: ForbiddenHost::Name(name), port })
    }
}

/// Judges one address for one endpoint.
pub fn check(address: IpAddr, allowed: &[IpNet]) -> Result<(), Blocked> {
    let blocked = |reason: String| Err(Blocked { address, reason });
    match kind(address) {
        Kind::Never(what) => blocked(format!("{what} address, which no policy can grant")),
        Kind::Special(_) | Kind::Public if lists(allowed, address) => Ok(()),
        Kind::Special(what) => blocked(format!("{what} address, which allowed_ips does not list")),
        Kind::Public if allowed.is_empty() => Ok(()),
        Kind::Public => blocked("public address, which allowed_ips does not list".to_owned()),
    }
}

fn lists(allowed: &[IpNet], address: IpAddr) -> bool {
    let carried = carried(address).map(IpAddr::V4);
    allowed.iter().any(|net| net.contains(&address) || carried.is_some_and(|v4| net.contains(&v4)))
}

/// What kind of address this is.
pub fn kind(address: IpAddr) -> Kind {
    match (address, carried(address)) {
        (IpAddr::V4(v4), _) | (IpAddr::V6(_), Some(v4)) => kind_v4(v4),
        (IpAddr::V6(v6), None) => kind_v6(v6),
    }
}

/// The same address with an IPv4-mapped form made plain.
pub fn unwrap(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

/// The IPv4 address that an IPv6 address stands for: mapped and compatible (RFC 4291, 2.5.5),
/// NAT64 (RFC 6052), 6to4 (RFC 3056).
fn carried(address: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(v6) = address else { return None };
    let s = v6.segments();
    let last = Ipv4Addr::from_bits(u32::from(s[6]) << 16 | u32::from(s[7]));
    match s {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => Some(last),
        // ::/128 and ::1 are addresses of their own.
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 || lo > 1 => Some(last),
        [0x2002, hi, lo, ..] => Some(Ipv4Addr::from_bits(u32::from(hi) << 16 | u32::from(lo))),
        _ => None,
    }
}

/// IANA IPv4 Special-Purpose Address Registry.
fn kind_v4(address: Ipv4Addr) -> Kind {
    let [a, b, c, d] = address.octets();
    match [a, b, c, d] {
        [0, ..] => Kind::Never("unspecified"),
        [127, ..] => Kind::Never("loopback"),
        // Link-local; and those of Alibaba and Oracle.
        [169, 254, 169, 254] | [100, 100, 100, 200] | [192, 0, 0, 192] => Kind::Never("cloud metadata"),
        [169, 254, ..] => Kind::Never("link-local"),
        [255, 255, 255, 255] => Kind::Never("broadcast"),
        [224..=239, ..] => Kind::Never("multicast"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] => Kind::Special("private"),
        [100, 64..=127, ..] => Kind::Special("shared (CGNAT)"),
        [192, 0, 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => Kind::Special("documentation"),
        [198, 18..=19, ..] => Kind::Special("benchmark"),
        [192, 0, 0, _] | [192, 88, 99, _] | [240..=255, ..] => Kind::Special("reserved"),
        _ => Kind::Public,
    }
}

/// IANA IPv6 Special-Purpose Address Registry. Only 2000::/3 is given out globally.
fn kind_v6(address: Ipv6Addr) -> Kind {
    let s = address.segments();
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Kind::Never("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Kind::Never("loopback"),
        [0xfe80..=0xfebf, ..] => Kind::Never("link-local"),
        [0xff00..=0xffff, ..] => Kind::Never("multicast"),
        // AWS; Google.
        [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => Kind::Never("cloud metadata"),
        [0xfc00..=0xfdff, ..] => Kind::Special("unique local"),
        [0xfec0..=0xfeff, ..] => Kind::Special("site-local"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Kind::Special("documentation"),
        [0x2001, 2, 0, ..] => Kind::Special("benchmark"),
        // Teredo, ORCHID and the other protocol assignments.
        [0x2001, 0..=0x1ff, ..] => Kind::Special("reserved"),
        [0x2000..=0x3fff, ..] => Kind::Public,
        _ => Kind::Special("reserved"),
    }
}

#[cfg(test)]
#[path = "destination_tests.rs"]
mod tests;
