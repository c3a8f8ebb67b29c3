//! Finding and killing what descends from a process.
//!
//! A stopped process cannot fork: everything found is stopped first, until a look finds nothing
//! new, and killed then. Orphans stay below us because we are their subreaper.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// How long a kill may take before we give up on processes that do not die (a dead file server).
const PATIENCE: Duration = Duration::from_secs(10);

/// Every process below `root`, as `/proc` shows it now.
///
/// An error means that nothing is known, which is not the same as that there are none: our own
/// table of descriptors may be full.
pub(crate) fn descendants(root: u32) -> io::Result<Vec<u32>> {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Some(parent) = parent(pid)? else { continue };
        children.entry(parent).or_default().push(pid);
    }
    let (mut found, mut next) = (Vec::new(), vec![root]);
    while let Some(pid) = next.pop() {
        for child in children.remove(&pid).unwrap_or_default() {
            found.push(child);
            next.push(child);
        }
    }
    Ok(found)
}

/// The parent of a process. The name in the second field may hold anything, so fields are counted
/// from its closing parenthesis.
fn parent(pid: u32) -> io::Result<Option<u32>> {
    match fs::read(format!("/proc/{pid}/stat")) {
        Ok(stat) => {
            let fields = stat.iter().rposition(|byte| *byte == b')').map(|end| String::from_utf8_lossy(&stat[end + 1..]).into_owned());
            Ok(fields.and_then(|fields| fields.split_whitespace().nth(1)?.parse().ok()))
        }
        Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => Err(error),
        // It has gone in between.
        Err(_) => Ok(None),
    }
}

/// Kills every descendant of this process and reaps what becomes its child.
///
/// A look at all processes takes a moment, in which one whose parent ends may be missed: it is over
/// when two looks in a row found nobody.
pub(crate) fn kill_descendants() {
    let own = std::process::id();
    let start = Instant::now();
    let mut empty_looks = 0;
    while empty_looks < 2 && start.elapsed() < PATIENCE {
        let (mut stopped, mut unknown) = (HashSet::new(), false);
        loop {
            let found = descendants(own).unwrap_or_else(|_| {
                unknown = true;
                Vec::new()
            });
            let new: Vec<u32> = found.into_iter().filter(|pid| stopped.insert(*pid)).collect();
            if new.is_empty() {
                break;
            }
            signal_all(&new, Signal::STOP);
        }
        empty_looks = if stopped.is_empty() && !unknown { empty_looks + 1 } else { 0 };
        signal_all(stopped.iter(), Signal::KILL);
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn signal_all<'a>(pids: impl IntoIterator<Item = &'a u32>, signal: Signal) {
    for pid in pids {
        if let Some(pid) = Pid::from_raw(*pid as i32) {
            // Gone already, or nothing we may do about it: the next look tells.
            let _ = kill_process(pid, signal);
        }
    }
}
