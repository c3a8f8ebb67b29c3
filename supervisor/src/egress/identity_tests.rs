use std::{fs, os::unix::fs::PermissionsExt as _, process::Command, time::Instant};

use super::{Identities, Integrity, Stat};

#[test]
fn a_process_is_its_executable_and_its_content() {
    let mut child = Command::new("/bin/sleep").arg("30").spawn().unwrap();
    let identities = Identities::new();
    let identity = identities.capture(child.id());
    let warm = Instant::now();
    let again = identities.capture(child.id());
    let warm = warm.elapsed();
    child.kill().unwrap();
    child.wait().unwrap();
    let identity = identity.unwrap();
    assert!(identity.exe.starts_with('/') && identity.exe.len() > 5, "{}", identity.exe);
    assert_eq!(identity.sha256.len(), 64);
    assert_eq!(identity, again.unwrap());
    assert!(identity.ancestors.is_empty(), "the walk ends at our own process: {:?}", identity.ancestors);
    assert!(warm.as_millis() < 50, "warm capture took {warm:?}");
    assert!(identities.capture(child.id()).is_err(), "a process that has gone has no identity");
}

#[test]
fn a_changed_executable_is_noticed_and_a_deleted_one_matches_no_path() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tool");
    let identities = Identities::new();
    let run = |bytes: &[u8]| {
        // A new file each time: a running one cannot be written to.
        let _ = fs::remove_file(&path);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Command::new(&path).arg("30").spawn().unwrap()
    };
    let original = fs::read("/bin/sleep").unwrap();
    let mut padded = original.clone();
    padded.push(0);

    let mut first = run(&original);
    let before = identities.capture(first.id()).unwrap();
    let mut second = run(&padded);
    let after = identities.capture(second.id()).unwrap();
    let deleted = identities.capture(first.id()).unwrap();
    for child in [&mut first, &mut second] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(before.integrity, Integrity::Unchanged);
    assert_eq!(after.integrity, Integrity::Changed { path: path.to_str().unwrap().to_owned() });
    assert!(deleted.exe.starts_with("(deleted) /"), "{}", deleted.exe);
}

#[test]
fn a_name_cannot_forge_the_fields_after_it() {
    let stat = Stat::parse(b"7 (a) S 1 1 (x) R 42 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0").unwrap();
    assert_eq!((stat.parent, stat.start_time), (42, 12345));
    assert!(Stat::parse(b"").is_none());
    assert!(Stat::parse(b"7 (a)").is_none());
}
