//! Policy DNS: answers only names that a rule could grant.
//!
//! Nothing is ever forwarded: an answer is made of a synthetic address, so a lookup cannot carry
//! data out. A name nobody grants does not exist (NXDOMAIN). `A` has the synthetic address; every
//! other type of a name that exists has no data, `AAAA` included, so clients go on with IPv4.
//! `localhost` is loopback (RFC 6761). Input that is no query is dropped, broken queries get
//! FORMERR where there is enough of a header to answer.

use std::net::{Ipv4Addr, Ipv6Addr};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, ResponseCode},
    rr::{DNSClass, Name, RData, Record, RecordType},
};

use super::names::Exhausted;
use crate::limits::egress::{DNS_MESSAGE_BYTES, DNS_TTL_SECONDS};

/// What policy DNS knows about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// A rule could grant it.
    Granted(Ipv4Addr),
    /// No rule grants it.
    Unknown,
    /// There are no addresses left.
    Exhausted,
}

impl From<Result<Ipv4Addr, Exhausted>> for Lookup {
    fn from(result: Result<Ipv4Addr, Exhausted>) -> Self {
        result.map_or(Self::Exhausted, Self::Granted)
    }
}

/// An answer, and what is worth recording about it.
#[derive(Debug)]
pub struct Answer {
    /// The message to send back.
    pub message: Vec<u8>,
    /// The name that was refused, if one was.
    pub refused: Option<Refused>,
}

/// A lookup that was refused.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused {
    /// The name that was asked for.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

/// Answers one message. `lookup` gets names in lower case without a trailing dot.
pub fn answer(query: &[u8], lookup: impl FnOnce(&str) -> Lookup) -> Option<Answer> {
    // Two bytes of id, two of flags: below that there is nobody to answer. QR set: no query.
    if query.len() < 12 || query.len() > DNS_MESSAGE_BYTES || query[2] & 0x80 != 0 {
        return None;
    }
    let id = u16::from_be_bytes([query[0], query[1]]);
    let Ok(request) = Message::from_vec(query) else {
        return error(id, OpCode::Query, ResponseCode::FormErr);
    };
    if request.metadata.op_code != OpCode::Query {
        return error(id, request.metadata.op_code, ResponseCode::NotImp);
    }
    let [question] = request.queries.as_slice() else {
        return error(id, OpCode::Query, ResponseCode::FormErr);
    };
    let mut reply = Message::new(id, MessageType::Response, OpCode::Query);
    reply.metadata.recursion_desired = request.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.add_query(question.clone());
    if request.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(1232);
        reply.set_edns(edns);
    }
    let mut refused = None;
    match host_name(question.name()) {
        _ if question.query_class() != DNSClass::IN => reply.metadata.response_code = ResponseCode::Refused,
        None => reply.metadata.response_code = ResponseCode::NXDomain,
        Some(name) if name == "localhost" || name.ends_with(".localhost") => {
            let data = match question.query_type() {
                RecordType::A => Some(RData::A(Ipv4Addr::LOCALHOST.into())),
                RecordType::AAAA => Some(RData::AAAA(Ipv6Addr::LOCALHOST.into())),
                _ => None,
            };
            reply.add_answers(data.map(|data| Record::from_rdata(question.name().clone(), DNS_TTL_SECONDS, data)));
        }
        Some(name) => match lookup(&name) {
            Lookup::Granted(address) if question.query_type() == RecordType::A => {
                reply.add_answer(Record::from_rdata(question.name().clone(), DNS_TTL_SECONDS, RData::A(address.into())));
            }
            Lookup::Granted(_) => {}
            Lookup::Unknown => {
                reply.metadata.response_code = ResponseCode::NXDomain;
                refused = Some(Refused { name, reason: "no policy grants this name" });
            }
            Lookup::Exhausted => {
                reply.metadata.response_code = ResponseCode::ServFail;
                refused = Some(Refused { name, reason: "policy DNS has no addresses left" });
            }
        },
    }
    let message = reply.to_vec().ok()?;
    Some(Answer { message, refused })
}

fn error(id: u16, op_code: OpCode, code: ResponseCode) -> Option<Answer> {
    let message = Message::error_msg(id, op_code, code).to_vec().ok()?;
    Some(Answer { message, refused: None })
}

/// The name as a host name, in lower case; `None` if it could be none.
fn host_name(name: &Name) -> Option<String> {
    let mut text = String::with_capacity(name.len());
    for label in name {
        if label.is_empty() || !label.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')) {
            return None;
        }
        if !text.is_empty() {
            text.push('.');
        }
        text.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
#[path = "dns_tests.rs"]
mod tests;
