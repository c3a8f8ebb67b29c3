use proptest::prelude::*;

use super::{EncodedSlash, TargetError, canonical_path, query_parameters};

fn path(raw: &str) -> Result<(String, String), TargetError> {
    canonical_path(raw, EncodedSlash::Refuse).map(|path| (path.text, path.encoded))
}

#[test]
fn one_path_has_one_form() {
    for (raw, text, encoded) in [
        ("", "/", "/"),
        ("/", "/", "/"),
        ("*", "*", "*"),
        ("/a/b", "/a/b", "/a/b"),
        ("/a/b/", "/a/b/", "/a/b/"),
        ("//a///b", "/a/b", "/a/b"),
        ("/a/./b", "/a/b", "/a/b"),
        ("/a/../b", "/b", "/b"),
        ("/a/b/..", "/a/", "/a/"),
        ("/a/.", "/a/", "/a/"),
        ("/../../b", "/b", "/b"),
        ("/%2e%2E/b", "/b", "/b"),
        ("/a/.%2e/b", "/b", "/b"),
        ("/%61dmin", "/admin", "/admin"),
        ("/a;v=1/b;x", "/a/b", "/a/b"),
        ("/a/..;/b", "/b", "/b"),
        ("/a%3Bb", "/a;b", "/a%3Bb"),
        ("/a%20b", "/a b", "/a%20b"),
        ("/a+b", "/a+b", "/a+b"),
        ("/%C3%A9", "/é", "/%C3%A9"),
        ("/a%3Fb%23c", "/a?b#c", "/a%3Fb%23c"),
        ("/100%25", "/100%", "/100%25"),
        ("/@x:y/~z", "/@x:y/~z", "/@x:y/~z"),
        ("/a%7Cb", "/a|b", "/a%7Cb"),
    ] {
        assert_eq!(path(raw), Ok((text.into(), encoded.into())), "{raw}");
    }
}

#[test]
fn what_has_no_single_form_is_refused() {
    for (raw, error) in [
        ("a", TargetError::NotAbsolute),
        ("/%", TargetError::BadEncoding),
        ("/%2", TargetError::BadEncoding),
        ("/%zz", TargetError::BadEncoding),
        ("/%252e%252e/x", TargetError::DoubleEncoding),
        ("/%25%32%65", TargetError::DoubleEncoding),
        ("/%252%46", TargetError::DoubleEncoding),
        ("/a%2fb", TargetError::EncodedSlash),
        ("/a%5Cb", TargetError::Backslash),
        ("/a\\b", TargetError::Backslash),
        ("/a%00b", TargetError::Character),
        ("/a%0d%0ab", TargetError::Character),
        ("/%ff", TargetError::Character),
        ("/é", TargetError::Character),
        ("/a#b", TargetError::Character),
    ] {
        assert_eq!(path(raw), Err(error), "{raw}");
    }
    assert_eq!(path(&format!("/{}", "a".repeat(5000))), Err(TargetError::PathTooLong));
}

#[test]
fn an_encoded_slash_is_kept_where_it_is_allowed_and_hides_nothing() {
    let keep = |raw| canonical_path(raw, EncodedSlash::Keep).map(|path| (path.text, path.encoded));
    assert_eq!(keep("/p/a%2fb/c"), Ok(("/p/a%2Fb/c".into(), "/p/a%2Fb/c".into())));
    for raw in ["/p/..%2fx", "/p/a%2f..%2fb", "/p/%2fx", "/p/a%2f"] {
        assert_eq!(keep(raw), Err(TargetError::EncodedSlash), "{raw}");
    }
    assert_eq!(keep("/a%252fb"), Err(TargetError::DoubleEncoding));
}

#[test]
fn queries_are_decoded_in_order() {
    let pairs = |text: &str| query_parameters(text).map(|pairs| pairs.into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>());
    assert_eq!(pairs("a=1&b=x+y&a=%26&c&=d&&"), Ok(["a=1", "b=x y", "a=&", "c=", "=d"].map(str::to_owned).to_vec()));
    assert_eq!(pairs("a=%zz"), Err(TargetError::BadEncoding));
    assert_eq!(pairs("a=%ff"), Err(TargetError::Character));
    assert_eq!(pairs(&"a&".repeat(2000)), Err(TargetError::QueryTooLong));
}

proptest! {
    /// What is sent is read as what was decided, and making it canonical again changes nothing.
    #[test]
    fn canonical_is_canonical(raw in "/([a-z./;%]|%2e|%2f|%25|%41|%c3%a9|\\.\\.){0,24}", keep in any::<bool>()) {
        let slashes = if keep { EncodedSlash::Keep } else { EncodedSlash::Refuse };
        if let Ok(path) = canonical_path(&raw, slashes) {
            let again = canonical_path(&path.encoded, slashes);
            prop_assert_eq!(again.as_ref(), Ok(&path));
            prop_assert!(path.text.starts_with('/'));
            for segment in path.text.split('/') {
                prop_assert!(segment != "." && segment != "..");
            }
            prop_assert!(!path.text.contains("//"));
        }
    }

    /// A path never gets out of the directory that a server would resolve it to.
    #[test]
    fn no_path_climbs(segments in proptest::collection::vec("(\\.|\\.\\.|[a-z]|%2e%2e|\\.%2e|;x)", 0..12)) {
        let raw = format!("/{}", segments.join("/"));
        if let Ok(path) = canonical_path(&raw, EncodedSlash::Refuse) {
            let mut stack = Vec::new();
            for segment in &segments {
                match segment.replace("%2e", ".").split(';').next().unwrap_or("") {
                    "" | "." => {}
                    ".." => { stack.pop(); }
                    other => stack.push(other.to_owned()),
                }
            }
            prop_assert_eq!(path.text.trim_end_matches('/'), stack.iter().fold(String::new(), |text, segment| text + "/" + segment));
        }
    }

    #[test]
    fn no_input_panics(raw in "\\PC{0,80}") {
        let _ = canonical_path(&raw, EncodedSlash::Refuse);
        let _ = canonical_path(&raw, EncodedSlash::Keep);
        let _ = query_parameters(&raw);
    }
}
