//! Every bound of the gateway, in one place.

use std::time::Duration;

/// Interval of heartbeats on a supervisor's session; three silent ones end it.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a supervisor may take from the call to its `Hello`.
pub const HELLO_TIMEOUT: Duration = Duration::from_secs(10);
/// Messages on their way to one supervisor; a full queue ends the session, which resumes.
pub const SESSION_QUEUE: usize = 64;
/// Messages on their way from one session to its sandbox's task.
pub const SANDBOX_QUEUE: usize = 64;
/// How long `exec` and `attach` wait for a session, and then for the relay to open.
pub const RELAY_WAIT: Duration = Duration::from_secs(15);
/// Relays (execs, attachments) of one sandbox at a time.
pub const RELAYS_PER_SANDBOX: usize = 64;
/// Chunks in flight in each direction of a relay.
pub const RELAY_QUEUE: usize = 16;
/// Log records kept per sandbox; the oldest go first.
pub const LOG_RECORDS_PER_SANDBOX: u32 = 10_000;
/// Records in one batch from a supervisor.
pub const LOG_BATCH: usize = 1_024;
/// Bytes of one log message; longer ones are cut.
pub const LOG_MESSAGE_BYTES: usize = 32 * 1024;
/// Records that a slow follower may be behind before it misses some.
pub const LOG_FOLLOW_QUEUE: usize = 512;
/// How long a lost session may be away before the object says so.
pub const DISCONNECT_GRACE: Duration = Duration::from_millis(500);
/// The same after a start of the gateway, when every supervisor has to come back.
pub const RECONNECT_GRACE: Duration = Duration::from_secs(15);
/// A status that is still changing is written at the latest after this time.
pub const STATUS_COALESCE: Duration = Duration::from_millis(50);
/// Attempts to write a status over conflicts and failures before waiting for the next change.
pub const STATUS_ATTEMPTS: u32 = 6;
/// How long a supervisor may take to end a sandbox after `Shutdown`.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
