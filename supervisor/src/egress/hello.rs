//! The server name of a TLS ClientHello that is passed through and not terminated.
//!
//! Only as much is parsed as it takes to find two extensions (RFC 8446, 4.1.2; RFC 6066, 3; the
//! encrypted hello of RFC 9849). The bytes come from the agent: every length is checked against
//! what is there, nothing is copied but the name, and nothing here can panic.

use crate::limits::egress::CLIENT_HELLO_BYTES;

/// What the first bytes of a connection are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// Not enough of them yet.
    Incomplete,
    /// No ClientHello, or a broken one.
    Invalid,
    /// A whole ClientHello.
    Complete {
        /// The name that the client asks for, lower case.
        server_name: Option<String>,
        /// The real name may be encrypted.
        encrypted: bool,
    },
}

/// Reads a ClientHello from the first bytes of a connection.
pub fn parse(bytes: &[u8]) -> Hello {
    let mut handshake = Vec::new();
    let mut rest = bytes;
    loop {
        // A record: type 22, version 3.x, length.
        let Some((head, tail)) = rest.split_first_chunk::<5>() else {
            return unfinished(rest, bytes);
        };
        let length = usize::from(u16::from_be_bytes([head[3], head[4]]));
        // RFC 8446, 5.1: fragments are not empty and not over 2^14.
        if head[0] != 22 || head[1] != 3 || length == 0 || length > 1 << 14 {
            return Hello::Invalid;
        }
        let here = &tail[..length.min(tail.len())];
        handshake.extend_from_slice(here);
        if let Some(hello) = whole(&handshake) {
            return hello;
        }
        if tail.len() < length || bytes.len() > CLIENT_HELLO_BYTES {
            return unfinished(rest, bytes);
        }
        rest = &tail[length..];
    }
}

/// More bytes are wanted, unless those that are there cannot begin a record or are too many.
fn unfinished(rest: &[u8], all: &[u8]) -> Hello {
    let possible = rest.first().is_none_or(|kind| *kind == 22) && rest.get(1).is_none_or(|major| *major == 3);
    if possible && all.len() <= CLIENT_HELLO_BYTES { Hello::Incomplete } else { Hello::Invalid }
}

/// The handshake message, once all of it is there.
fn whole(handshake: &[u8]) -> Option<Hello> {
    let (head, body) = handshake.split_first_chunk::<4>()?;
    let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    if head[0] != 1 || length > CLIENT_HELLO_BYTES {
        return Some(Hello::Invalid);
    }
    let body = body.get(..length)?;
    Some(client_hello(body).unwrap_or(Hello::Invalid))
}

fn client_hello(body: &[u8]) -> Option<Hello> {
    // Version and random.
    let mut input = Input(body.get(34..)?);
    input.vector8()?; // session id
    input.vector16()?; // cipher suites
    input.vector8()?; // compression methods
    let mut server_name = None;
    let mut encrypted = false;
    if !input.0.is_empty() {
        let mut extensions = Input(input.vector16()?);
        while !extensions.0.is_empty() {
            let kind = extensions.number16()?;
            let data = extensions.vector16()?;
            match kind {
                0 if server_name.is_some() => return None,
                0 => server_name = Some(host_name(data)?),
                0xfe0d => encrypted = true,
                _ => {}
            }
        }
    }
    input.0.is_empty().then_some(Hello::Complete { server_name, encrypted })
}

fn host_name(data: &[u8]) -> Option<String> {
    let mut outer = Input(data);
    let mut list = Input(outer.vector16()?);
    let (kind, rest) = list.0.split_first()?;
    list.0 = rest;
    let name = list.vector16()?;
    // One entry of the one type there is.
    if *kind != 0 || !list.0.is_empty() || !outer.0.is_empty() || name.is_empty() || name.len() > 255 || !name.is_ascii() {
        return None;
    }
    String::from_utf8(name.to_ascii_lowercase()).ok()
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number16(&mut self) -> Option<u16> {
        self.take(2).map(|bytes| u16::from_be_bytes([bytes[0], bytes[1]]))
    }

    fn vector8(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(*self.take(1)?.first()?);
        self.take(count)
    }

    fn vector16(&mut self) -> Option<&'a [u8]> {
        let count = usize::from(self.number16()?);
        self.take(count)
    }
}

#[cfg(test)]
#[path = "hello_tests.rs"]
mod tests;
