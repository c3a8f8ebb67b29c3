//! Addresses of this machine: where a gateway that listens on all of them can be reached, and
//! sandboxes must not.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// `address:port` of everything that reaches a listener on `bind`.
pub(crate) fn reaching(bind: SocketAddr) -> Vec<String> {
    let mut addresses = vec![bind.ip()];
    if bind.ip().is_unspecified() {
        let read = |path| {
            let text = std::fs::read_to_string(path).inspect_err(
                |error| tracing::warn!(path, %error, "addresses of this machine are not known: policies must not grant them to sandboxes"),
            );
            text.unwrap_or_default()
        };
        addresses.extend(v4(&read("/proc/net/fib_trie")));
        addresses.extend(v6(&read("/proc/net/if_inet6")));
    }
    addresses.sort_unstable();
    addresses.dedup();
    addresses.into_iter().map(|ip| SocketAddr::new(ip, bind.port()).to_string()).collect()
}

/// The leaves `|-- address` that are followed by `/32 host LOCAL`.
fn v4(trie: &str) -> Vec<IpAddr> {
    let lines: Vec<&str> = trie.lines().map(str::trim).collect();
    lines
        .windows(2)
        .filter(|pair| pair[1].starts_with("/32 host LOCAL"))
        .filter_map(|pair| pair[0].strip_prefix("|-- ")?.parse().ok())
        .collect()
}

/// The first column, 32 hex digits.
fn v6(table: &str) -> Vec<IpAddr> {
    let address = |line: &str| u128::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok();
    table.lines().filter_map(address).map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 127.0.0.1\n        /32 host LOCAL\n     |-- 127.255.255.255\n        /32 link BROADCAST\n     |-- 10.0.2.15\n        /32 host LOCAL\n";
        assert_eq!(v4(trie), ["127.0.0.1".parse::<IpAddr>().unwrap(), "10.0.2.15".parse().unwrap()]);
        assert_eq!(v6("00000000000000000000000000000001 01 80 10 80       lo\n"), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(reaching("0.0.0.0:7".parse().unwrap()).contains(&"127.0.0.1:7".to_owned()));
        assert_eq!(reaching("127.0.0.1:7".parse().unwrap()), ["127.0.0.1:7"]);
    }
}
