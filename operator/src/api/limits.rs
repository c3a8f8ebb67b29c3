//! Every bound of the API service, in one place.

use std::time::Duration;

/// Largest request body, in bytes (what an API server takes: 3 MiB).
pub const MAX_BODY: usize = 3 * 1024 * 1024;
/// Largest stored object, in bytes (what etcd takes: 1.5 MiB).
pub const MAX_OBJECT: usize = 1536 * 1024;
/// Largest sum of a Secret's values, in bytes (as in Kubernetes).
pub const MAX_SECRET: usize = 1024 * 1024;
/// Largest sum of an object's annotations, in bytes (as in Kubernetes).
pub const MAX_ANNOTATIONS: usize = 256 * 1024;
/// Objects that the store holds. A create beyond it is refused.
pub const MAX_OBJECTS: usize = 100_000;
/// Writes that wait for the writer. Further ones wait in their callers.
pub const WRITE_QUEUE: usize = 256;
/// Events kept for watches that resume. Older ones are compacted.
pub const EVENTS: usize = 8192;
/// Bytes of objects that those events may hold.
pub const EVENT_BYTES: usize = 64 * 1024 * 1024;
/// Events that one step of a watch writes at most.
pub const WATCH_BATCH: usize = 256;
/// Watches at a time.
pub const WATCHES: usize = 4096;
/// How long a watch lasts when the client does not say.
pub const WATCH_DEFAULT: Duration = Duration::from_mins(30);
/// How long a watch lasts at most.
pub const WATCH_MAX: Duration = Duration::from_hours(1);
/// A watch that asked for bookmarks gets one this often.
pub const BOOKMARK_INTERVAL: Duration = Duration::from_secs(30);
/// How long SQLite waits for another connection's write.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pages of 4 KiB that the database may have: 4 GiB, sandbox logs included.
pub const DATABASE_PAGES: u32 = 1024 * 1024;
/// Connections of the pool that readers of secret values and logs share.
pub const POOL: u32 = 4;
/// Depth of a JSON document (what serde_json refuses beyond is 128).
pub const MAX_DEPTH: usize = 96;
/// Operations in one JSON patch (as in an API server).
pub const MAX_PATCH_OPERATIONS: usize = 10_000;
/// Attempts to find a free name for `generateName`.
pub const GENERATE_NAME_ATTEMPTS: usize = 8;
/// Causes that one refusal lists.
pub const MAX_CAUSES: usize = 32;
/// Length of a label or field selector.
pub const MAX_SELECTOR: usize = 4096;
