//! Flags and environment of `openshell-gateway`: the only place that reads them.
//!
//! Names and defaults are the reference system's. What it has and we do not honour yet is
//! refused when it is set: silently running without a setting that somebody relies on would be
//! worse than not running.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::serve::Transport;
use crate::state::Directories;

/// The gateway of this machine.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "openshell-gateway",
    version,
    args_override_self = true,
    about = "Serves openshell.v1 on this machine, and runs its sandboxes"
)]
pub struct Flags {
    /// Address to listen on.
    #[arg(long, env = "OPENSHELL_BIND_ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    pub bind_address: IpAddr,
    /// Port for gRPC and HTTP; 0 takes a free one.
    #[arg(long, env = "OPENSHELL_SERVER_PORT", default_value_t = 17670)]
    pub port: u16,
    /// Port for /healthz and /readyz, without TLS; 0 is off.
    #[arg(long, env = "OPENSHELL_HEALTH_PORT", default_value_t = 0)]
    pub health_port: u16,
    /// error, warn, info, debug or trace, or directives per module.
    #[arg(long, env = "OPENSHELL_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// Serve without TLS and without authentication. Only on loopback, and only for tests:
    /// everybody on this machine may then do everything.
    #[arg(long, env = "OPENSHELL_DISABLE_TLS")]
    pub disable_tls: bool,
    /// Compute driver; found out when it is not given.
    #[arg(long = "drivers", alias = "driver", env = "OPENSHELL_DRIVERS", value_name = "DRIVER")]
    pub driver: Option<String>,
    /// Further names and addresses of the server's certificate.
    #[arg(long, env = "OPENSHELL_SERVER_SAN", value_delimiter = ',', value_name = "NAME")]
    pub server_san: Vec<String>,
    /// The openshell-sandbox binary; the one beside this binary, or on PATH, when it is not given.
    #[arg(long, env = "OPENSHELL_SUPERVISOR_BIN", value_name = "PATH")]
    pub supervisor: Option<PathBuf>,
    /// Where this gateway's objects are, if not on this machine.
    #[command(subcommand)]
    pub mode: Option<Mode>,
}

/// Where a gateway's objects are.
#[derive(Clone, Debug, Subcommand)]
pub enum Mode {
    /// Serve in a cluster, as the pod that the operator makes for an OpenShellGateway.
    Cluster(ClusterFlags),
}

/// Settings of a gateway in a cluster.
#[derive(Clone, Debug, Args)]
pub struct ClusterFlags {
    /// Name of the OpenShellGateway.
    #[arg(long, env = "OPENSHELL_GATEWAY_NAME", default_value = "default")]
    pub gateway_name: String,
    /// Namespace of the OpenShellGateway.
    #[arg(long, env = "OPENSHELL_GATEWAY_NAMESPACE")]
    pub gateway_namespace: String,
    /// Namespace of the sandboxes; that of the gateway when it is not given.
    #[arg(long, env = "OPENSHELL_SANDBOX_NAMESPACE")]
    pub sandbox_namespace: Option<String>,
    /// Directory with tls.crt, tls.key and ca.crt.
    #[arg(long, env = "OPENSHELL_TLS_DIRECTORY", default_value = "/etc/openshell/tls", value_name = "PATH")]
    pub tls_directory: PathBuf,
    /// Directory with signing.pem, the key of sandbox tokens.
    #[arg(long, env = "OPENSHELL_JWT_DIRECTORY", default_value = "/etc/openshell/jwt", value_name = "PATH")]
    pub jwt_directory: PathBuf,
    /// Directory for the logs of sandboxes.
    #[arg(long, env = "OPENSHELL_DATA_DIRECTORY", default_value = "/var/openshell", value_name = "PATH")]
    pub data_directory: PathBuf,
}

/// Everything that a gateway in a cluster is started with.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Name of the `OpenShellGateway`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Namespace of the sandboxes.
    pub sandbox_namespace: String,
    /// Where to listen.
    pub bind: SocketAddr,
    /// Where to answer health checks.
    pub health: Option<SocketAddr>,
    /// Directory of the certificate.
    pub tls: PathBuf,
    /// Directory of the signing key.
    pub jwt: PathBuf,
    /// Directory of the logs.
    pub data: PathBuf,
    /// Further names of the server.
    pub server_names: Vec<String>,
}

/// What to start.
pub enum Config {
    /// A gateway of this machine.
    Local(LocalConfig),
    /// One in a cluster.
    Cluster(ClusterConfig),
}

/// Variables with a meaning in the reference system that this version does not honour.
const REFUSED: [&str; 11] = [
    "OPENSHELL_GATEWAY_CONFIG",
    "OPENSHELL_DB_URL",
    "OPENSHELL_TLS_CERT",
    "OPENSHELL_TLS_KEY",
    "OPENSHELL_TLS_CLIENT_CA",
    "OPENSHELL_OIDC_ISSUER",
    "OPENSHELL_COMPUTE_DRIVER_SOCKET",
    "OPENSHELL_METRICS_PORT",
    "OPENSHELL_ENABLE_MTLS_AUTH",
    "OPENSHELL_GRPC_RATE_LIMIT_REQUESTS",
    "OPENSHELL_GRPC_RATE_LIMIT_WINDOW_SECONDS",
];

/// Why the settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// Something is asked for that this version does not do.
    #[error("{0} is set, but this version of the gateway does not support it")]
    NotSupported(String),
    /// There is no place for the state.
    #[error("neither {0} nor HOME is set to an absolute path")]
    NoHome(&'static str),
    /// Plaintext where others could listen.
    #[error("--disable-tls is allowed on loopback only, and the address is {0}")]
    PlaintextOffLoopback(IpAddr),
    /// The same port twice.
    #[error("--health-port and --port are both {0}")]
    SamePort(u16),
    /// There is nothing to start sandboxes with.
    #[error("the supervisor binary 'openshell-sandbox' is neither beside this binary nor on PATH")]
    NoSupervisor,
    /// The given one is not there.
    #[error("the supervisor binary {0} is not there or cannot be executed")]
    SupervisorMissing(PathBuf),
}

impl SettingsError {
    /// What to do about it.
    pub fn help(&self) -> String {
        match self {
            Self::NotSupported(name) if name.ends_with("gateway.toml") => {
                format!("move {name} away and use flags or environment variables")
            }
            Self::NotSupported(name) => format!("unset {name} and start the gateway again"),
            Self::NoHome(name) => format!("set HOME or {name} to an absolute path"),
            Self::PlaintextOffLoopback(_) => "leave --disable-tls out, or listen on 127.0.0.1".to_owned(),
            Self::SamePort(_) => "choose another --health-port".to_owned(),
            Self::NoSupervisor | Self::SupervisorMissing(_) => {
                "install openshell-sandbox beside openshell-gateway, or name it with --supervisor".to_owned()
            }
        }
    }
}

/// Everything that a local gateway is started with.
#[derive(Clone, Debug)]
pub struct LocalConfig {
    /// Where things are.
    pub directories: Directories,
    /// Where to listen.
    pub bind: SocketAddr,
    /// Where to answer health checks.
    pub health: Option<SocketAddr>,
    /// How.
    pub transport: Transport,
    /// Compute driver by name.
    pub driver: Option<String>,
    /// The supervisor binary.
    pub supervisor: PathBuf,
    /// Further names of the server.
    pub server_names: Vec<String>,
}

impl Flags {
    /// Checks the settings.
    pub fn resolve(mut self) -> Result<Config, SettingsError> {
        match self.mode.take() {
            None => self.local().map(Config::Local),
            Some(Mode::Cluster(flags)) => self.cluster(flags).map(Config::Cluster),
        }
    }

    fn cluster(self, flags: ClusterFlags) -> Result<ClusterConfig, SettingsError> {
        self.common()?;
        let (bind, health, server_names) = (self.bind(), self.health(), self.names());
        if self.disable_tls {
            return Err(SettingsError::NotSupported("--disable-tls in a cluster".to_owned()));
        }
        Ok(ClusterConfig {
            sandbox_namespace: flags.sandbox_namespace.filter(|name| !name.is_empty()).unwrap_or_else(|| flags.gateway_namespace.clone()),
            name: flags.gateway_name,
            namespace: flags.gateway_namespace,
            bind,
            health,
            tls: flags.tls_directory,
            jwt: flags.jwt_directory,
            data: flags.data_directory,
            server_names,
        })
    }

    /// What no gateway may be asked for.
    fn common(&self) -> Result<(), SettingsError> {
        if let Some(name) = REFUSED.iter().find(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty())) {
            return Err(SettingsError::NotSupported((*name).to_owned()));
        }
        if self.health_port != 0 && self.health_port == self.port {
            return Err(SettingsError::SamePort(self.port));
        }
        Ok(())
    }

    fn bind(&self) -> SocketAddr {
        SocketAddr::new(self.bind_address, self.port)
    }

    fn health(&self) -> Option<SocketAddr> {
        (self.health_port != 0).then(|| SocketAddr::new(self.bind_address, self.health_port))
    }

    fn names(&self) -> Vec<String> {
        self.server_san.iter().map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
    }

    /// Finds the directories and the supervisor.
    fn local(self) -> Result<LocalConfig, SettingsError> {
        self.common()?;
        let state = xdg("XDG_STATE_HOME", ".local/state")?.join("openshell");
        let config = xdg("XDG_CONFIG_HOME", ".config")?.join("openshell");
        let file = config.join("gateway.toml");
        if file.exists() {
            return Err(SettingsError::NotSupported(file.display().to_string()));
        }
        let transport = if self.disable_tls { Transport::Plaintext } else { Transport::Tls };
        if transport == Transport::Plaintext && !self.bind_address.is_loopback() {
            return Err(SettingsError::PlaintextOffLoopback(self.bind_address));
        }
        let tls = std::env::var_os("OPENSHELL_LOCAL_TLS_DIR").map(PathBuf::from).filter(|p| p.is_absolute());
        Ok(LocalConfig {
            directories: Directories::new(state, config, tls),
            bind: self.bind(),
            health: self.health(),
            server_names: self.names(),
            transport,
            driver: self.driver.filter(|d| !d.is_empty()),
            supervisor: supervisor(self.supervisor)?,
        })
    }
}

/// An XDG base directory; the specification says that relative paths in the variable are ignored.
fn xdg(name: &'static str, below_home: &str) -> Result<PathBuf, SettingsError> {
    let absolute = |p: &PathBuf| p.is_absolute();
    std::env::var_os(name)
        .map(PathBuf::from)
        .filter(absolute)
        .or_else(|| std::env::var_os("HOME").map(PathBuf::from).filter(absolute).map(|home| home.join(below_home)))
        .ok_or(SettingsError::NoHome(name))
}

fn supervisor(given: Option<PathBuf>) -> Result<PathBuf, SettingsError> {
    let usable = |path: &PathBuf| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok();
    if let Some(path) = given {
        return std::path::absolute(&path).ok().filter(usable).ok_or(SettingsError::SupervisorMissing(path));
    }
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.join("openshell-sandbox")));
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain(std::env::split_paths(&on_path).filter(|d| d.is_absolute()).map(|d| d.join("openshell-sandbox")))
        .find(usable)
        .ok_or(SettingsError::NoSupervisor)
}
