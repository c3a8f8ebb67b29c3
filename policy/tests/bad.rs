//! Every file in `tests/bad` is refused for exactly the reasons that its first lines name.
//!
//! A file begins with one line per finding: `# expect: <code> <line>:<column> <path>` (`-` where there
//! is no place, no path). `UPDATE_EXPECTED=1 cargo test -p openshell-policy --test bad` writes them.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use openshell_policy::{Finding, from_json, from_value, from_yaml};

fn line(finding: &Finding, shift: usize) -> String {
    let place = finding.line.zip(finding.column).map_or_else(|| "-".to_owned(), |(line, column)| format!("{}:{column}", line - shift));
    let path = if finding.path.is_empty() { "-" } else { &finding.path };
    format!("# expect: {} {place} {path}", finding.code)
}

#[test]
fn bad_files_are_refused_with_place_and_reason() {
    let mut files: Vec<_> =
        fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 25, "the table is there");
    let mut wrong = Vec::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let expected: Vec<&str> = text.lines().take_while(|l| l.starts_with("# expect: ")).collect();
        let error = from_yaml(&text).expect_err(&format!("{} is refused", file.display()));
        // Lines are counted in the text below the expectations, so that adding one moves nothing.
        let found: Vec<String> = error.findings.iter().map(|f| line(f, expected.len())).collect();
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            let body: String = text.lines().skip(expected.len()).flat_map(|l| [l, "\n"]).collect();
            fs::write(&file, format!("{}\n{body}", found.join("\n"))).unwrap();
            for finding in &error.findings {
                println!("{}: {finding}", file.file_name().unwrap().display());
            }
        } else if found != expected {
            wrong.push(format!("{}\n  expected {expected:#?}\n  found {found:#?}", file.display()));
        }
        for finding in &error.findings {
            assert!(finding.message.len() > 10 && !finding.message.contains('\u{7}'), "{finding}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn good_files_are_taken() {
    for file in fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/good")).unwrap() {
        let file = file.unwrap().path();
        let policy = from_yaml(&fs::read_to_string(&file).unwrap()).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        policy.validate().unwrap();
        assert_eq!(from_json(&policy.canonical_json()).unwrap(), policy);
    }
}

#[test]
fn ten_megabytes_are_refused_unread() {
    let text = format!("version: 1\n# {}\n", "x".repeat(10 << 20));
    let started = std::time::Instant::now();
    let findings = from_yaml(&text).unwrap_err().findings;
    assert_eq!((findings[0].code, findings.len()), ("too-large", 1));
    assert_eq!(from_json(text.as_bytes()).unwrap_err().findings[0].code, "too-large");
    assert!(started.elapsed() < std::time::Duration::from_secs(5), "{:?}", started.elapsed());
}

#[test]
fn the_largest_text_is_read_in_bounded_time() {
    for unit in ["[", "{a: ", "- ", "? ", "&a [", "&a {a: ", "\"", "x: [1, 2]\n", "- &a x\n- *a\n", "!!t ", "|\n ", "# c\n", "\t", "{}: "] {
        let text = unit.repeat(262_000 / unit.len());
        let started = std::time::Instant::now();
        assert!(from_yaml(&text).is_err());
        assert!(started.elapsed() < std::time::Duration::from_mins(1), "{unit:?} took {:?}", started.elapsed());
    }
}

#[test]
fn many_findings_are_bounded() {
    let keys = (0..20_000).map(|i| format!("k{i}: 1")).collect::<Vec<_>>().join("\n");
    let endpoint = |i| format!("{{ host: a.b.example, port: 1, allowed_ips: [10.0.{}.{}] }}", i / 250, i % 250);
    let endpoints = (0..900).map(endpoint).collect::<Vec<_>>().join(",\n");
    for text in [format!("version: 1\n{keys}"), format!("version: 1\nnetwork_policies: {{a: {{endpoints: [{endpoints}]}}}}\n")] {
        let started = std::time::Instant::now();
        let findings = from_yaml(&text).unwrap_err().findings;
        assert_eq!((findings.len(), findings[100].code), (101, "more"));
        assert!(findings[0].line.is_some());
        assert!(started.elapsed() < std::time::Duration::from_mins(1), "{:?}", started.elapsed());
    }
}

#[test]
fn json_has_places_too() {
    let findings = from_json(b"{\n  \"version\": 1,\n  \"landlok\": {}\n}").unwrap_err().findings;
    assert_eq!((findings[0].code, findings[0].line, findings[0].column), ("unknown-key", Some(3), Some(3)));
    let findings = from_json(b"{\"version\": 1,\n \"version\": 1}").unwrap_err().findings;
    assert_eq!((findings[0].code, findings[0].line), ("duplicate-key", Some(2)));
    let findings = from_json(b"{\"version\": 1,}").unwrap_err().findings;
    assert_eq!((findings[0].code, findings[0].line), ("syntax", Some(1)));
}

#[test]
fn data_has_paths() {
    let findings = from_value(&serde_json::json!({ "version": 1, "landlock": { "compatability": "best_effort" } })).unwrap_err().findings;
    assert_eq!((findings[0].code, findings[0].path.as_str(), findings[0].line), ("unknown-key", "landlock.compatability", None));
    assert_eq!(findings[0].message, "the Landlock policy has no key `compatability`; did you mean `compatibility`?");
}
