use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use proptest::prelude::*;

use super::{Forbidden, ForbiddenHost, Kind, check, kind};

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn what_is_never_dialled() {
    for address in [
        "0.0.0.0",
        "0.1.2.3",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.1.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "100.100.100.200",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "fd00:ec2::254",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "::127.0.0.1",
    ] {
        let everything: [IpNet; 2] = ["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()];
        assert!(matches!(kind(ip(address)), Kind::Never(_)), "{address}: {:?}", kind(ip(address)));
        assert!(check(ip(address), &everything).is_err(), "{address} even when everything is listed");
    }
}

#[test]
fn what_needs_allowed_ips() {
    for (address, net) in [
        ("10.1.2.3", "10.0.0.0/8"),
        ("172.31.0.1", "172.16.0.0/12"),
        ("192.168.1.1", "192.168.1.0/24"),
        ("100.64.0.1", "100.64.0.0/10"),
        ("192.0.2.2", "192.0.2.2/32"),
        ("198.51.100.1", "198.51.100.0/24"),
        ("203.0.113.9", "203.0.113.0/24"),
        ("198.19.0.1", "198.18.0.0/15"),
        ("240.0.0.1", "240.0.0.0/4"),
        ("fd00::2", "fd00::/64"),
        ("2001:db8::1", "2001:db8::/32"),
        ("2001::1", "2001::/32"),
        ("64:ff9b:1::1", "64:ff9b:1::/48"),
        ("::ffff:10.0.0.1", "10.0.0.0/8"),
        ("64:ff9b::a00:1", "10.0.0.0/8"),
        ("2002:a00:1::1", "10.0.0.0/8"),
    ] {
        assert!(matches!(kind(ip(address)), Kind::Special(_)), "{address}: {:?}", kind(ip(address)));
        let blocked = check(ip(address), &[]).unwrap_err();
        assert!(blocked.to_string().contains("allowed_ips does not list"), "{blocked}");
        assert_eq!(check(ip(address), &[net.parse().unwrap()]), Ok(()), "{address} in {net}");
        assert!(check(ip(address), &["11.0.0.0/8".parse().unwrap()]).is_err());
    }
}

#[test]
fn public_addresses_pass_unless_the_endpoint_lists_others() {
    for address in ["1.1.1.1", "140.82.121.4", "2606:4700::1111", "64:ff9b::101:101"] {
        assert_eq!(check(ip(address), &[]), Ok(()), "{address}");
    }
    assert!(check(ip("1.1.1.1"), &["10.0.0.0/8".parse().unwrap()]).is_err(), "allowed_ips is the whole list");
}

#[test]
fn forbidden_destinations_are_read_in_every_form() {
    let address = |text: &str, port| Some(Forbidden { host: ForbiddenHost::Address(ip(text)), port });
    assert_eq!(Forbidden::parse("192.0.2.2"), address("192.0.2.2", None));
    assert_eq!(Forbidden::parse("192.0.2.2:17670"), address("192.0.2.2", Some(17670)));
    assert_eq!(Forbidden::parse("[::1]:443"), address("::1", Some(443)));
    assert_eq!(Forbidden::parse("::ffff:10.0.0.1"), address("10.0.0.1", None));
    let name = Forbidden { host: ForbiddenHost::Name("gateway.example".into()), port: Some(443) };
    assert_eq!(Forbidden::parse("Gateway.Example.:443"), Some(name));
    assert_eq!(Forbidden::parse("a b"), None);
    assert_eq!(Forbidden::parse("host:port"), None);
    assert_eq!(Forbidden::parse(""), None);
}

proptest! {
    /// However an IPv4 address is dressed, it is judged the same.
    #[test]
    fn an_ipv4_address_cannot_be_dressed_up(bits in any::<u32>()) {
        let v4 = Ipv4Addr::from_bits(bits);
        let s = v4.to_ipv6_mapped().segments();
        for dressed in [
            IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::from([0x64, 0xff9b, 0, 0, 0, 0, s[6], s[7]]),
            IpAddr::from([0x2002, s[6], s[7], 0, 0, 0, 0, 1]),
        ] {
            prop_assert_eq!(kind(dressed), kind(IpAddr::V4(v4)));
        }
    }
}
