//! What the supervisor's report means to a person.

use serde_json::json;

use super::{Findings, Severity, directory, explain};

fn explained(probe: &serde_json::Value) -> Vec<(Severity, String, String)> {
    let mut findings = Findings::default();
    explain(probe, &mut findings);
    findings.0.into_iter().map(|f| (f.severity, f.code, f.message)).collect()
}

#[test]
fn full_is_good() {
    let probe = json!({ "level": "full", "reasons": [], "kernel": "6.12.3", "walls": ["seccomp", "landlock"] });
    assert_eq!(
        explained(&probe),
        [(Severity::Ok, "enforcement".into(), "sandboxes are enforced in full (kernel 6.12.3), 2 walls stand".into())]
    );
}

#[test]
fn reduced_is_a_warning_with_each_reason() {
    let probe = json!({ "level": "reduced", "reasons": ["secrets-readable", { "code": "loopback-race", "message": "below 6.7", "fix": "newer kernel" }, "unheard-of"] });
    let all = explained(&probe);
    assert!(all.iter().all(|(severity, ..)| *severity == Severity::Warning), "{all:?}");
    assert_eq!(all[1].1, "secrets-readable");
    assert!(all[1].2.contains("without Landlock"));
    assert_eq!((all[2].1.as_str(), all[2].2.as_str()), ("loopback-race", "below 6.7"));
    assert_eq!(all[3].2, "unheard-of");
}

#[test]
fn anything_else_is_an_error() {
    for level in [json!({ "level": "refused", "reasons": ["no-notify"] }), json!({}), json!([]), json!({ "level": 3 })] {
        assert!(explained(&level).iter().all(|(severity, ..)| *severity == Severity::Error), "{level}");
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_an_error() {
    let found = |path: &std::path::Path| {
        let mut findings = Findings::default();
        directory(path, &mut findings);
        findings.0.into_iter().map(|f| (f.severity, f.message)).collect::<Vec<_>>()
    };
    let root = tempfile::tempdir().expect("made");
    assert_eq!(found(&root.path().join("a/b/c")), []);
    let closed = root.path().join("closed");
    std::fs::create_dir(&closed).expect("made");
    std::fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o555)).expect("closed");
    // Nothing is closed to root.
    if !rustix::process::geteuid().is_root() {
        let found = found(&closed.join("state"));
        assert_eq!(found[0].0, Severity::Error);
        assert!(found[0].1.contains("cannot be made") && found[0].1.contains("closed is not writable"), "{}", found[0].1);
    }
}
