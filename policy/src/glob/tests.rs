//! Globs against a naive reference and against their translation.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// Matching by trying everything.
fn naive(tokens: &[Token], text: &[char]) -> bool {
    match tokens.split_first() {
        None => text.is_empty(),
        Some((Token::Deep, rest)) => (0..=text.len()).any(|n| naive(rest, &text[n..])),
        Some((Token::Star, rest)) => (0..=text.len()).take_while(|n| text[..*n].iter().all(|c| *c != '/')).any(|n| naive(rest, &text[n..])),
        Some((token, rest)) => text.split_first().is_some_and(|(c, text)| single_matches(token, *c) && naive(rest, text)),
    }
}

fn all_tokens(glob: &Glob) -> Vec<Token> {
    glob.prefix.chars().map(Token::Literal).chain(glob.rest.iter().cloned()).collect()
}

fn pattern() -> impl Strategy<Value = String> {
    proptest::collection::vec(
        prop_oneof![
            4 => prop::sample::select(vec!["a", "b", "/", "é", ".", "-", "\\", "]", "^", "\n"]).prop_map(str::to_owned),
            3 => prop::sample::select(vec!["*", "**", "?", "/**"]).prop_map(str::to_owned),
            1 => prop::sample::select(vec!["[ab]", "[!a]", "[a-b/]", "[!/]", "[-a]", "[]a]", "[!]]", "[a^]", "[[]", "[*]", "[&&]", "[~~-]"]).prop_map(str::to_owned),
        ],
        0..8,
    )
    .prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_glob_matches_what_the_naive_reference_matches(pattern in pattern(), text in "[ab/é.\\-*\\]\\\\^&~\n]{0,8}") {
        for glob in [Glob::text(&pattern), Glob::path(&pattern)] {
            let glob = glob.unwrap();
            let chars: Vec<char> = text.chars().collect();
            let expected = naive(&all_tokens(&glob), &chars);
            prop_assert_eq!(glob.matches(&text), expected, "{:?} over {:?}", pattern, text);
            let regex = regex::Regex::new(&glob.to_regex()).unwrap();
            prop_assert_eq!(regex.is_match(&text), expected, "{} over {:?}", glob.to_regex(), text);
        }
    }
}

#[test]
fn stars_cross_slashes_in_texts_only() {
    assert!(Glob::text("/a/*").unwrap().matches("/a/b/c"));
    assert!(!Glob::path("/a/*").unwrap().matches("/a/b/c"));
    assert!(Glob::path("/a/**").unwrap().matches("/a/b/c"));
    assert!(!Glob::text("/a/**").unwrap().matches("/a"));
}

#[test]
fn a_selector_takes_the_path_itself() {
    let selector = PathSelector::parse("/v1/**").unwrap();
    assert!(selector.matches("/v1") && selector.matches("/v1/x/y") && !selector.matches("/v10"));
    assert_eq!(selector.specificity(), 4);
    assert!(PathSelector::parse("").unwrap().matches("/anything"));
}

#[test]
fn matching_stays_cheap_on_hostile_texts() {
    let glob = Glob::text(&"a*".repeat(200)).unwrap();
    let started = std::time::Instant::now();
    assert!(!glob.matches(&format!("{}b", "a".repeat(199))));
    assert!(!Glob::path("**a**a**a**a**b").unwrap().matches(&"a".repeat(4000)));
    assert!(started.elapsed() < std::time::Duration::from_mins(1), "{:?}", started.elapsed());
}

#[test]
fn odd_sets_are_refused() {
    assert_eq!(Glob::text("/[a"), Err(GlobError::Unclosed));
    assert_eq!(Glob::text("/[^a]"), Err(GlobError::Caret));
    assert_eq!(Glob::text("/[b-a]"), Err(GlobError::EmptyRange('b', 'a')));
}
