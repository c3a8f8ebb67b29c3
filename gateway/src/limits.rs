//! Every bound of the gateway, in one place.
//!
//! The numbers of requests and objects are the reference system's where it has one, so that a
//! client that works there works here; the others say where they come from.

use std::time::Duration;

/// Largest message that is read from a client: 4 MiB of standard input and its envelope.
pub const MESSAGE_BYTES: usize = 4 * 1024 * 1024 + 64 * 1024;
/// Pause between two looks at the addresses in a cluster that no sandbox may reach.
pub const PLACES_INTERVAL: Duration = Duration::from_secs(15);
/// Connections at a time; the next one waits in the kernel's queue.
pub const CONNECTIONS: usize = 1024;
/// Calls at a time on one connection. A supervisor carries all its relays on one.
pub const STREAMS_PER_CONNECTION: u32 = 256;
/// All headers of one request.
pub const HEADER_BYTES: u32 = 32 * 1024;
/// Time for a TLS handshake, and for the headers of an HTTP/1.1 request.
pub const HANDSHAKE: Duration = Duration::from_secs(10);
/// A connection is asked for a sign of life after this time without one.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
/// It is closed when none comes within this time.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);
/// Commands that are under way get this long when the gateway ends.
pub const DRAIN: Duration = Duration::from_secs(5);
/// After that, sessions and controllers get this long.
pub const FAREWELL: Duration = Duration::from_secs(2);
/// Calls by users that change or read objects end after this time.
pub const OBJECT_CALL: Duration = Duration::from_secs(30);

/// Name of a sandbox or a workspace: host names of services are made of it.
pub const NAME_LENGTH: usize = 19;
/// Name of an object that no host name is made of.
pub const OBJECT_NAME_LENGTH: usize = 253;
/// Environment variables of a sandbox or an exec.
pub const ENVIRONMENT_ENTRIES: usize = 128;
/// Length of a variable's name.
pub const ENVIRONMENT_KEY_BYTES: usize = 256;
/// Length of a variable's value.
pub const ENVIRONMENT_VALUE_BYTES: usize = 8192;
/// All names and values of an environment together.
pub const ENVIRONMENT_BYTES: usize = 256 * 1024;
/// Value of `OPENSHELL_PYFUNC_B64` in an exec: a pickled Python function with its arguments.
pub const PYTHON_FUNCTION_BYTES: usize = 128 * 1024 - 64;
/// Providers of a sandbox.
pub const PROVIDERS_PER_SANDBOX: usize = 32;
/// A policy in its wire form.
pub const POLICY_BYTES: usize = 256 * 1024;
/// Labels and annotations of an object.
pub const METADATA_ENTRIES: usize = 128;
/// An annotation's value.
pub const ANNOTATION_VALUE_BYTES: usize = 8192;
/// Pairs in a label selector.
pub const SELECTOR_PAIRS: usize = 64;
/// Arguments of a main process.
pub const COMMAND_ARGS: usize = 256;
/// All arguments of a main process together.
pub const COMMAND_BYTES: usize = 256 * 1024;
/// One argument of a main process or an exec.
pub const ARG_BYTES: usize = 32 * 1024;
/// Arguments of an exec.
pub const EXEC_ARGS: usize = 1024;
/// All arguments of an exec together.
pub const EXEC_COMMAND_BYTES: usize = 256 * 1024;
/// Working directory of an exec.
pub const WORKDIR_BYTES: usize = 4096;
/// Standard input that fits into one `ExecSandbox` request.
pub const EXEC_STDIN_BYTES: usize = 4 * 1024 * 1024;
/// Longest time that an exec may ask for: a week.
pub const EXEC_TIMEOUT: Duration = Duration::from_hours(7 * 24);
/// Columns or rows of a terminal.
pub const TERMINAL_CELLS: u32 = 4096;
/// A log level's name.
pub const LOG_LEVEL_BYTES: usize = 32;
/// Credentials of a provider.
pub const PROVIDER_CREDENTIALS: usize = 32;
/// A credential's value; a Kubernetes Secret holds 1 MiB in all.
pub const CREDENTIAL_BYTES: usize = 16 * 1024;
/// Settings of a provider.
pub const PROVIDER_CONFIG: usize = 64;
/// A provider's type.
pub const PROVIDER_TYPE_LENGTH: usize = 64;
/// Endpoints of a provider.
pub const PROVIDER_ENDPOINTS: usize = 32;
/// Default number of items on a page.
pub const PAGE_DEFAULT: usize = 100;
/// Greatest number of items on a page.
pub const PAGE_MAX: usize = 1000;
/// Default number of policy revisions on a page.
pub const POLICY_PAGE_DEFAULT: usize = 50;
/// A page token that is longer was not made by us.
pub const PAGE_TOKEN_BYTES: usize = 4096;
/// Default and greatest number of log lines in an answer.
pub const LOG_LINES: usize = 2000;
/// Log lines before the live ones when a watch does not say.
pub const WATCH_TAIL: usize = 200;
/// Events of one watch that wait for a slow reader; it is caught up from the store, or sees the newest state.
pub const WATCH_QUEUE: usize = 256;
/// Answers remembered for requests that carry a `request_id`.
pub const REMEMBERED_REQUESTS: usize = 1024;
/// How long they are remembered.
pub const REMEMBER_REQUEST: Duration = Duration::from_mins(10);
/// A `request_id`.
pub const REQUEST_ID_BYTES: usize = 128;
/// How often a write is tried again when another writer came first.
pub const CONFLICT_RETRIES: usize = 5;

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
/// The last activity of a sandbox with an idle timeout is written at most this often. The shortest
/// idle timeout is half as long again: what is written is never too old to decide from.
pub const ACTIVITY_INTERVAL: Duration = Duration::from_mins(1);
/// A status that is still changing is written at the latest after this time.
pub const STATUS_COALESCE: Duration = Duration::from_millis(250);
/// Attempts to write a status over conflicts and failures before waiting for the next change.
pub const STATUS_ATTEMPTS: u32 = 6;
/// How long a supervisor may take to end a sandbox after `Shutdown`.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How long a log database that is busy is waited for.
pub const LOG_BUSY_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to a log database of its own.
pub const LOG_CONNECTIONS: u32 = 4;

// ---- token exchange ----------------------------------------------------------------------

/// Service account tokens that are asked about at a time.
pub const EXCHANGES: usize = 16;
/// How long an exchanged sandbox token lasts.
pub const TOKEN_LIFETIME: Duration = Duration::from_hours(1);
