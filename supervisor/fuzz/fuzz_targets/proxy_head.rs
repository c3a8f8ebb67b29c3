//! The first request of a client of the explicit proxy.
#![no_main]

use libfuzzer_sys::fuzz_target;
use openshell_supervisor::egress::proxy::{Head, parse_head};

fuzz_target!(|bytes: &[u8]| {
    if let Head::Connect { destination, length } = parse_head(bytes) {
        assert!(length <= bytes.len() && destination.port != 0 && !destination.host.is_empty());
        // What was read without the rest is read the same.
        assert_eq!(parse_head(&bytes[..length]), Head::Connect { destination, length });
    }
});
