use std::sync::Arc;

use proptest::prelude::*;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::{Hello, parse};

/// A real client's first flight.
fn hello(name: &str) -> Vec<u8> {
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls_pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut bytes = Vec::new();
    connection.write_tls(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_real_hello_is_read_and_every_prefix_of_it_is_incomplete() {
    let bytes = hello("Api.Example.com");
    assert_eq!(parse(&bytes), Hello::Complete { server_name: Some("api.example.com".into()), encrypted: false });
    for end in 0..bytes.len() {
        assert_eq!(parse(&bytes[..end]), Hello::Incomplete, "{end}");
    }
    assert_eq!(parse(&hello("192.0.2.1")), Hello::Complete { server_name: None, encrypted: false });
}

#[test]
fn a_hello_over_several_records_is_put_together() {
    let bytes = hello("api.example.com");
    let body = &bytes[5..];
    let mut records = Vec::new();
    for part in body.chunks(7) {
        records.extend_from_slice(&[22, 3, 1, 0, part.len() as u8]);
        records.extend_from_slice(part);
    }
    assert_eq!(parse(&records), parse(&bytes));
}

#[test]
fn an_encrypted_hello_is_noticed() {
    let mut bytes = hello("api.example.com");
    // An empty extension of type encrypted_client_hello at the end, all three lengths raised.
    bytes.extend_from_slice(&[0xfe, 0x0d, 0, 0]);
    let session = usize::from(bytes[43]);
    let suites = usize::from(u16::from_be_bytes([bytes[44 + session], bytes[45 + session]]));
    let extensions = 46 + session + suites + 2;
    for at in [3, 7, extensions] {
        let raised = u16::from_be_bytes([bytes[at], bytes[at + 1]]) + 4;
        bytes[at..at + 2].copy_from_slice(&raised.to_be_bytes());
    }
    assert_eq!(parse(&bytes), Hello::Complete { server_name: Some("api.example.com".into()), encrypted: true });
}

#[test]
fn other_protocols_are_not_waited_for() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-x",
        &[22, 2, 0, 0, 1],
        &[21, 3, 1, 0, 2, 1, 0],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0xff, 0xff, 1],
    ] {
        assert_eq!(parse(bytes), Hello::Invalid, "{bytes:?}");
    }
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = parse(&bytes);
    }

    #[test]
    fn no_damaged_hello_panics(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = hello("api.example.com");
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = parse(&bytes);
    }
}
