//! Globs over paths, query values and executables.
//!
//! | | request paths and values ([`Glob::text`]) | executables ([`Glob::path`]) |
//! |---|---|---|
//! | `*` | anything, `/` included | anything within one component |
//! | `**` | the same | anything |
//! | `?` | one character | one character but `/` |
//! | `[abc]`, `[a-z]`, `[!a]` | one of (none of) these | the same, never `/` |
//!
//! Everything else is itself, a backslash too: `[*]` is how to write a star. A glob always speaks
//! about the whole text. Matching takes no memory and is at worst quadratic in the text, so that a
//! request cannot make a rule expensive.

#[cfg(test)]
mod tests;

use std::fmt::Write as _;

/// A compiled glob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob {
    /// What the text has to begin with.
    prefix: String,
    /// What follows.
    rest: Vec<Token>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Literal(char),
    /// One character; without `/` where components matter.
    One {
        slash: bool,
    },
    /// Any run of characters but `/`.
    Star,
    /// Any run of characters.
    Deep,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
        slash: bool,
    },
}

/// Why a glob is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    /// `[` without `]`.
    #[error("`[` opens a set of characters that is never closed; write `[[]` for the character itself")]
    Unclosed,
    /// `[^a]`, which other tools read as a negation.
    #[error("write `[!…]` for \"none of these characters\"; `[^…]` is not a negation here")]
    Caret,
    /// `[z-a]`.
    #[error("the range `{0}-{1}` is empty; write the smaller character first")]
    EmptyRange(char, char),
}

impl Glob {
    /// A glob in which stars cross `/`.
    pub fn text(pattern: &str) -> Result<Self, GlobError> {
        Self::compile(pattern, Separator::Ordinary)
    }

    /// A glob over an absolute path, in which `*` stays inside one component.
    pub fn path(pattern: &str) -> Result<Self, GlobError> {
        Self::compile(pattern, Separator::Special)
    }

    fn compile(pattern: &str, separator: Separator) -> Result<Self, GlobError> {
        let slash = separator == Separator::Ordinary;
        let mut tokens = Vec::new();
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            let token = match c {
                '*' => {
                    let mut stars = 1;
                    while chars.next_if_eq(&'*').is_some() {
                        stars += 1;
                    }
                    if slash || stars > 1 { Token::Deep } else { Token::Star }
                }
                '?' => Token::One { slash },
                '[' => parse_class(&mut chars, slash)?,
                other => Token::Literal(other),
            };
            tokens.push(token);
        }
        let literals = tokens.iter().take_while(|t| matches!(t, Token::Literal(_))).count();
        let rest = tokens.split_off(literals);
        let prefix = tokens.iter().filter_map(|t| if let Token::Literal(c) = t { Some(*c) } else { None }).collect();
        Ok(Self { prefix, rest })
    }

    /// Whether it has no wildcard: it matches exactly [`Glob::prefix`].
    pub fn is_literal(&self) -> bool {
        self.rest.is_empty()
    }

    /// What every text that it matches begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Whether it matches the whole text.
    pub fn matches(&self, text: &str) -> bool {
        let Some(text) = text.strip_prefix(self.prefix.as_str()) else { return false };
        match self.rest.as_slice() {
            [] => text.is_empty(),
            [Token::Deep] => true,
            rest => matches_rest(rest, text),
        }
    }

    /// The same glob as an anchored regular expression.
    pub(crate) fn to_regex(&self) -> String {
        let mut regex = String::from("(?s)\\A");
        let literal = |regex: &mut String, c: char| {
            if c.is_ascii() && !c.is_ascii_alphanumeric() {
                // A numeric escape is right inside and outside of sets, whatever the character.
                let _ = write!(regex, "\\x{{{:x}}}", c as u32);
            } else {
                regex.push(c);
            }
        };
        self.prefix.chars().for_each(|c| literal(&mut regex, c));
        for token in &self.rest {
            match token {
                Token::Literal(c) => literal(&mut regex, *c),
                Token::One { slash: true } => regex.push('.'),
                Token::One { slash: false } => regex.push_str("[^/]"),
                Token::Star => regex.push_str("[^/]*"),
                Token::Deep => regex.push_str(".*"),
                Token::Class { negated, ranges, slash } => {
                    let mut class = String::from(if *negated { "[^" } else { "[" });
                    for (from, to) in ranges {
                        literal(&mut class, *from);
                        class.push('-');
                        literal(&mut class, *to);
                    }
                    class.push(']');
                    // Set difference: the class, but never the separator.
                    let _ = if *slash { write!(regex, "{class}") } else { write!(regex, "[{class}--[/]]") };
                }
            }
        }
        regex.push_str("\\z");
        regex
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Separator {
    Ordinary,
    Special,
}

fn parse_class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, slash: bool) -> Result<Token, GlobError> {
    if chars.peek() == Some(&'^') {
        return Err(GlobError::Caret);
    }
    let negated = chars.next_if_eq(&'!').is_some();
    let mut ranges = Vec::new();
    loop {
        let from = chars.next().ok_or(GlobError::Unclosed)?;
        if from == ']' && !ranges.is_empty() {
            return Ok(Token::Class { negated, ranges, slash });
        }
        let mut ahead = chars.clone();
        let to = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(to)) if to != ']' => {
                chars.next();
                chars.next();
                to
            }
            _ => from,
        };
        if from > to {
            return Err(GlobError::EmptyRange(from, to));
        }
        ranges.push((from, to));
    }
}

/// Greedy matching with two places to come back to: the last `**` and the last `*` after it.
///
/// Coming back only to the last star of each kind is enough: a later `**` can take whatever an
/// earlier star would have taken, and a `*` is followed either by a star in the same component, for
/// which the same holds, or by a `/`, whose place it cannot move.
fn matches_rest(tokens: &[Token], text: &str) -> bool {
    let (mut token, mut at) = (0, 0);
    let mut deep: Option<(usize, usize)> = None;
    let mut shallow: Option<(usize, usize)> = None;
    loop {
        let next = text[at..].chars().next();
        match (tokens.get(token), next) {
            (None, None) => return true,
            (Some(Token::Deep), _) => {
                token += 1;
                deep = Some((token, at));
                shallow = None;
                if token == tokens.len() {
                    return true;
                }
                continue;
            }
            (Some(Token::Star), _) => {
                token += 1;
                shallow = Some((token, at));
                continue;
            }
            (Some(single), Some(c)) if single_matches(single, c) => {
                token += 1;
                at += c.len_utf8();
                continue;
            }
            _ => {}
        }
        if let Some((after, from)) = shallow
            && let Some(c) = text[from..].chars().next().filter(|c| *c != '/')
        {
            (token, at) = (after, from + c.len_utf8());
            shallow = Some((token, at));
        } else if let Some((after, from)) = deep
            && let Some(c) = text[from..].chars().next()
        {
            (token, at) = (after, from + c.len_utf8());
            deep = Some((token, at));
            shallow = None;
        } else {
            return false;
        }
    }
}

fn single_matches(token: &Token, c: char) -> bool {
    match token {
        Token::Literal(literal) => *literal == c,
        Token::One { slash } => *slash || c != '/',
        Token::Class { negated, ranges, slash } => {
            (*slash || c != '/') && ranges.iter().any(|(from, to)| (*from..=*to).contains(&c)) != *negated
        }
        Token::Star | Token::Deep => false,
    }
}

/// A path selector of an endpoint: `x/**` is `x` itself and everything below it, an empty selector
/// is everything; stars cross `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathSelector {
    /// Any of these has to match; empty is everything.
    globs: Vec<Glob>,
    specificity: usize,
}

impl PathSelector {
    /// Reads a selector.
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let specificity = text.chars().filter(|c| *c != '*').count();
        if matches!(text, "" | "**" | "/**") {
            return Ok(Self { globs: Vec::new(), specificity: 0 });
        }
        let mut globs = vec![Glob::text(text)?];
        if let Some(itself) = text.strip_suffix("/**") {
            globs.push(Glob::text(itself)?);
        }
        Ok(Self { globs, specificity })
    }

    /// Whether it selects this path.
    pub fn matches(&self, path: &str) -> bool {
        self.globs.is_empty() || self.globs.iter().any(|glob| glob.matches(path))
    }

    /// How precise it is: its characters that are no stars. The most precise one that matches governs.
    pub fn specificity(&self) -> usize {
        self.specificity
    }

    /// The selector as regular expressions, any of which has to match.
    pub(crate) fn to_regexes(&self) -> Vec<String> {
        self.globs.iter().map(Glob::to_regex).collect()
    }
}
