//! Where a mistake is shown.

use openshell_policy::{Finding, PolicyError};

use super::{read_text, refused, span};

const TEXT: &str = "version: 1\nnetwork_policies:\n  web:\n    endpoints: [{hst: ä.com, port: 1}]\n";

fn finding(line: Option<usize>, column: Option<usize>) -> Finding {
    Finding { code: "unknown-key", path: "network_policies.web".into(), line, column, message: "hst is no key".into() }
}

#[test]
fn a_place_is_the_word_there() {
    let word = |line, column| span(TEXT, line, column).map(|s| TEXT[s.offset()..s.offset() + s.len()].to_owned());
    assert_eq!(word(1, 1).as_deref(), Some("version:"));
    assert_eq!(word(4, 18).as_deref(), Some("hst:"));
    assert_eq!(word(4, 23).as_deref(), Some("ä.com"));
    assert_eq!(word(4, 30).as_deref(), Some("port:"));
    // A place that does not exist is left out or put at the end, never a panic.
    for (line, column) in [(0, 1), (99, 1), (4, 999), (1, 0), (5, 1)] {
        let _ = span(TEXT, line, column);
    }
    let _ = span("", 1, 1);
}

#[test]
fn every_finding_is_shown_and_marked() {
    let error = PolicyError { findings: vec![finding(Some(4), Some(18)), finding(None, None)] };
    let refusal = refused("p.yaml", TEXT, &error);
    assert_eq!(refusal.stable_code(), "policy::unknown-key");
    let text = refusal.plain();
    for part in ["refused for 2 reasons", "[p.yaml:4:18]", "line 4, column 18", "hst is no key", "Nothing was changed."] {
        assert!(text.contains(part), "{part} in\n{text}");
    }
}

#[test]
fn files_are_bounded_and_text() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("p");
    std::fs::write(&path, vec![b'a'; 1024 * 1024 + 1]).expect("written");
    assert_eq!(read_text(&path, "policy file").expect_err("too large").stable_code(), "file-too-large");
    std::fs::write(&path, [0xff, 0xfe]).expect("written");
    assert_eq!(read_text(&path, "policy file").expect_err("no text").stable_code(), "unreadable");
    assert_eq!(read_text(directory.path(), "policy file").expect_err("a directory").stable_code(), "unreadable");
}
