//! Host names and patterns over them.
//!
//! A pattern is compared label by label, in any case. `*` is exactly one label; it may be a part of
//! the first label (`api-*`), the whole first label, or a whole middle label. `**` is one or more
//! labels and only the whole first label. A pattern keeps at least two labels without a wildcard, so
//! that nobody grants a whole top-level domain. IP literals match only themselves.

use std::borrow::Cow;
use std::net::IpAddr;

#[cfg(test)]
mod tests;

/// Longest DNS name (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;
/// Longest label of it.
const MAX_LABEL: usize = 63;

/// One spelling for a host: lower case, no trailing dot, IP literals as the standard library writes
/// them (without brackets, mapped IPv4 addresses as IPv4).
pub fn canonical_host(host: &str) -> Cow<'_, str> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    if (bare.contains(':') || bare.as_bytes().first().is_some_and(u8::is_ascii_digit))
        && let Ok(address) = bare.parse::<IpAddr>()
    {
        let text = address.to_canonical().to_string();
        return if text == host { Cow::Borrowed(host) } else { Cow::Owned(text) };
    }
    let name = host.strip_suffix('.').unwrap_or(host);
    if name.bytes().any(|b| b.is_ascii_uppercase()) { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) }
}

/// A host of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// A name without wildcards, in lower case.
    Name(String),
    /// An IP literal.
    Address(IpAddr),
    /// Labels from left to right.
    Wildcard(Vec<Label>),
}

/// One label of a wildcard pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Label {
    /// Exactly this.
    Literal(String),
    /// Any one label.
    One,
    /// One or more labels; only the first of a pattern.
    Deep,
    /// One label of this shape: literal pieces with anything between them.
    Partial(String),
}

/// Why a host is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// Nothing there.
    #[error("is empty; name a host, or give `allowed_ips` for any host that resolves into them")]
    Empty,
    /// Longer than DNS permits.
    #[error("has {0} characters; a host name has at most {MAX_NAME}")]
    TooLong(usize),
    /// A label is empty, too long or has characters that no name has.
    #[error(
        "label `{0}` is not valid: use 1 to 63 letters, digits, `-` or `_`; write other scripts in their `xn--` form and leave out scheme, port and path"
    )]
    BadLabel(String),
    /// A wildcard where none may be.
    #[error(
        "wildcard `{0}` is not possible here: `*` may be (part of) the first label or a whole middle label, `**` only the whole first label"
    )]
    BadWildcard(String),
    /// Covers a top-level domain or everything.
    #[error("covers a whole top-level domain or everything; keep at least two labels without a wildcard, as in `*.example.com`")]
    TooBroad,
    /// Ends in a number, which no name does (RFC 3696, section 2).
    #[error("ends in a number, but is no IP address")]
    BadAddress,
    /// Ends in a dot.
    #[error("ends in a dot; leave it out")]
    TrailingDot,
}

impl HostPattern {
    /// Reads a host of an endpoint.
    pub fn parse(text: &str) -> Result<Self, HostError> {
        if text.is_empty() {
            return Err(HostError::Empty);
        }
        let host = canonical_host(text);
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(Self::Address(address));
        }
        if text.ends_with('.') {
            return Err(HostError::TrailingDot);
        }
        if host.len() > MAX_NAME {
            return Err(HostError::TooLong(host.len()));
        }
        let words: Vec<&str> = host.split('.').collect();
        if words.last().is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit())) {
            return Err(HostError::BadAddress);
        }
        let mut labels = Vec::with_capacity(words.len());
        for (i, word) in words.iter().enumerate() {
            labels.push(parse_label(word, i == 0, i + 1 == words.len())?);
        }
        let literals = labels.iter().filter(|l| matches!(l, Label::Literal(_))).count();
        if literals == labels.len() {
            return Ok(Self::Name(host.into_owned()));
        }
        if literals < 2 {
            return Err(HostError::TooBroad);
        }
        Ok(Self::Wildcard(labels))
    }

    /// Whether it covers this host, which is in canonical form ([`canonical_host`]).
    pub fn matches(&self, host: &str) -> bool {
        match self {
            Self::Name(name) => name == host,
            Self::Address(address) => host.parse::<IpAddr>().is_ok_and(|h| h == *address),
            Self::Wildcard(labels) => wildcard_matches(labels, host),
        }
    }

    /// Whether some host is covered by both.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(a), Self::Name(b)) => a == b,
            (Self::Address(a), Self::Address(b)) => a == b,
            (Self::Name(name), wildcard @ Self::Wildcard(_)) | (wildcard @ Self::Wildcard(_), Self::Name(name)) => wildcard.matches(name),
            (Self::Address(_), _) | (_, Self::Address(_)) => false,
            (Self::Wildcard(a), Self::Wildcard(b)) => wildcards_overlap(a, b),
        }
    }

    /// The same pattern as an anchored regular expression over canonical hosts.
    pub(crate) fn to_regex(&self) -> String {
        let literal = |text: &str| text.replace('.', "\\.").replace('-', "\\-");
        let labels = match self {
            Self::Name(name) => literal(name),
            Self::Address(address) => literal(&address.to_string()),
            Self::Wildcard(labels) => {
                let label = |l: &Label| match l {
                    Label::Literal(text) => literal(text),
                    Label::One => "[^.]+".to_owned(),
                    Label::Deep => "[^.]+(?:\\.[^.]+)*".to_owned(),
                    Label::Partial(shape) => literal(shape).replace('*', "[^.]*"),
                };
                labels.iter().map(label).collect::<Vec<_>>().join("\\.")
            }
        };
        format!("\\A{labels}\\z")
    }

    /// The labels without a wildcard at its end: every host it covers ends in them.
    pub(crate) fn literal_suffix(&self) -> Option<String> {
        match self {
            Self::Wildcard(labels) => {
                let tail: Vec<&str> =
                    labels.iter().rev().map_while(|l| if let Label::Literal(text) = l { Some(text.as_str()) } else { None }).collect();
                Some(tail.into_iter().rev().collect::<Vec<_>>().join("."))
            }
            Self::Name(_) | Self::Address(_) => None,
        }
    }
}

fn parse_label(word: &str, first: bool, last: bool) -> Result<Label, HostError> {
    if word.is_empty() || word.len() > MAX_LABEL || !word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'*')) {
        return Err(HostError::BadLabel(word.to_owned()));
    }
    match word {
        "*" | "**" if first && last => Err(HostError::TooBroad),
        "**" if first => Ok(Label::Deep),
        "*" if !last => Ok(Label::One),
        _ if !word.contains('*') => Ok(Label::Literal(word.to_owned())),
        _ if first && !last && !word.contains("**") => Ok(Label::Partial(word.to_owned())),
        _ if first && last => Err(HostError::TooBroad),
        _ => Err(HostError::BadWildcard(word.to_owned())),
    }
}

fn wildcard_matches(labels: &[Label], host: &str) -> bool {
    let mut words = host.rsplit('.');
    for (i, label) in labels.iter().enumerate().rev() {
        let Some(word) = words.next() else { return false };
        if word.is_empty() {
            return false;
        }
        let holds = match label {
            Label::Literal(text) => text == word,
            Label::One => true,
            Label::Partial(shape) => partial_matches(shape.as_bytes(), word.as_bytes()),
            // One label is taken; the rest of the host, if any, belongs to it too.
            Label::Deep => return i == 0 && words.all(|w| !w.is_empty()),
        };
        if !holds {
            return false;
        }
    }
    words.next().is_none()
}

/// `*` in `shape` is anything (at least nothing); everything else is itself.
fn partial_matches(shape: &[u8], word: &[u8]) -> bool {
    let (mut s, mut w, mut star) = (0, 0, None);
    while w < word.len() {
        if s < shape.len() && shape[s] == b'*' {
            star = Some((s, w));
            s += 1;
        } else if s < shape.len() && shape[s] == word[w] {
            s += 1;
            w += 1;
        } else if let Some((star_s, star_w)) = star {
            star = Some((star_s, star_w + 1));
            s = star_s + 1;
            w = star_w + 1;
        } else {
            return false;
        }
    }
    shape[s..].iter().all(|b| *b == b'*')
}

fn wildcards_overlap(a: &[Label], b: &[Label]) -> bool {
    let mut left = a.iter().rev();
    let mut right = b.iter().rev();
    loop {
        match (left.next(), right.next()) {
            // `**` takes at least one label: the other side must have one there, and may have more.
            (None, None) | (Some(Label::Deep), Some(_)) | (Some(_), Some(Label::Deep)) => return true,
            (None, Some(_)) | (Some(_), None) => return false,
            (Some(x), Some(y)) => {
                if !labels_overlap(x, y) {
                    return false;
                }
            }
        }
    }
}

fn labels_overlap(a: &Label, b: &Label) -> bool {
    match (a, b) {
        (Label::Literal(x), Label::Literal(y)) => x == y,
        (Label::Literal(text), Label::Partial(shape)) | (Label::Partial(shape), Label::Literal(text)) => {
            partial_matches(shape.as_bytes(), text.as_bytes())
        }
        (Label::Partial(x), Label::Partial(y)) => shapes_overlap(x.as_bytes(), y.as_bytes()),
        (Label::One | Label::Deep, _) | (_, Label::One | Label::Deep) => true,
    }
}

/// Whether some word has both shapes: `reached[j]` says whether the rest of `a` from the row at hand and
/// the rest of `b` from `j` have a word in common. Filled from the ends, so that it is quadratic.
fn shapes_overlap(a: &[u8], b: &[u8]) -> bool {
    let mut below = vec![false; b.len() + 1];
    for i in (0..=a.len()).rev() {
        let mut row = vec![false; b.len() + 1];
        for j in (0..=b.len()).rev() {
            row[j] = match (a.get(i), b.get(j)) {
                (None, None) => true,
                // A star ends here, or takes one more character of the other side.
                (Some(b'*'), other) => below[j] || (other.is_some() && row[j + 1]),
                (other, Some(b'*')) => row[j + 1] || (other.is_some() && below[j]),
                (Some(x), Some(y)) => x == y && below[j + 1],
                (None, Some(_)) | (Some(_), None) => false,
            };
        }
        below = row;
    }
    below[0]
}
