use super::*;

fn directories(root: &Path) -> Directories {
    Directories::new(root.join("state/openshell"), root.join("config/openshell"), None)
}

#[test]
fn everything_is_private() {
    let root = tempfile::tempdir().unwrap();
    let d = directories(root.path());
    d.prepare().unwrap();
    for path in [d.state(), &d.gateway(), d.tls(), d.config()] {
        assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, 0o700, "{}", path.display());
    }
    write_private(&d.gateway().join("x"), b"secret").unwrap();
    assert_eq!(fs::metadata(d.gateway().join("x")).unwrap().mode() & 0o7777, 0o600);
    assert_eq!(fs::read_dir(d.gateway()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn permissions_that_are_too_wide_are_taken_back() {
    let root = tempfile::tempdir().unwrap();
    let d = directories(root.path());
    d.prepare().unwrap();
    fs::set_permissions(d.state(), fs::Permissions::from_mode(0o755)).unwrap();
    let file = d.state().join("f");
    fs::write(&file, b"x").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    d.prepare().unwrap();
    keep_private(&file, b"x").unwrap();
    assert_eq!(fs::metadata(d.state()).unwrap().mode() & 0o777, 0o700);
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
}

#[test]
fn a_second_gateway_is_told_who_holds_the_lock() {
    let root = tempfile::tempdir().unwrap();
    let d = directories(root.path());
    d.prepare().unwrap();
    let lock = Lock::take(&d).unwrap();
    let error = Lock::take(&d).unwrap_err().to_string();
    assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
    drop(lock);
    Lock::take(&d).unwrap();
}

#[test]
fn a_path_in_the_way_is_named() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("state"), b"a file").unwrap();
    let error = directories(root.path()).prepare().unwrap_err().to_string();
    assert!(error.starts_with("cannot create ") && error.contains("state/openshell"), "{error}");
}
