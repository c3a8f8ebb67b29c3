//! The framing of requests, held to the letter of RFC 9112 before a parser sees them.
//!
//! A request that two parsers could cut in different places is how one request is smuggled behind
//! another. hyper parses what the agent sends and writes what goes upstream, so the server
//! sees hyper's reading of it; this lint makes sure that there is only one reading to begin with. It
//! follows the bytes of a connection, keeps no body, and refuses at the first byte that is not
//! strictly right. What it lets through hyper reads the same way: that is tested.

use crate::limits::egress::{HEAD_BYTES, HEADERS};

/// Bytes of the trailer section after a chunked body.
const TRAILER_BYTES: usize = 16 * 1024;

/// What is wrong with a request's framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// LF without CR, CR without LF, NUL and the like.
    #[error("a line of the request does not end in CRLF, or holds a control character")]
    Line,
    /// The first line.
    #[error("the request line is not `METHOD target HTTP/1.1`")]
    RequestLine,
    /// HTTP/2 with prior knowledge.
    #[error("HTTP/2 is not spoken here: use HTTP/1.1")]
    Http2,
    /// A field name that is none, or space before its colon.
    #[error("a header field has no valid name, or space before its colon")]
    FieldName,
    /// A value over several lines.
    #[error("a header field is folded over several lines")]
    Folded,
    /// Not exactly one Host.
    #[error("the request has no Host field, or more than one")]
    Host,
    /// Content-Length that is not one number.
    #[error("Content-Length is not one decimal number")]
    Length,
    /// Transfer-Encoding other than `chunked`.
    #[error("Transfer-Encoding is not exactly `chunked`, or stands in an HTTP/1.0 request")]
    Encoding,
    /// Both of them.
    #[error("the request has both Content-Length and Transfer-Encoding")]
    Both,
    /// `Connection` names a field that frames or addresses the message.
    #[error("the Connection field names a field that frames or addresses the request")]
    Connection,
    /// A chunk's size line.
    #[error("a chunk of the body is not a plain hexadecimal size and its bytes")]
    Chunk,
    /// Too much of anything.
    #[error("the head of the request is too large")]
    TooLarge,
}

/// Follows one connection.
#[derive(Debug)]
pub struct Lint {
    state: State,
    line: Vec<u8>,
    head: Head,
}

#[derive(Debug)]
enum State {
    /// Before a request: the empty line that some clients send after a body is let through.
    Start {
        empty_lines: u8,
    },
    Fields,
    Body {
        left: u64,
    },
    ChunkSize,
    ChunkData {
        left: u64,
    },
    ChunkEnd {
        seen: u8,
    },
    Trailers,
    Failed(Violation),
}

#[derive(Debug, Default)]
struct Head {
    bytes: usize,
    fields: usize,
    http_10: bool,
    hosts: usize,
    length: Option<u64>,
    chunked: bool,
}

impl Default for Lint {
    fn default() -> Self {
        Self { state: State::Start { empty_lines: 0 }, line: Vec::new(), head: Head::default() }
    }
}

impl Lint {
    /// Whether the next byte belongs to a new request.
    pub fn is_between_requests(&self) -> bool {
        matches!(self.state, State::Start { .. }) && self.line.is_empty()
    }

    /// Follows further bytes. After an error every call fails.
    pub fn feed(&mut self, mut bytes: &[u8]) -> Result<(), Violation> {
        while !bytes.is_empty() {
            let used = match self.step(bytes) {
                Ok(used) => used,
                Err(violation) => {
                    self.state = State::Failed(violation);
                    return Err(violation);
                }
            };
            bytes = &bytes[used..];
        }
        if let State::Failed(violation) = self.state { Err(violation) } else { Ok(()) }
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        match &mut self.state {
            State::Failed(violation) => Err(*violation),
            State::Body { left } | State::ChunkData { left } => {
                let used = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= used as u64;
                if *left == 0 {
                    self.state = if matches!(self.state, State::Body { .. }) {
                        State::Start { empty_lines: 0 }
                    } else {
                        State::ChunkEnd { seen: 0 }
                    };
                }
                Ok(used)
            }
            State::ChunkEnd { seen } => {
                if bytes[0] != b"\r\n"[usize::from(*seen)] {
                    return Err(Violation::Chunk);
                }
                *seen += 1;
                if *seen == 2 {
                    self.state = State::ChunkSize;
                }
                Ok(1)
            }
            State::Start { .. } | State::Fields | State::ChunkSize | State::Trailers => self.collect(bytes),
        }
    }

    /// Collects one line.
    fn collect(&mut self, bytes: &[u8]) -> Result<usize, Violation> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let used = end.map_or(bytes.len(), |end| end + 1);
        let limit = match self.state {
            State::ChunkSize => 32,
            State::Trailers => TRAILER_BYTES,
            _ => HEAD_BYTES,
        };
        self.head.bytes += used;
        self.line.extend_from_slice(&bytes[..used]);
        // Known before the line is complete, and it may never be; said before whatever else is
        // wrong with it, so that the answer does not depend on how the bytes arrive.
        if matches!(self.state, State::Start { .. }) && self.line.starts_with(b"PRI * HTTP/2") {
            return Err(Violation::Http2);
        }
        if self.head.bytes > limit {
            return Err(if matches!(self.state, State::ChunkSize) { Violation::Chunk } else { Violation::TooLarge });
        }
        if end.is_none() {
            return Ok(used);
        }
        let line = std::mem::take(&mut self.line);
        let text = line.strip_suffix(b"\r\n").ok_or(Violation::Line)?;
        if text.iter().any(|byte| (*byte < b' ' && *byte != b'\t') || *byte == 0x7f) {
            return Err(Violation::Line);
        }
        self.take_line(text)?;
        // The buffer is kept for the next line.
        self.line = line;
        self.line.clear();
        Ok(used)
    }

    fn take_line(&mut self, text: &[u8]) -> Result<(), Violation> {
        match &mut self.state {
            State::Start { empty_lines } => {
                if text.is_empty() {
                    *empty_lines += 1;
                    self.head.bytes = 0;
                    return if *empty_lines > 1 { Err(Violation::RequestLine) } else { Ok(()) };
                }
                self.head = Head { bytes: self.head.bytes, http_10: request_line(text)?, ..Head::default() };
                self.state = State::Fields;
                Ok(())
            }
            State::Fields if text.is_empty() => self.end_of_head(),
            State::Fields => {
                self.head.fields += 1;
                if self.head.fields > HEADERS {
                    return Err(Violation::TooLarge);
                }
                self.head.field(text)
            }
            State::ChunkSize => {
                let size = chunk_size(text)?;
                self.head.bytes = 0;
                self.state = if size == 0 { State::Trailers } else { State::ChunkData { left: size } };
                Ok(())
            }
            State::Trailers if text.is_empty() => {
                self.state = State::Start { empty_lines: 0 };
                self.head.bytes = 0;
                Ok(())
            }
            State::Trailers => {
                let (name, _) = split_field(text)?;
                if frames(name) { Err(Violation::Encoding) } else { Ok(()) }
            }
            State::Body { .. } | State::ChunkData { .. } | State::ChunkEnd { .. } | State::Failed(_) => Ok(()),
        }
    }

    fn end_of_head(&mut self) -> Result<(), Violation> {
        let head = std::mem::take(&mut self.head);
        if head.hosts > 1 || (head.hosts == 0 && !head.http_10) {
            return Err(Violation::Host);
        }
        self.state = match (head.chunked, head.length) {
            (true, Some(_)) => return Err(Violation::Both),
            (true, None) if head.http_10 => return Err(Violation::Encoding),
            (true, None) => State::ChunkSize,
            (false, Some(left)) if left > 0 => State::Body { left },
            (false, _) => State::Start { empty_lines: 0 },
        };
        Ok(())
    }
}

impl Head {
    fn field(&mut self, text: &[u8]) -> Result<(), Violation> {
        if matches!(text.first(), Some(b' ' | b'\t')) {
            return Err(Violation::Folded);
        }
        let (name, value) = split_field(text)?;
        if name.eq_ignore_ascii_case(b"host") {
            self.hosts += 1;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            // 19 digits fit into 64 bits.
            let valid = !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit) && self.length.is_none();
            let length = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).filter(|_| valid);
            self.length = Some(length.ok_or(Violation::Length)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Violation::Encoding);
            }
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"connection") && value.split(|byte| *byte == b',').any(|option| frames(option.trim_ascii())) {
            return Err(Violation::Connection);
        }
        Ok(())
    }
}

/// Fields that frame or address a message.
fn frames(name: &[u8]) -> bool {
    [&b"host"[..], b"content-length", b"transfer-encoding"].iter().any(|framing| name.eq_ignore_ascii_case(framing))
}

/// Whether it is HTTP/1.0.
fn request_line(text: &[u8]) -> Result<bool, Violation> {
    let mut words = text.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) = (words.next(), words.next(), words.next(), words.next()) else {
        return Err(Violation::RequestLine);
    };
    if version.starts_with(b"HTTP/2") {
        return Err(Violation::Http2);
    }
    let valid = !method.is_empty()
        && method.len() <= 32
        && method.iter().all(|byte| is_token(*byte))
        && !target.is_empty()
        && target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    match version {
        b"HTTP/1.1" if valid => Ok(false),
        b"HTTP/1.0" if valid => Ok(true),
        _ => Err(Violation::RequestLine),
    }
}

fn split_field(text: &[u8]) -> Result<(&[u8], &[u8]), Violation> {
    let colon = text.iter().position(|byte| *byte == b':').ok_or(Violation::FieldName)?;
    let name = &text[..colon];
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
        return Err(Violation::FieldName);
    }
    Ok((name, text[colon + 1..].trim_ascii()))
}

/// Extensions (RFC 9112, 7.1.1) mean nothing to anybody and are where parsers differ.
fn chunk_size(text: &[u8]) -> Result<u64, Violation> {
    let valid = !text.is_empty() && text.len() <= 15 && text.iter().all(u8::is_ascii_hexdigit);
    let digits = std::str::from_utf8(text).ok().filter(|_| valid).ok_or(Violation::Chunk)?;
    u64::from_str_radix(digits, 16).map_err(|_| Violation::Chunk)
}

/// RFC 9110, 5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
