use std::net::SocketAddr;

use proptest::prelude::*;

use super::{
    address::{Address, Family, canonical, encode, is_loopback},
    answer::Errno,
    caller::socket_inode,
    sources::Sources,
};
use crate::limits::broker::SENDERS;

#[test]
fn addresses_in_the_kernels_layout() {
    let v4: SocketAddr = "192.0.2.7:443".parse().unwrap();
    assert_eq!(Address::parse(&encode(v4, Family::V4)), Ok(Address::Internet(v4)));
    let mapped: SocketAddr = "[::ffff:192.0.2.7]:443".parse().unwrap();
    assert_eq!(Address::parse(&encode(v4, Family::V6)), Ok(Address::Internet(mapped)));
    assert_eq!(canonical(mapped), v4);
    assert_eq!(Address::parse(&[0, 0]), Ok(Address::Unspecified));
    assert_eq!(Address::parse(&[2]), Err(Errno(libc::EINVAL)));
    assert_eq!(Address::parse(&[2, 0, 0, 80, 127, 0, 0, 1]), Err(Errno(libc::EINVAL)), "a short sockaddr_in");
    assert_eq!(Address::parse(b"\x01\0/tmp/x\0rest"), Ok(Address::Path(b"/tmp/x".to_vec())));
    assert_eq!(Address::parse(b"\x01\0\0name"), Ok(Address::Abstract(b"name".to_vec())));
    assert_eq!(Address::parse(b"\x01\0"), Ok(Address::Path(Vec::new())));
}

#[test]
fn every_notation_of_loopback() {
    for text in ["127.0.0.1", "127.9.8.7", "0.0.0.0", "0.1.2.3", "::1", "::", "::ffff:127.0.0.1", "::ffff:0.0.0.0"] {
        assert!(is_loopback(text.parse().unwrap()), "{text}");
    }
    for text in ["128.0.0.1", "192.0.2.1", "::2", "::ffff:192.0.2.1", "fe80::1", "169.254.169.254"] {
        assert!(!is_loopback(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn sockets_by_inode() {
    assert_eq!(socket_inode("socket:[4711]"), Some(4711));
    assert_eq!(socket_inode("/tmp/socket:[4711]"), None);
    assert_eq!(socket_inode("pipe:[4711]"), None);
}

#[test]
fn senders_are_bounded_whatever_is_read_without_us() {
    let source: SocketAddr = "127.0.0.1:7".parse().unwrap();
    let mut sources = Sources::default();
    for _ in 0..100_000 {
        // One byte waits, as after a plain read of the one before.
        sources.sync(1);
        sources.push(source, 1);
    }
    assert!(sources.len() <= 2, "{}", sources.len());
    for _ in 0..100_000 {
        // Without bytes nothing tells that it was read.
        sources.sync(0);
        sources.push(source, 0);
    }
    assert_eq!(sources.len(), SENDERS);
    sources.sync(0);
    assert_eq!((sources.peek(), sources.pop()), (Some(source), Some(source)));
}

proptest! {
    #[test]
    fn any_bytes_are_an_address_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..=128)) {
        let _ = Address::parse(&bytes);
    }

    #[test]
    fn an_address_survives(ip in any::<std::net::Ipv6Addr>(), port in any::<u16>()) {
        let address = SocketAddr::new(ip.into(), port);
        prop_assert_eq!(Address::parse(&encode(address, Family::V6)), Ok(Address::Internet(address)));
    }
}
