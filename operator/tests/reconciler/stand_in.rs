//! A supervisor that confines nothing: lock, identity, signals, exit codes.
//!
//! What it does beyond living until SIGTERM is in the sandbox's name: `stubborn-…` ignores
//! SIGTERM, `slow-…` takes its time to take the lock, `fails-…` writes failure.json and ends,
//! `dies-…` ends with code 3.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

/// Every start is noted here, beside the sandboxes: one line of UID, pid and start time.
pub(crate) const STARTS: &str = "starts";

/// Not a test: the stand-in itself, when the process driver runs this binary.
#[test]
fn supervise() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_none_or(|first| first != "supervise") {
        return;
    }
    let code = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(live());
    std::process::exit(code);
}

async fn live() -> i32 {
    let mut document = String::new();
    std::io::stdin().read_to_string(&mut document).unwrap();
    let Ok(bootstrap) = serde_json::from_str::<Value>(&document) else { return 64 };
    let text = |key: &str| bootstrap[key].as_str().unwrap().to_owned();
    let (uid, name, directory) = (text("sandbox_id"), text("sandbox_name"), PathBuf::from(text("directory")));
    assert_eq!(bootstrap["token"], format!("token of {uid}"));
    assert!(std::env::var_os("RIG_SECRET").is_none(), "the environment of the driver's process leaks into supervisors");
    note_start(&directory, &uid);
    if name.starts_with("slow-") {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    }
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(directory.join("lock")).unwrap();
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
        return 75;
    }
    let mut term = signal(SignalKind::terminate()).unwrap();
    replace(
        &directory,
        "supervisor.json",
        &json!({ "pid": std::process::id(), "start_time": start_time(), "instance": format!("{}-{}", uid, start_time()) }),
    );
    if name.starts_with("fails-") {
        replace(
            &directory,
            "failure.json",
            &json!({ "code": "LandlockUnavailable", "message": "no Landlock here", "time": "2026-01-02T03:04:05Z" }),
        );
        return 69;
    }
    if name.starts_with("dies-") {
        return 3;
    }
    loop {
        term.recv().await;
        if !name.starts_with("stubborn-") {
            return 0;
        }
    }
}

fn note_start(directory: &Path, uid: &str) {
    let mut starts = OpenOptions::new().append(true).create(true).open(directory.parent().unwrap().parent().unwrap().join(STARTS)).unwrap();
    writeln!(starts, "{uid} {} {}", std::process::id(), start_time()).unwrap();
}

fn replace(directory: &Path, name: &str, value: &Value) {
    let fresh = directory.join(format!(".{name}.tmp"));
    File::create(&fresh).unwrap().write_all(value.to_string().as_bytes()).unwrap();
    std::fs::rename(fresh, directory.join(name)).unwrap();
}

fn start_time() -> u64 {
    start_time_of(std::process::id()).unwrap()
}

/// Field 22 of a living process's stat.
pub(crate) fn start_time_of(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}
