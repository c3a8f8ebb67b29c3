//! Host patterns against a naive reference and against their translation.
#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

/// The rule as it is told, on lists of labels.
fn naive(pattern: &[&str], host: &[&str]) -> bool {
    match (pattern.split_first(), host.split_first()) {
        (None, None) => true,
        (Some((&"**", rest)), Some(_)) => (1..=host.len()).any(|n| naive(rest, &host[n..])),
        (Some((label, rest)), Some((word, words))) => naive_label(label.as_bytes(), word.as_bytes()) && naive(rest, words),
        _ => false,
    }
}

fn naive_label(pattern: &[u8], word: &[u8]) -> bool {
    match pattern.split_first() {
        None => word.is_empty(),
        Some((b'*', rest)) => (0..=word.len()).any(|n| naive_label(rest, &word[n..])),
        Some((c, rest)) => word.first() == Some(c) && naive_label(rest, &word[1..]),
    }
}

fn label() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "b", "ab", "*", "**", "a*", "*b", "a*b", "example", "com", "x-1"]).prop_map(str::to_owned)
}

fn name() -> impl Strategy<Value = String> {
    proptest::collection::vec(prop::sample::select(vec!["a", "b", "ab", "aab", "example", "com", "x-1"]), 1..6).prop_map(|l| l.join("."))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, ..ProptestConfig::default() })]

    #[test]
    fn a_pattern_covers_what_the_naive_reference_covers(labels in proptest::collection::vec(label(), 1..6), host in name()) {
        let text = labels.join(".");
        if let Ok(pattern) = HostPattern::parse(&text) {
            let expected = naive(&text.split('.').collect::<Vec<_>>(), &host.split('.').collect::<Vec<_>>());
            prop_assert_eq!(pattern.matches(&host), expected, "{} over {}", text, host);
            prop_assert_eq!(regex::Regex::new(&pattern.to_regex()).unwrap().is_match(&host), expected);
            if expected && let Some(suffix) = pattern.literal_suffix() {
                let suffix = format!(".{suffix}");
                prop_assert!(host.ends_with(&suffix));
            }
        }
    }

    #[test]
    fn patterns_that_cover_one_host_overlap(a in proptest::collection::vec(label(), 1..5), b in proptest::collection::vec(label(), 1..5), host in name()) {
        if let (Ok(a), Ok(b)) = (HostPattern::parse(&a.join(".")), HostPattern::parse(&b.join("."))) {
            prop_assert_eq!(a.overlaps(&b), b.overlaps(&a));
            prop_assert!(a.overlaps(&a));
            prop_assert!(!(a.matches(&host) && b.matches(&host)) || a.overlaps(&b));
        }
    }
}

#[test]
fn overlap_stays_cheap_on_hostile_patterns() {
    let pattern = |last: &str| HostPattern::parse(&format!("{}{last}.example.com", "a*".repeat(30))).unwrap();
    assert!(!pattern("x").overlaps(&pattern("y")));
    assert!(pattern("x").overlaps(&pattern("x")));
}

#[test]
fn hosts_have_one_spelling() {
    for (written, canonical) in [
        ("API.Example.COM", "api.example.com"),
        ("example.com.", "example.com"),
        ("[2001:DB8::1]", "2001:db8::1"),
        ("2001:db8:0:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("10.0.0.1", "10.0.0.1"),
    ] {
        assert_eq!(canonical_host(written), canonical);
        assert_eq!(canonical_host(canonical), canonical);
    }
}

#[test]
fn addresses_match_only_themselves() {
    let pattern = HostPattern::parse("10.0.0.1").unwrap();
    assert!(pattern.matches("10.0.0.1") && !pattern.matches("10.0.0.10"));
    assert!(!HostPattern::parse("**.example.com").unwrap().matches("10.0.0.1"));
    // Octal, short and decimal spellings are no addresses here, and no names either.
    for odd in ["010.0.0.1", "10.1", "167772161", "0x0a.0.0.1"] {
        assert_eq!(HostPattern::parse(odd), Err(HostError::BadAddress), "{odd}");
    }
}

#[test]
fn a_pattern_keeps_two_labels() {
    for broad in ["*", "**", "*.com", "**.com", "api-*.com", "*.*.com", "**.*.com"] {
        assert_eq!(HostPattern::parse(broad), Err(HostError::TooBroad), "{broad}");
    }
    for fine in ["*.example.com", "**.example.com", "api-*.example.com", "x.*.example.com", "s3.*.amazonaws.com"] {
        assert!(matches!(HostPattern::parse(fine), Ok(HostPattern::Wildcard(_))), "{fine}");
    }
}
