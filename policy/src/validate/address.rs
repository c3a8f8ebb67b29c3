//! Addresses that no policy can grant, and those that need `allowed_ips`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks of which no part can be granted, with what they are.
const NEVER: [(&str, &str); 9] = [
    ("127.0.0.0/8", "loopback"),
    ("::1/128", "loopback"),
    ("169.254.0.0/16", "link-local"),
    ("fe80::/10", "link-local"),
    ("0.0.0.0/8", "unspecified"),
    ("::/128", "unspecified"),
    ("224.0.0.0/4", "multicast"),
    ("ff00::/8", "multicast"),
    ("::ffff:0:0/96", "IPv4 written as IPv6"),
];

/// Metadata services outside link-local: AWS over IPv6, Alibaba Cloud, Azure's wire server.
const METADATA: [IpAddr; 3] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
];

/// What a network overlaps that no policy can grant.
///
/// A network around a metadata address is possible; egress refuses that address in it.
pub(super) fn never(network: IpNet) -> Option<&'static str> {
    if METADATA.iter().any(|address| network == IpNet::from(*address)) {
        return Some("metadata service");
    }
    if network == IpNet::from(IpAddr::V4(Ipv4Addr::BROADCAST)) {
        return Some("broadcast");
    }
    let overlaps = |text: &str| text.parse::<IpNet>().is_ok_and(|never| never.contains(&network) || network.contains(&never));
    NEVER.iter().find(|(text, _)| overlaps(text)).map(|(_, what)| *what)
}

/// Whether an address is reachable only by `allowed_ips`: private, shared, documentation, benchmark
/// and reserved ranges (RFC 6890).
pub(super) fn is_private(address: IpAddr) -> bool {
    const PRIVATE: [&str; 14] = [
        "10.0.0.0/8",
        "100.64.0.0/10",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
        "64:ff9b:1::/48",
        "100::/64",
        "2001:db8::/32",
        "fc00::/7",
    ];
    PRIVATE.iter().any(|text| text.parse::<IpNet>().is_ok_and(|net| net.contains(&address)))
}
