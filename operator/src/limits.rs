//! Every bound of the operator, in one place.

use std::time::Duration;

// ---- reconciler -------------------------------------------------------------------------

/// Sandboxes reconciled at a time. A reconcile of the local drivers is some milliseconds of
/// work; more at a time only queues them at the store.
pub const RECONCILE_CONCURRENCY: u16 = 16;
/// First pause after a failed reconcile of an object; doubled with each further failure.
pub const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Longest pause between two attempts on an object.
pub const BACKOFF_LONGEST: Duration = Duration::from_mins(1);
/// Attempts to write a status against concurrent writers before the object is queued again.
pub const STATUS_ATTEMPTS: usize = 8;
/// Fallback for missed events: every object is looked at this often.
pub const RESYNC: Duration = Duration::from_mins(10);
/// Counts on a `Policy` follow after this time, and are written no more often.
pub const USAGE_INTERVAL: Duration = Duration::from_secs(1);
/// Change notices a slow controller may be behind before it looks at everything instead.
pub const EVENT_BUFFER: usize = 4096;
/// Events that wait to be written; those beyond are lost, and said in the log.
pub const EVENTS_WAITING: usize = 1024;
/// Workloads without an object are looked for this often.
pub const ORPHAN_INTERVAL: Duration = Duration::from_mins(10);

// ---- watches ----------------------------------------------------------------------------

/// First pause after a watch broke; doubled with each further failure, with up to as much more so that
/// many do not come back together.
pub const WATCH_FIRST: Duration = Duration::from_millis(400);
/// Longest pause, without that.
pub const WATCH_LONGEST: Duration = Duration::from_secs(3);
/// A watch that has not failed for this long begins with the first pause again.
pub const WATCH_SETTLED: Duration = Duration::from_secs(30);

// ---- plan -------------------------------------------------------------------------------

/// A started supervisor must have a session within this time, or the sandbox is in error
/// (and recovers when the session comes after all).
pub const SESSION_DEADLINE: Duration = Duration::from_mins(1);
/// A new sandbox that is still being started is first said to be when it is this old.
pub const FIRST_STATUS: Duration = Duration::from_secs(3);
/// A started supervisor's session is waited for this long before its start is said.
pub const SESSION_MOMENT: Duration = Duration::from_secs(2);
/// From seeing that a workload was lost (evicted, its node gone) until it is started again.
pub const LOST_PAUSE: Duration = Duration::from_secs(5);
/// While something is stopping, it is looked at this often in case the driver's notice was lost.
pub const STOPPING_RECHECK: Duration = Duration::from_secs(5);

// ---- blueprint --------------------------------------------------------------------------

/// Longest message of a condition that carries findings, in characters. The API's bound is 32768.
pub const CONDITION_MESSAGE: usize = 4096;

// ---- revisions --------------------------------------------------------------------------

/// Policy revisions kept per sandbox; the oldest are deleted.
pub const REVISIONS_KEPT: usize = 100;
/// The first policy of a sandbox stands in its status up to this size, in bytes (the API's bound of
/// that field); a larger one is recorded at once.
pub const POLICY_IN_STATUS: usize = 32 << 10;
/// Attempts to find a free revision number against concurrent writers.
pub const REVISION_ATTEMPTS: usize = 8;

// ---- process driver ---------------------------------------------------------------------

/// From SIGTERM to SIGKILL when a sandbox is suspended.
pub const STOP_GRACE: Duration = Duration::from_secs(10);
/// From SIGTERM to SIGKILL when a sandbox is deleted.
pub const DELETE_GRACE: Duration = Duration::from_secs(3);
/// From SIGKILL until the driver reports that a workload will not go.
pub const KILL_GRACE: Duration = Duration::from_secs(10);
/// From giving a sandbox its supervisor until the next one is started: the sandbox has the machine
/// to itself meanwhile.
pub const SPARE_DELAY: Duration = Duration::from_millis(40);
/// Largest record file (`supervisor.json`, `failure.json`, `driver.json`) that is read, in bytes.
pub const RECORD_FILE: u64 = 64 << 10;
/// Largest bootstrap document, in bytes: it must fit into a pipe before anyone reads it.
pub const BOOTSTRAP: usize = 256 << 10;
/// What a pipe holds when it is made, in bytes: pipe(7).
pub const PIPE: usize = 64 << 10;
/// Changed sandboxes that a slow watcher may be behind before it is told of all of them.
pub const DRIVER_EVENTS: usize = 1024;
/// First uid of sandboxes when the driver runs as root.
pub const FIRST_UID: u32 = 64_000;
/// How many uids there are: sandboxes that root's driver can hold at a time.
pub const UID_COUNT: u32 = 1_000;
/// How often a supervisor is looked at where no descriptor tells of its end.
pub const LIVENESS_POLL: Duration = Duration::from_secs(1);
/// How soon a sandbox is looked at again that starts or stops without a process to wait for.
pub const TRANSITION_POLL: Duration = Duration::from_millis(20);

// ---- kubernetes driver ------------------------------------------------------------------

/// Port of a gateway's Service.
pub const GATEWAY_PORT: u16 = 8080;
/// From SIGTERM to SIGKILL when a pod is stopped.
pub const POD_GRACE: Duration = Duration::from_secs(10);
/// The same when its sandbox is deleted.
pub const POD_DELETE_GRACE: Duration = Duration::from_secs(2);
/// How long a pod's bootstrap token is good for; the kubelet replaces it before that.
pub const BOOTSTRAP_TOKEN: Duration = Duration::from_hours(1);
/// What keeps a pod from starting is said when it has lasted this long.
pub const WAITING_MOMENT: Duration = Duration::from_secs(1);
/// A pod of which nobody says why it is not started is asked for its events after this long.
pub const SILENT_START: Duration = Duration::from_secs(15);
/// A `Sandbox` that nobody has taken up for this long has no controller.
pub const CONTROLLER_SILENCE: Duration = Duration::from_secs(15);
/// How long a question waits for the first list of Sandboxes and pods.
pub const FIRST_LIST: Duration = Duration::from_secs(10);
/// How long a start waits for the first list of nodes.
pub const FIRST_NODES: Duration = Duration::from_secs(2);
/// While agent-sandbox is missing, it is looked for this often.
pub const DISCOVERY_INTERVAL: Duration = Duration::from_secs(3);
/// From a change of a node until the NetworkPolicy follows: nodes come in groups.
pub const NODES_SETTLE: Duration = Duration::from_secs(1);

// ---- leader election --------------------------------------------------------------------

/// How long a lease is good for after its last renewal.
pub const LEASE_DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for this long ends.
pub const LEASE_RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two attempts to get or renew it.
pub const LEASE_RETRY: Duration = Duration::from_secs(2);
