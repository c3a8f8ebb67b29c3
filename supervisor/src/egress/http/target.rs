//! What a request is for: its path and query in the one form that is decided and sent.
//!
//! A server must not read another path than the one that was decided, so the path is taken apart
//! (percent-encoding, dot segments, empty segments, parameters) and put together again in a form
//! that every server reads the same way. That form is what goes upstream. What has no such form
//! (an encoded slash, a backslash, an encoding within an encoding) is refused.

use std::fmt::Write as _;

use crate::limits::egress::{PATH_BYTES, QUERY_BYTES, QUERY_PARAMETERS};

/// Why a target is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Too long.
    #[error("the path is longer than {PATH_BYTES} bytes")]
    PathTooLong,
    /// Too long.
    #[error("the query is longer than {QUERY_BYTES} bytes or has more than {QUERY_PARAMETERS} parameters")]
    QueryTooLong,
    /// Neither `/…` nor `*`.
    #[error("the path does not begin with a slash")]
    NotAbsolute,
    /// `%` without two hexadecimal digits.
    #[error("the target holds a `%` that is not followed by two hexadecimal digits")]
    BadEncoding,
    /// An encoding of an encoding.
    #[error("the path is percent-encoded twice")]
    DoubleEncoding,
    /// `%2F`.
    #[error("the path holds an encoded slash (%2F): the endpoint needs `allow_encoded_slash: true` for that")]
    EncodedSlash,
    /// `\`.
    #[error("the path holds a backslash")]
    Backslash,
    /// A control character, a fragment, text that is not UTF-8.
    #[error("the target holds a control character, a `#`, or bytes that are no UTF-8")]
    Character,
}

/// What an encoded slash is to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodedSlash {
    /// Refused.
    Refuse,
    /// Kept as `%2F` (`allow_encoded_slash: true`).
    Keep,
}

/// A path in canonical form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanonicalPath {
    /// Decoded: what is decided and recorded.
    pub text: String,
    /// Encoded: what is sent.
    pub encoded: String,
}

/// Makes a path canonical. `raw` has no query.
pub fn canonical_path(raw: &str, slashes: EncodedSlash) -> Result<CanonicalPath, TargetError> {
    if raw.len() > PATH_BYTES {
        return Err(TargetError::PathTooLong);
    }
    if raw.is_empty() || raw == "*" {
        let text = if raw.is_empty() { "/" } else { "*" };
        return Ok(CanonicalPath { text: text.to_owned(), encoded: text.to_owned() });
    }
    let rest = raw.strip_prefix('/').ok_or(TargetError::NotAbsolute)?;
    let mut segments: Vec<String> = Vec::new();
    let mut directory = false;
    for raw in rest.split('/') {
        let without_parameters = raw.split(';').next().unwrap_or("");
        let segment = decode_segment(without_parameters, slashes)?;
        directory = true;
        match segment.as_str() {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            _ => {
                segments.push(segment);
                directory = false;
            }
        }
    }
    let mut text = String::with_capacity(raw.len());
    let mut encoded = String::with_capacity(raw.len());
    for segment in &segments {
        text.push('/');
        encoded.push('/');
        text.push_str(segment);
        encode_segment(segment, &mut encoded);
    }
    if directory || segments.is_empty() {
        text.push('/');
        encoded.push('/');
    }
    if encoded.len() > PATH_BYTES {
        return Err(TargetError::PathTooLong);
    }
    Ok(CanonicalPath { text, encoded })
}

/// Decodes one segment. A kept slash stays encoded, as `%2F`, and is the only `%` followed by two
/// hexadecimal digits that the result can hold.
fn decode_segment(raw: &str, slashes: EncodedSlash) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut literal_percents = Vec::new();
    let mut input = raw.as_bytes();
    while let [first, rest @ ..] = input {
        input = rest;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let byte = hex_pair(input).ok_or(TargetError::BadEncoding)?;
        input = &input[2..];
        match byte {
            b'/' if slashes == EncodedSlash::Refuse => return Err(TargetError::EncodedSlash),
            b'/' => bytes.extend_from_slice(b"%2F"),
            byte => {
                if byte == b'%' {
                    literal_percents.push(bytes.len());
                }
                bytes.push(byte);
            }
        }
    }
    if literal_percents.iter().any(|at| hex_pair(&bytes[at + 1..]).is_some()) {
        return Err(TargetError::DoubleEncoding);
    }
    let text = String::from_utf8(bytes).map_err(|_| TargetError::Character)?;
    if text.contains('\\') {
        return Err(TargetError::Backslash);
    }
    // A raw `#` cannot come in a request line; an encoded one is a character like any other.
    if text.chars().any(char::is_control) || raw.contains(['#', '?']) || !raw.is_ascii() {
        return Err(TargetError::Character);
    }
    // A server that decodes the slash must not find a way up behind it.
    if slashes == EncodedSlash::Keep && text.contains("%2F") && text.split("%2F").any(|piece| matches!(piece, "." | ".." | "")) {
        return Err(TargetError::EncodedSlash);
    }
    Ok(text)
}

fn hex_pair(bytes: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    match bytes {
        [high, low, ..] => Some((digit(high)? << 4 | digit(low)?) as u8),
        _ => None,
    }
}

/// RFC 3986, 3.3: unreserved characters and those with no meaning in a segment stay as they are.
fn encode_segment(segment: &str, out: &mut String) {
    let mut rest = segment;
    while let Some(c) = rest.chars().next() {
        if let Some(after) = rest.strip_prefix("%2F") {
            out.push_str("%2F");
            rest = after;
            continue;
        }
        rest = &rest[c.len_utf8()..];
        if c.is_ascii_alphanumeric() || "-._~!$&'()*+,=:@".contains(c) {
            out.push(c);
        } else {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
}

/// The parameters of a query, decoded, in their order (the URL standard's form encoding). What is
/// sent is the query as it came.
pub fn query_parameters(raw: &str) -> Result<Vec<(String, String)>, TargetError> {
    if raw.len() > QUERY_BYTES {
        return Err(TargetError::QueryTooLong);
    }
    if !raw.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#') {
        return Err(TargetError::Character);
    }
    let mut parameters = Vec::new();
    for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
        if parameters.len() == QUERY_PARAMETERS {
            return Err(TargetError::QueryTooLong);
        }
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        parameters.push((decode_parameter(key)?, decode_parameter(value)?));
    }
    Ok(parameters)
}

fn decode_parameter(raw: &str) -> Result<String, TargetError> {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut input = raw.as_bytes();
    while let [first, rest @ ..] = input {
        input = rest;
        match first {
            b'+' => bytes.push(b' '),
            b'%' => {
                bytes.push(hex_pair(input).ok_or(TargetError::BadEncoding)?);
                input = &input[2..];
            }
            byte => bytes.push(*byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| TargetError::Character)
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
