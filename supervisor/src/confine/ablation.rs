//! Walls that can be taken down one by one, in builds with the `ablation` feature only, so that
//! the escape suite can show that each of them holds by itself.
//!
//! `OPENSHELL_ABLATE` is a comma separated list of the names in [`Wall::ALL`], read once at start.
//! Without the feature [`Wall::stands`] is the constant `true`.

macro_rules! walls {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// One wall between the agent and what is outside.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Wall {
            $($(#[$doc])* $variant,)*
        }

        impl Wall {
            /// Every wall.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

walls! {
    /// The broker decides each connect; without it everything it is asked for is dialled.
    BrokerDecision = "broker-decision",
    /// `connect`, `bind` and the other socket calls are answered by the broker.
    NotifyFilter = "notify-filter",
    /// Landlock denies TCP bind and connect.
    LandlockNet = "landlock-net",
    /// Landlock denies what no grant covers.
    LandlockFs = "landlock-fs",
    /// Landlock keeps signals and abstract sockets inside.
    LandlockScope = "landlock-scope",
    /// TCP sockets are bound to the loopback device.
    BindToDevice = "bindtodevice",
    /// An empty network namespace.
    NetworkNamespace = "netns",
    /// A mount namespace with a private `/tmp` and a masked `/run`.
    MountNamespace = "mountns",
    /// A PID namespace.
    PidNamespace = "pidns",
    /// Socket families other than UNIX, INET, INET6 and route netlink do not exist.
    FamilyFilter = "family-filter",
    /// UDP sockets are emulated; without it they are real.
    UdpEmulation = "udp-emulation",
    /// `MSG_FASTOPEN` is refused.
    FastOpenFilter = "fastopen-filter",
    /// `io_uring` is refused.
    IoUringFilter = "deny-filter-io_uring",
    /// `ptrace`, `process_vm_*`, `pidfd_getfd` and `kcmp` are refused.
    PtraceFilter = "deny-filter-ptrace",
    /// Namespaces and mounts are refused.
    NamespaceFilter = "deny-filter-namespaces",
    /// Other architectures are refused.
    ArchitectureFilter = "architecture-filter",
    /// Only checked descriptors are inherited.
    InheritedDescriptors = "fd-inheritance",
    /// The processes of ours are not dumpable.
    Dumpable = "dumpable",
    /// Every capability is dropped.
    Capabilities = "caps-drop",
    /// The agent has a user of its own (root only).
    RunAs = "run-as",
    /// The guardian kills what is left when the supervisor dies.
    Guardian = "guardian",
    /// The control process kills what is left when the supervisor dies.
    Control = "control",
    /// UNIX socket paths are checked.
    UnixPath = "unix-path-check",
    /// Loopback is private.
    PrivateLoopback = "private-loopback",
}

impl Wall {
    /// Whether the wall is up.
    #[cfg(not(feature = "ablation"))]
    #[inline]
    pub const fn stands(self) -> bool {
        true
    }

    /// Whether the wall is up.
    #[cfg(feature = "ablation")]
    pub fn stands(self) -> bool {
        use std::sync::OnceLock;
        static DOWN: OnceLock<Vec<String>> = OnceLock::new();
        let down = DOWN.get_or_init(|| {
            let list = std::env::var("OPENSHELL_ABLATE").unwrap_or_default();
            list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
        });
        !down.iter().any(|name| name == self.name() || name == "all")
    }
}
