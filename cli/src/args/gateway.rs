//! `openshell gateway …`.

use clap::{Args, Subcommand};

use super::OutputArgs;

/// The gateway commands.
#[derive(Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Start the gateway of this machine in the background
    Start(StartArgs),
    /// Stop the gateway of this machine; sandboxes go on under their last policy
    Stop,
    /// Show the gateway: address, version, drivers, files
    Info(OutputArgs),
    /// Show the registered gateways
    #[command(visible_alias = "ls")]
    List(OutputArgs),
    /// Make a registered gateway the active one
    Select(SelectArgs),
}

/// `gateway start`.
#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Port on 127.0.0.1 [default: 17670]
    #[arg(long, env = "OPENSHELL_SERVER_PORT", hide_env_values = true)]
    pub(crate) port: Option<u16>,
    /// Compute driver [default: the first that works here]
    #[arg(long, value_name = "NAME")]
    pub(crate) driver: Option<String>,
}

/// `gateway select`.
#[derive(Debug, Args)]
pub(crate) struct SelectArgs {
    /// Registered gateway
    pub(crate) name: String,
}
