//! Who opened a connection.

/// The process that made a call, as it was while the call was pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Process id as the supervisor sees it.
    pub pid: u32,
    /// Start time in clock ticks since boot, from `/proc/<pid>/stat`: tells a reused id.
    pub start_time: u64,
    /// Absolute path of the executable.
    pub exe: String,
    /// SHA-256 of the executable, hex; empty when it could not be read.
    pub sha256: String,
    /// Executables of the ancestors inside the sandbox, nearest first.
    pub ancestors: Vec<String>,
}
