//! What every command has: global flags, environment, directories, and what kind of terminal.

use crate::args::Global;
use crate::config::Config;
use crate::env::Environment;
use crate::error::CliError;

/// Given to every command.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) flags: Global,
    pub(crate) environment: Environment,
    pub(crate) config: Config,
}

impl Context {
    pub(crate) fn new(flags: Global, environment: Environment) -> Result<Self, CliError> {
        let config = Config::new(&environment)?;
        Ok(Self { flags, environment, config })
    }

    /// Diagnostics on standard error, as `-v` asks.
    pub(crate) fn install_log(&self) {
        let level = match self.flags.verbose {
            0 => return,
            1 => "openshell_cli=info,kube=info",
            2 => "debug",
            _ => "trace",
        };
        let filter = tracing_subscriber::EnvFilter::new(level);
        // Already installed (in tests): the first one stays.
        let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
    }

    /// Whether certificates are not to be verified.
    pub(crate) fn insecure(&self) -> bool {
        self.flags.gateway_insecure || self.environment.gateway_insecure
    }
}
