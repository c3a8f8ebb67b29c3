//! Policy DNS answers whatever a datagram holds, and only with messages.
#![no_main]

use std::net::Ipv4Addr;

use hickory_proto::op::Message;
use libfuzzer_sys::fuzz_target;
use openshell_supervisor::egress::dns::{Lookup, answer};

fuzz_target!(|query: &[u8]| {
    if let Some(answer) = answer(query, |_| Lookup::Granted(Ipv4Addr::new(198, 18, 1, 0))) {
        let answer = Message::from_vec(&answer.message).expect("an answer is a message");
        assert_eq!(answer.metadata.id.to_be_bytes(), query[..2]);
    }
});
