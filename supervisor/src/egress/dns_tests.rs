use std::net::Ipv4Addr;

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, RecordType},
};
use proptest::prelude::*;

use super::{Lookup, Refused, answer};

const ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 1, 0);

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message.set_edns(Edns::new());
    message.to_vec().unwrap()
}

fn ask(name: &str, kind: RecordType) -> (Message, Option<Refused>) {
    let answer = answer(&query(name, kind), |name| match name {
        "api.example.com" => Lookup::Granted(ADDRESS),
        "full.example.com" => Lookup::Exhausted,
        _ => Lookup::Unknown,
    })
    .unwrap();
    (Message::from_vec(&answer.message).unwrap(), answer.refused)
}

#[test]
fn a_granted_name_has_its_address_and_nothing_else() {
    let (message, refused) = ask("API.Example.com.", RecordType::A);
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert_eq!(message.answers[0].data, RData::A(ADDRESS.into()));
    assert!(message.edns.is_some() && refused.is_none() && message.metadata.id == 7);
    for kind in [RecordType::AAAA, RecordType::HTTPS, RecordType::TXT, RecordType::MX] {
        let (message, _) = ask("api.example.com.", kind);
        assert_eq!((message.metadata.response_code, message.answers.len()), (ResponseCode::NoError, 0), "{kind}");
    }
}

#[test]
fn what_nobody_grants_does_not_exist() {
    for name in ["secret.example.com.", "."] {
        let (message, _) = ask(name, RecordType::A);
        assert_eq!(message.metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    let (_, refused) = ask("secret.example.com.", RecordType::A);
    assert_eq!(refused.unwrap().name, "secret.example.com");
    let (message, _) = ask("full.example.com.", RecordType::A);
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn localhost_is_loopback() {
    let (message, _) = ask("localhost.", RecordType::A);
    assert_eq!(message.answers[0].data, RData::A(Ipv4Addr::LOCALHOST.into()));
    let (message, _) = ask("localhost.", RecordType::AAAA);
    assert_eq!(message.answers.len(), 1);
}

#[test]
fn answers_and_other_operations_are_not_queries() {
    let unknown = |_: &str| Lookup::Unknown;
    let mut reply = query("a.example.", RecordType::A);
    reply[2] |= 0x80;
    assert!(answer(&reply, unknown).is_none(), "an answer to an answer would loop");
    assert!(answer(&[0; 11], unknown).is_none());
    let mut update = query("a.example.", RecordType::A);
    update[2] = 5 << 3;
    let reply = answer(&update, unknown).unwrap();
    assert_eq!(Message::from_vec(&reply.message).unwrap().metadata.response_code, ResponseCode::NotImp);
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = answer(&bytes, |_| Lookup::Granted(ADDRESS));
    }

    #[test]
    fn no_damaged_query_panics(at in 0usize..40, byte in any::<u8>()) {
        let mut bytes = query("api.example.com.", RecordType::A);
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Some(reply) = answer(&bytes, |_| Lookup::Granted(ADDRESS)) {
            prop_assert!(Message::from_vec(&reply.message).is_ok());
        }
    }
}
