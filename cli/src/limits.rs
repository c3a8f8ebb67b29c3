//! Every bound of the command, in one place.

use std::time::Duration;

/// Longest wait for a TCP and TLS connection to a gateway.
pub(crate) const CONNECT: Duration = Duration::from_secs(5);
/// Longest wait for an answer to a call that is neither a stream nor a wait.
pub(crate) const CALL: Duration = Duration::from_secs(30);
/// How long a gateway that we started may take until it answers.
pub(crate) const GATEWAY_START: Duration = Duration::from_secs(20);
/// How long a gateway may take to end after SIGTERM.
pub(crate) const GATEWAY_STOP: Duration = Duration::from_secs(30);
/// Between two looks at something that has no notification.
pub(crate) const POLL: Duration = Duration::from_millis(50);
/// Between two attempts to watch a sandbox when the stream broke.
pub(crate) const WATCH_RETRY: Duration = Duration::from_millis(250);
/// How long provisioning may go without progress, unless `OPENSHELL_PROVISION_TIMEOUT` says.
pub(crate) const PROVISION_IDLE: Duration = Duration::from_mins(5);
/// How long a stop or a start may take, unless `OPENSHELL_LIFECYCLE_TIMEOUT` says.
pub(crate) const LIFECYCLE: Duration = Duration::from_mins(5);
/// How long the deletion of a `--no-keep` sandbox may hold the command back.
pub(crate) const CLEANUP: Duration = Duration::from_secs(10);
/// Largest policy or object file that is read.
pub(crate) const FILE_BYTES: u64 = 1024 * 1024;
/// Documents in one object file.
pub(crate) const DOCUMENTS: usize = 1000;
/// Aliases in an object file; objects written by people have few, bombs are made of them.
pub(crate) const ALIASES: usize = 100;
/// Scalars, beginnings and ends in an object file, aliases followed.
pub(crate) const YAML_EVENTS: usize = 300_000;
/// Bytes of standard input in one message; a gateway takes up to 1 MiB.
pub(crate) const STDIN_CHUNK: usize = 32 * 1024;
/// Messages of standard input that wait for the network.
pub(crate) const STDIN_QUEUE: usize = 16;
/// Objects in one page of a list.
pub(crate) const PAGE: i32 = 100;
/// Largest value of `--limit`.
pub(crate) const LIST: u32 = 1000;
/// Bytes from the end of a gateway's log that are shown when it failed to start.
pub(crate) const LOG_TAIL_BYTES: u64 = 4096;
/// Bytes of a metadata, certificate or other file of the configuration directory.
pub(crate) const CONFIG_BYTES: u64 = 256 * 1024;
/// Bytes that `openshell-sandbox doctor` may print.
pub(crate) const DOCTOR_BYTES: usize = 1024 * 1024;
/// Port of a gateway in a cluster whose Service names none.
pub(crate) const CLUSTER_PORT: i32 = 8080;
