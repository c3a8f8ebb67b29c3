//! Starting and ending the binary: one clear error when it cannot start, nothing half-written,
//! and a restart after `kill -9` that finds everything.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

fn command(root: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openshell-gateway"));
    command
        .env_clear()
        .env("HOME", root)
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .args(["--port", "0", "--supervisor", "/bin/true"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Starts it and waits for the line that says where it serves.
fn start(command: &mut Command) -> (Child, String) {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let Some(endpoint) = line.trim().strip_prefix("ready ") else {
        let mut log = String::new();
        child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        panic!("not ready: {line:?} {log}");
    };
    (child, endpoint.to_owned())
}

/// Its exit code and what it said, which must be one error with its help.
fn refused(command: &mut Command) -> (i32, String) {
    let output = command.output().unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(output.stdout.is_empty() && text.contains("openshell-gateway: ") && text.contains("\n  help: "), "{text}");
    (output.status.code().unwrap(), text)
}

fn terminate(mut child: Child) -> i32 {
    let pid = rustix::process::Pid::from_raw(child.id() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    child.wait().unwrap().code().unwrap()
}

#[test]
fn a_second_gateway_and_a_taken_port_are_named() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (child, endpoint) = start(&mut command(one.path()));
    let port = endpoint.rsplit(':').next().unwrap();
    let pid = format!("(process {})", child.id());
    let (code, text) = refused(&mut command(one.path()));
    assert!(code == 75 && text.contains(&pid) && text.contains("gateway stop"), "{code} {text}");
    let (code, text) = refused(command(two.path()).args(["--port", port]));
    assert!(code == 69 && text.contains(&pid) && text.contains("--port"), "{code} {text}");
    // The one that was refused registered nothing and made no keys.
    assert!(!two.path().join(".config/openshell/active_gateway").exists());
    assert!(!two.path().join(".local/state/openshell/tls/ca.crt").exists());
    assert_eq!(terminate(child), 0);
}

#[test]
fn what_is_killed_starts_again_with_the_same_keys() {
    let root = tempfile::tempdir().unwrap();
    let certificate = root.path().join(".config/openshell/gateways/openshell/mtls/tls.crt");
    let (mut child, _) = start(&mut command(root.path()));
    let first = fs::read_to_string(&certificate).unwrap();
    for _ in 0..3 {
        child.kill().unwrap();
        child.wait().unwrap();
        child = start(&mut command(root.path())).0;
        assert_eq!(fs::read_to_string(&certificate).unwrap(), first);
    }
    assert_eq!(terminate(child), 0);
    assert_eq!(fs::read_to_string(root.path().join(".config/openshell/active_gateway")).unwrap(), "openshell");
}

/// Killed at any moment of its first start, the next one comes up.
#[test]
fn a_first_start_that_is_cut_short_leaves_nothing_that_hinders_the_next() {
    let root = tempfile::tempdir().unwrap();
    for delay in [1_u64, 3, 6, 10, 15, 25, 40, 60] {
        let mut child = command(root.path()).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(delay));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    let (child, _) = start(&mut command(root.path()));
    assert_eq!(terminate(child), 0);
}

#[test]
fn a_state_directory_that_cannot_be_used_is_one_error() {
    let root = tempfile::tempdir().unwrap();
    fs::write(root.path().join("file"), b"").unwrap();
    let (code, text) = refused(command(root.path()).env("XDG_STATE_HOME", root.path().join("file")));
    assert!(code == 73 && text.contains("cannot create"), "{code} {text}");
    // A file system without room.
    let (code, text) = refused(command(root.path()).env("XDG_STATE_HOME", "/dev/full/x"));
    assert!(code == 73, "{code} {text}");
    let (code, text) = refused(command(root.path()).env_remove("HOME"));
    assert!(code == 64 && text.contains("XDG_STATE_HOME"), "{code} {text}");
}

#[test]
fn settings_that_are_not_honoured_are_refused() {
    let root = tempfile::tempdir().unwrap();
    for name in ["OPENSHELL_DB_URL", "OPENSHELL_OIDC_ISSUER", "OPENSHELL_TLS_CLIENT_CA", "OPENSHELL_GATEWAY_CONFIG"] {
        let (code, text) = refused(command(root.path()).env(name, "x"));
        assert!(code == 64 && text.contains(name), "{code} {text}");
    }
    let (code, text) = refused(command(root.path()).args(["--disable-tls", "--bind-address", "0.0.0.0"]));
    assert!(code == 64 && text.contains("loopback"), "{code} {text}");
    let (code, text) = refused(command(root.path()).args(["--driver", "warp"]));
    assert!(code == 78 && text.contains("process"), "{code} {text}");
    let file = root.path().join(".config/openshell/gateway.toml");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(&file, b"").unwrap();
    let (code, text) = refused(&mut command(root.path()));
    assert!(code == 64 && text.contains("gateway.toml"), "{code} {text}");
}

#[test]
fn plaintext_is_registered_as_such_and_warned_about() {
    let root = tempfile::tempdir().unwrap();
    let (mut child, endpoint) = start(command(root.path()).arg("--disable-tls"));
    assert!(endpoint.starts_with("http://127.0.0.1:"), "{endpoint}");
    let metadata = fs::read_to_string(root.path().join(".config/openshell/gateways/openshell/metadata.json")).unwrap();
    assert!(metadata.contains("\"plaintext\"") && metadata.contains(&endpoint), "{metadata}");
    let mut log = child.stderr.take().unwrap();
    assert_eq!(terminate(child), 0);
    let mut text = String::new();
    log.read_to_string(&mut text).unwrap();
    assert!(text.contains("WARN") && text.contains("TLS is off"), "{text}");
}
