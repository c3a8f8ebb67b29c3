//! Who opened a connection.
//!
//! The broker captures an identity while the call is pending, so that the process it names cannot
//! have gone. The executable is what the kernel says (`/proc/<pid>/exe`), never an argument. Its
//! content is hashed once and remembered by file and change time; a path whose content changes
//! while the sandbox lives is marked, and egress refuses it: whoever was granted is not there any
//! more.
//!
//! Ancestors end at the launcher: what lies above it is ours, not the agent's. A daemon that was
//! adopted by the subreaper has no ancestors.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    sync::Arc,
};

use moka::sync::Cache;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};

use crate::limits::egress::{ANCESTORS, FIRST_USES, IDENTITIES};

/// The process that made a call, as it was while the call was pending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Process id as the supervisor sees it.
    pub pid: u32,
    /// Start time in clock ticks since boot, from `/proc/<pid>/stat`: tells a reused id.
    pub start_time: u64,
    /// Absolute path of the executable. One that has been deleted is `(deleted) <path>`, which
    /// no absolute pattern matches.
    pub exe: String,
    /// SHA-256 of the executable, hex; empty when it could not be read.
    pub sha256: String,
    /// Executables of the ancestors inside the sandbox, nearest first.
    pub ancestors: Vec<String>,
    /// Whether the executables are those that were first seen at their paths.
    pub integrity: Integrity,
}

/// Whether executables are what they were at their first use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Integrity {
    /// They are.
    #[default]
    Unchanged,
    /// The file at this path had another content when it was first used.
    Changed {
        /// Path of the executable.
        path: String,
    },
    /// More executables were used than are remembered: nothing is known about this one.
    Unknown,
}

/// A file's content, as far as the kernel tells: any write changes the change time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Content {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// Captures identities; remembers hashes.
#[derive(Debug)]
pub struct Identities {
    own: u32,
    /// Device and inode of our own executable: the launcher's, and the end of every walk.
    own_exe: Option<(u64, u64)>,
    hashes: Cache<Content, Arc<str>>,
    first_use: Mutex<HashMap<String, Arc<str>>>,
}

impl Default for Identities {
    fn default() -> Self {
        Self::new()
    }
}

impl Identities {
    /// For the sandbox of this process.
    pub fn new() -> Self {
        let own_exe = std::fs::metadata("/proc/self/exe").ok().map(|meta| (meta.dev(), meta.ino()));
        Self { own: std::process::id(), own_exe, hashes: Cache::new(IDENTITIES), first_use: Mutex::default() }
    }

    /// Who process `pid` is. May read an executable that has not been seen before (a second for
    /// the largest); otherwise it takes a few reads below `/proc`.
    pub fn capture(&self, pid: u32) -> io::Result<Arc<Identity>> {
        let stat = Stat::read(pid)?;
        let (exe, sha256, mut integrity) = self.executable(pid)?;
        let mut ancestors = Vec::new();
        let mut next = stat.parent;
        while ancestors.len() < ANCESTORS && next > 1 && next != self.own {
            let Ok(stat) = Stat::read(next) else { break };
            if self.is_ours(next) {
                break;
            }
            let Ok((exe, _, trust)) = self.executable(next) else { break };
            if integrity == Integrity::Unchanged {
                integrity = trust;
            }
            ancestors.push(exe);
            next = stat.parent;
        }
        if Stat::read(pid)?.start_time != stat.start_time {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("process {pid} ended")));
        }
        Ok(Arc::new(Identity { pid, start_time: stat.start_time, exe, sha256, ancestors, integrity }))
    }

    fn is_ours(&self, pid: u32) -> bool {
        let Some(own) = self.own_exe else { return false };
        std::fs::metadata(format!("/proc/{pid}/exe")).is_ok_and(|meta| (meta.dev(), meta.ino()) == own)
    }

    /// Path, hash and integrity of a process's executable.
    fn executable(&self, pid: u32) -> io::Result<(String, String, Integrity)> {
        let link = format!("/proc/{pid}/exe");
        let path = std::fs::read_link(&link)?;
        let path = path.to_str().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the executable's path is not UTF-8"))?;
        let Ok(file) = File::open(&link) else {
            return Ok((path.to_owned(), String::new(), Integrity::Unchanged));
        };
        let meta = file.metadata()?;
        if meta.nlink() == 0 || (path.ends_with(" (deleted)") && !Path::new(path).exists()) {
            let path = format!("(deleted) {}", path.strip_suffix(" (deleted)").unwrap_or(path));
            return Ok((path, String::new(), Integrity::Unchanged));
        }
        let content = Content {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        };
        let hash = if let Some(hash) = self.hashes.get(&content) {
            hash
        } else {
            let hash: Arc<str> = hash_file(file)?.into();
            self.hashes.insert(content, hash.clone());
            hash
        };
        let integrity = self.compare(path, &hash);
        Ok((path.to_owned(), hash.as_ref().to_owned(), integrity))
    }

    /// Trust on first use: the content a path had first is the content it must keep.
    fn compare(&self, path: &str, hash: &Arc<str>) -> Integrity {
        let mut first = self.first_use.lock();
        match first.get(path) {
            Some(known) if known == hash => Integrity::Unchanged,
            Some(_) => Integrity::Changed { path: path.to_owned() },
            None if first.len() >= FIRST_USES => Integrity::Unknown,
            None => {
                first.insert(path.to_owned(), hash.clone());
                Integrity::Unchanged
            }
        }
    }
}

fn hash_file(mut file: File) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(hex::encode(hasher.finalize())),
            Ok(n) => hasher.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// The fields of `/proc/<pid>/stat` that matter here (proc_pid_stat(5)).
struct Stat {
    parent: u32,
    start_time: u64,
}

impl Stat {
    fn read(pid: u32) -> io::Result<Self> {
        let text = std::fs::read(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat cannot be read")))
    }

    /// The name in parentheses may hold anything, so fields are counted from the last one.
    fn parse(text: &[u8]) -> Option<Self> {
        let end = text.iter().rposition(|byte| *byte == b')')?;
        let mut fields = std::str::from_utf8(text.get(end + 1..)?).ok()?.split_ascii_whitespace();
        let parent = fields.nth(1)?.parse().ok()?;
        let start_time = fields.nth(17)?.parse().ok()?;
        Some(Self { parent, start_time })
    }
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
