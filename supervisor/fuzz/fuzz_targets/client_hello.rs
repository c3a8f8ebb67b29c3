//! The server name of a ClientHello, as rustls reads it or not at all.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openshell_supervisor::egress::hello::{Hello, parse};

fuzz_target!(|bytes: &[u8]| {
    let Hello::Complete { server_name, .. } = parse(bytes) else { return };
    let mut acceptor = rustls::server::Acceptor::default();
    let mut input = bytes;
    while !input.is_empty() && acceptor.read_tls(&mut input).is_ok() {
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let theirs = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                // rustls drops names that are none; a name it has is the name we have.
                assert!(theirs.is_none() || theirs == server_name);
                return;
            }
            Ok(None) => {}
            Err(_) => return,
        }
    }
});
