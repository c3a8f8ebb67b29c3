//! The confinement and the broker against a real kernel. Each case runs a whole sandbox of its own
//! in a process of its own, because the launcher is forked while there is one thread; so this
//! executable is both the tests and the sandbox.
//!
//! Each case runs in every setting: with namespaces and without, and as root also as an ordinary
//! user. `cargo test --test sandbox -- <part of a name>` runs some of them.

// A test that cannot go on fails where it stands.
#![allow(clippy::unwrap_used)]

mod broker;
mod confinement;
mod harness;
mod helper;

use std::{panic::AssertUnwindSafe, sync::Mutex};

use harness::{Case, Setting};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some(helper::ARGUMENT) => helper::run(),
        Some(openshell_supervisor::confine::probe::TRY_NAMESPACES) => {
            std::process::exit(openshell_supervisor::confine::probe::try_namespaces())
        }
        // Tools that look for tests expect an answer.
        Some("--list") => return,
        _ => {}
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-')).cloned().unwrap_or_default();
    let mut runs = Vec::new();
    for (name, case) in confinement::CASES.iter().chain(broker::CASES) {
        for setting in Setting::all() {
            let name = format!("{name} ({})", setting.name());
            if name.contains(&filter) {
                runs.push((name, *case, setting));
            }
        }
    }
    // A filter that no case passes is a mistake, not a success.
    std::process::exit(i32::from(runs.is_empty() || !run(runs)));
}

/// Runs the cases on a few threads; `false` if one failed.
fn run(runs: Vec<(String, Case, Setting)>) -> bool {
    let total = runs.len();
    let (queue, failed) = (Mutex::new(runs), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let Some((name, case, setting)) = queue.lock().unwrap().pop() else { return };
                    let passed = std::panic::catch_unwind(AssertUnwindSafe(|| case(setting))).is_ok();
                    println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
                    if !passed {
                        failed.lock().unwrap().push(name);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().unwrap();
    println!("\n{} of {total} passed; failed: {failed:?}", total - failed.len());
    failed.is_empty()
}
