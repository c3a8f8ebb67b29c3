//! From the configuration as it travels to one that can be installed.
//!
//! Everything is checked before anything is changed: the policy is parsed strictly, must have
//! the hash that came with it, and must compile; the environment and the command must be usable.
//! What does not pass is refused as a whole, and what was in force stays.

use std::path::{Path, PathBuf};

use openshell_policy::{Engine, Policy};
use openshell_proto::supervisor::{self, Credential, MainCommand};

use crate::{
    egress::ActivePolicy,
    limits::session::CONFIG_BYTES,
    process::{Size, environment::Environment},
};

/// Names by which the agent may ask for the machine that it runs on.
const HOST_ALIASES: [&str; 3] = ["host.openshell.internal", "host.docker.internal", "host.containers.internal"];

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The policy is not one that this build accepts.
    #[error("the policy is refused: {0}")]
    Policy(#[from] openshell_policy::PolicyError),
    /// The policy does not compile.
    #[error(transparent)]
    Compile(#[from] openshell_policy::CompileError),
    /// The policy is not the one whose hash came with it.
    #[error(
        "the policy's hash is {computed}, and the configuration says {stated}; it was changed on the way, or gateway and supervisor differ in version"
    )]
    Hash {
        /// Of the policy that came.
        computed: String,
        /// That came with it.
        stated: String,
    },
    /// The environment or the command cannot be used.
    #[error("{0}")]
    Command(#[from] crate::process::environment::BadCommand),
    /// It is larger than any real one.
    #[error("the policy has more than {CONFIG_BYTES} bytes")]
    TooLarge,
}

/// A checked configuration.
pub struct Checked {
    /// Its number.
    pub revision: u64,
    /// The policy, as the file says it.
    pub policy: Policy,
    /// The policy, compiled, and what goes with it.
    pub active: ActivePolicy,
    /// Environment of every process.
    pub environment: Environment,
    /// The main process: command, terminal, and when to start it.
    pub main: Option<Main>,
    /// Refuse to run at a reduced level.
    pub require_full: bool,
    /// Do not start the agent under this configuration: credentials follow.
    pub await_enforcement: bool,
}

/// The main process that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Main {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Relative to the workspace.
    pub workdir: String,
    /// A terminal of this size.
    pub terminal: Option<Size>,
    /// Start it when someone attaches.
    pub await_attach: bool,
}

/// Checks a configuration.
pub fn check(config: supervisor::Config, workspace: &Path, trust: &[(String, String)]) -> Result<Checked, ConfigError> {
    if config.policy_json.len() > CONFIG_BYTES {
        return Err(ConfigError::TooLarge);
    }
    let policy = openshell_policy::from_json(&config.policy_json)?;
    let engine = Engine::compile_with_links(&policy, links)?;
    if engine.hash().as_str() != config.policy_hash {
        return Err(ConfigError::Hash { computed: engine.hash().to_string(), stated: config.policy_hash });
    }
    let environment = Environment::new(workspace, trust, &config.environment)?;
    let main = config.main.filter(|m| !m.command.is_empty()).map(wanted);
    if let Some(main) = &main {
        // Refused now, not when it is started.
        environment.main(main.command.clone(), &main.workdir, main.terminal.is_some())?;
    }
    let mut host_aliases = config.host_aliases;
    if let Some(address) = host_address() {
        for name in HOST_ALIASES {
            host_aliases.entry(name.to_owned()).or_insert_with(|| address.to_string());
        }
    }
    let credentials: Vec<Credential> = config.credentials;
    Ok(Checked {
        revision: config.revision,
        active: ActivePolicy { engine, revision: config.revision, credentials, host_aliases, forbidden: config.forbidden_destinations },
        policy,
        environment,
        main,
        require_full: config.require_full_enforcement,
        await_enforcement: config.await_enforcement,
    })
}

fn wanted(main: MainCommand) -> Main {
    Main {
        terminal: main.tty.then(|| Size::new(main.cols, main.rows)),
        command: main.command,
        workdir: main.workdir,
        await_attach: main.await_attach,
    }
}

/// What the kernel calls a program that the policy names by a symbolic link
/// (`/usr/bin/python3` is `/usr/bin/python3.11`).
fn links(configured: &str) -> Vec<String> {
    let target: Option<PathBuf> = std::fs::canonicalize(configured).ok();
    target.and_then(|t| t.into_os_string().into_string().ok()).filter(|t| t != configured).into_iter().collect()
}

/// The machine's own address: the one from which it would reach others. Nothing is sent.
fn host_address() -> Option<std::net::IpAddr> {
    let socket = std::net::UdpSocket::bind(("0.0.0.0", 0)).ok()?;
    // An address for documentation (RFC 5737): only the route is looked up.
    socket.connect(("192.0.2.1", 9)).ok()?;
    socket.local_addr().ok().map(|a| a.ip()).filter(|a| !a.is_loopback() && !a.is_unspecified())
}
