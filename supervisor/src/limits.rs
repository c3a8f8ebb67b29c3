//! Every bound of the supervisor, in one place. What the agent can make us hold ends here.

/// Egress and audit.
pub mod egress {
    use std::time::Duration;

    /// From putting a policy in force until its index is held to its rules: the agent is started first.
    pub const VERIFY_AFTER: Duration = Duration::from_millis(20);
    /// Records that wait for the gateway's acknowledgement.
    pub const AUDIT_RECORDS: usize = 8192;
    /// Bytes of records that wait for the gateway's acknowledgement.
    pub const AUDIT_BYTES: usize = 8 * 1024 * 1024;
    /// Bytes of one text in a record (a message, a field); longer ones are cut and marked.
    pub const AUDIT_TEXT_BYTES: usize = 4096;
    /// Connections that egress carries at one time for one sandbox.
    pub const CONNECTIONS: usize = 1024;
    /// Names that policy DNS hands out addresses for, for the life of a sandbox.
    pub const SYNTHETIC_NAMES: usize = 16_384;
    /// Bytes of a DNS message that is looked at.
    pub const DNS_MESSAGE_BYTES: usize = 4096;
    /// Seconds for which a client may keep an answer of policy DNS.
    pub const DNS_TTL_SECONDS: u32 = 30;
    /// Lookups in the system's resolver at one time.
    pub const LOOKUPS: usize = 16;
    /// Names whose addresses are remembered.
    pub const LOOKUP_CACHE_NAMES: u64 = 1024;
    /// How long looked-up addresses are remembered.
    pub const LOOKUP_CACHE_TIME: Duration = Duration::from_secs(5);
    /// How long one lookup may take.
    pub const LOOKUP_TIME: Duration = Duration::from_secs(5);
    /// Addresses of one name that are checked and tried; a name with more is refused.
    pub const ADDRESSES_PER_NAME: usize = 32;
    /// How long all attempts to connect upstream may take together.
    pub const CONNECT_TIME: Duration = Duration::from_secs(15);
    /// Head start of an address before the next one is tried beside it (RFC 8305, section 5).
    pub const CONNECT_STAGGER: Duration = Duration::from_millis(250);
    /// How long a TLS handshake may take, on either side.
    pub const HANDSHAKE_TIME: Duration = Duration::from_secs(15);
    /// Bytes of a ClientHello that are waited for before the server name is known.
    pub const CLIENT_HELLO_BYTES: usize = 64 * 1024;
    /// How long a client may take to say what it speaks, and to send a request's head.
    pub const HEAD_TIME: Duration = Duration::from_mins(1);
    /// How long an inspected connection may be idle between two requests.
    pub const KEEP_ALIVE_TIME: Duration = Duration::from_mins(5);
    /// Bytes of a request's or response's head.
    pub const HEAD_BYTES: usize = 64 * 1024;
    /// Header fields of a request.
    pub const HEADERS: usize = 128;
    /// Bytes of a request's path, before and after it is made canonical.
    pub const PATH_BYTES: usize = 4096;
    /// Bytes of a request's query string.
    pub const QUERY_BYTES: usize = 32 * 1024;
    /// Parameters of a query string.
    pub const QUERY_PARAMETERS: usize = 1024;
    /// Bytes of a CONNECT request's head.
    pub const PROXY_HEAD_BYTES: usize = 8 * 1024;
    /// Bytes of a buffer that carries a connection where `splice(2)` cannot.
    pub const RELAY_BUFFER_BYTES: usize = 64 * 1024;
    /// Hosts whose certificate and TLS configuration are kept.
    pub const CERTIFICATES: u64 = 256;
    /// TLS sessions that are remembered for upstream resumption.
    pub const UPSTREAM_SESSIONS: usize = 256;
    /// Executables whose hash is remembered.
    pub const IDENTITIES: u64 = 4096;
    /// Ancestors of a process that are looked at.
    pub const ANCESTORS: usize = 64;
    /// Executables whose content is remembered from their first use.
    pub const FIRST_USES: usize = 16_384;
    /// Credentials of one sandbox.
    pub const CREDENTIALS: usize = 256;
    /// Bytes of one credential's value.
    pub const CREDENTIAL_BYTES: usize = 16 * 1024;
}

/// Session with the gateway, and the processes that it asks for.
pub mod session {
    use std::time::Duration;

    /// Bytes of a container's last words: what the kubelet keeps of them.
    pub const LAST_WORDS_BYTES: usize = 4096;
    /// Bytes of the bootstrap document.
    pub const BOOTSTRAP_BYTES: usize = 1024 * 1024;
    /// How long a connection to the gateway may take, handshake included.
    pub const CONNECT_TIME: Duration = Duration::from_secs(10);
    /// How long the gateway may take to answer `Hello`.
    pub const ACCEPT_TIME: Duration = Duration::from_secs(15);
    /// When the renewal of a sandbox token is tried again.
    pub const RENEW_AGAIN: Duration = Duration::from_secs(10);
    /// Largest service account token, in bytes.
    pub const TOKEN_BYTES: usize = 64 << 10;
    /// Silent heartbeat intervals after which the session is over.
    pub const SILENT_INTERVALS: u32 = 3;
    /// Bounds of the interval that a gateway may ask for.
    pub const HEARTBEAT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_mins(1));
    /// First and largest bound of the random wait before connecting again.
    pub const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(10));
    /// Messages on their way to the gateway.
    pub const OUTGOING: usize = 64;
    /// Records of one log batch.
    pub const LOG_BATCH: usize = 256;
    /// Batches that are sent before the first of them is acknowledged.
    pub const LOG_BATCHES_UNACKNOWLEDGED: usize = 4;
    /// Records that are not acknowledged after this time are sent again.
    pub const LOG_RESEND: Duration = Duration::from_secs(5);
    /// How long the end of a sandbox waits for the gateway to take the last report and records.
    pub const FLUSH_TIME: Duration = Duration::from_millis(500);
    /// Bytes of a configuration from the gateway.
    pub const CONFIG_BYTES: usize = 16 * 1024 * 1024;
    /// Variables of an environment.
    pub const ENVIRONMENT: usize = 1024;
    /// Bytes of a variable's name and value.
    pub const ENVIRONMENT_BYTES: usize = 128 * 1024;
    /// Arguments of a command.
    pub const ARGUMENTS: usize = 4096;
    /// Bytes of all arguments of a command.
    pub const ARGUMENTS_BYTES: usize = 1024 * 1024;
    /// Execs and attachments at one time.
    pub const RELAYS: usize = 64;
    /// How long an exec waits for the sandbox to be confined.
    pub const READY_TIME: Duration = Duration::from_secs(10);
    /// Bytes of one chunk of a relay.
    pub const CHUNK_BYTES: usize = 32 * 1024;
    /// Chunks of a relay on their way in each direction.
    pub const CHUNKS: usize = 8;
    /// Bytes of the main process's output that are kept for whoever attaches later.
    pub const RING_BYTES: usize = 1024 * 1024;
    /// Chunks of the main process's output that someone attached may be behind.
    pub const ATTACH_CHUNKS: usize = 256;
    /// Bytes of a line of output in the log; a longer one is several records.
    pub const LINE_BYTES: usize = 4096;
    /// Between SIGTERM and SIGKILL when an exec's time is over (the reference's value).
    pub const TIMEOUT_GRACE: Duration = Duration::from_millis(100);
    /// Between SIGHUP and SIGKILL when an exec's client has gone.
    pub const HANGUP_GRACE: Duration = Duration::from_secs(2);
    /// Between SIGTERM and SIGKILL when the sandbox ends, unless the gateway says otherwise.
    pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);
    /// Longest grace that a gateway can ask for.
    pub const SHUTDOWN_GRACE_MAX: Duration = Duration::from_mins(1);
    /// How long output is read after its process has ended: a daemon may hold the pipe.
    pub const DRAIN_TIME: Duration = Duration::from_millis(250);
}

/// Confinement.
pub mod confine {
    use std::time::Duration;

    /// How long entering the domain may take.
    pub const CONFINE_TIME: Duration = Duration::from_secs(20);
    /// How long a program may take from the request to its first instruction.
    pub const SPAWN_TIME: Duration = Duration::from_secs(10);
    /// Ends of programs that wait for the session.
    pub const EXITS: usize = 1024;
}

/// The broker.
pub mod broker {
    use std::time::Duration;

    /// Threads that wait for the agent's calls.
    pub const THREADS: usize = 4;
    /// Sockets of one sandbox that the broker knows; one more is `EMFILE`. Never more than a
    /// quarter of the descriptors the supervisor may have.
    pub const SOCKETS: usize = 4096;
    /// Connects of one sandbox that are being decided or dialled; one more is `EAGAIN`.
    pub const CONNECTS: usize = 1024;
    /// Threads for connects that the agent can make hang; further ones wait for a thread.
    pub const WAITING_THREADS: usize = 64;
    /// Senders of waiting datagrams that one socket remembers; of older ones the sender is lost.
    pub const SENDERS: usize = 1024;
    /// Datagrams of one socket that are carried before others have their turn.
    pub const DATAGRAMS_PER_TURN: usize = 16;
    /// Receives that wait for a datagram; one more is `EAGAIN`.
    pub const RECEIVES: usize = 1024;
    /// Queries to policy DNS at one time; one more datagram is dropped.
    pub const QUERIES: usize = 128;
    /// Bytes of a datagram (RFC 768 over IPv4).
    pub const DATAGRAM_BYTES: usize = 65_507;
    /// Datagrams of one `sendmmsg(2)`.
    pub const DATAGRAMS_PER_CALL: usize = 64;
    /// Buffers of one message (`UIO_MAXIOV`).
    pub const BUFFERS_PER_MESSAGE: usize = 1024;
    /// Bytes of a DNS message over TCP.
    pub const DNS_MESSAGE_BYTES: usize = 4096;
    /// How long a DNS client over TCP may be idle.
    pub const DNS_IDLE_TIME: Duration = Duration::from_secs(10);
    /// How long a non-blocking connect is held back so that its error can be the real one.
    pub const CONNECT_HEAD_START: Duration = Duration::from_millis(50);
    /// How often a call that waits is checked to be still there.
    pub const STILL_THERE: Duration = Duration::from_millis(250);
    /// Connections to our listener that nobody has registered yet.
    pub const UNCLAIMED: usize = 256;
    /// How long a connection or a registration waits for its counterpart.
    pub const CLAIM_TIME: Duration = Duration::from_secs(2);
    /// Connections that wait at our listener.
    pub const BACKLOG: i32 = 4096;
    /// How often sockets that the agent has closed are looked for.
    pub const COLLECT_EVERY: Duration = Duration::from_secs(1);
    /// Least time between two looks that were asked for by a full table.
    pub const COLLECT_AGAIN: Duration = Duration::from_millis(20);
    /// How long a thread of ours that is at work with a socket is waited for.
    pub const TURN: Duration = Duration::from_millis(50);
    /// How long a connection to a server inside the sandbox may take.
    pub const DIAL_INSIDE_TIME: Duration = Duration::from_secs(5);
}
