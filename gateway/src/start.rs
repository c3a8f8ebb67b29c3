//! Why a gateway does not start: one error, what it means, and what to do next.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::auth::RulesError;
use crate::pki::PkiError;
use crate::settings::SettingsError;
use crate::state::StateError;

/// Why a gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A flag or a variable.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// Keys and certificates.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// A defect of ours in the API's descriptors.
    #[error(transparent)]
    Rules(#[from] RulesError),
    /// TLS refuses our own certificate.
    #[error("TLS cannot use the certificates: {0}")]
    Tls(#[from] rustls::Error),
    /// The address is not to be had.
    #[error("cannot listen on {address}: {reason}")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not, with the holder if it is known.
        reason: String,
        /// What the system said.
        kind: io::ErrorKind,
    },
    /// The store.
    #[error("cannot open the store: {0}")]
    Store(String),
    /// The Kubernetes API.
    #[error("the Kubernetes API cannot be used: {0}")]
    Cluster(String),
    /// A file of a mounted Secret.
    #[error("{} cannot be read: {reason}", path.display())]
    Mounted {
        /// The file.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// No driver, or an unknown one.
    #[error("{0}")]
    Driver(String),
    /// It had to end after it had started.
    #[error("the gateway cannot go on: {0}")]
    Failed(String),
    /// SIGTERM could not be handled.
    #[error("cannot handle signals: {0}")]
    Signals(io::Error),
}

impl StartError {
    /// What to do next.
    pub fn help(&self) -> String {
        match self {
            Self::Settings(error) => error.help(),
            Self::State(StateError::Locked { .. }) => "use the gateway that runs, or end it with `openshell gateway stop`".to_owned(),
            Self::State(StateError::NotPrivate { .. }) => {
                "run the gateway as the owner of the directory, or set XDG_STATE_HOME and XDG_CONFIG_HOME to directories of your own"
                    .to_owned()
            }
            Self::State(StateError::Io { source, .. }) | Self::Pki(PkiError::State(StateError::Io { source, .. })) => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                    "make room on the file system, then start the gateway again".to_owned()
                }
                _ => {
                    "check the owner and the permissions of the path, or set XDG_STATE_HOME and XDG_CONFIG_HOME to directories of your own"
                        .to_owned()
                }
            },
            Self::Pki(PkiError::AuthorityIncomplete { certificate, .. }) => format!(
                "restore the key, or move {} away: the gateway then makes a new authority, and running sandboxes and remote clients lose their access",
                certificate.display()
            ),
            Self::Pki(PkiError::Unusable { path, .. }) => {
                format!("restore {} from a copy, or move it away: the gateway makes a new one", path.display())
            }
            Self::Bind { kind: io::ErrorKind::AddrInUse, .. } => {
                "end that process, or choose another port with --port (OPENSHELL_SERVER_PORT)".to_owned()
            }
            Self::Bind { kind: io::ErrorKind::PermissionDenied, .. } => "choose a port above 1023 with --port".to_owned(),
            Self::Bind { .. } => "choose an address of this machine with --bind-address".to_owned(),
            Self::Store(_) => "check that the disk has room and that the state directory is on a local file system".to_owned(),
            Self::Cluster(_) => "run it in a pod whose service account the operator made, or name a cluster with KUBECONFIG".to_owned(),
            Self::Mounted { .. } => {
                "the operator makes the Secrets of a gateway and mounts them: see the conditions of the OpenShellGateway".to_owned()
            }
            Self::Driver(_) => "name a driver that is there with --drivers".to_owned(),
            Self::Pki(_) | Self::Rules(_) | Self::Tls(_) | Self::Signals(_) | Self::Failed(_) => {
                "this is a defect of the gateway: please report it with its log".to_owned()
            }
        }
    }

    /// Exit code, after `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => 64,
            Self::Bind { .. } | Self::Cluster(_) => 69,
            Self::Rules(_) | Self::Tls(_) | Self::Signals(_) | Self::Failed(_) => 70,
            Self::State(StateError::Locked { .. }) => 75,
            Self::State(_) | Self::Pki(_) | Self::Store(_) | Self::Mounted { .. } => 73,
            Self::Driver(_) => 78,
        }
    }
}
