//! `openshell gateway …`.

use std::path::PathBuf;

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
    /// Register a gateway, and make it the active one
    Add(AddArgs),
    /// Make a registered gateway the active one
    Select(SelectArgs),
    /// Forget a registered gateway; nothing of it is changed
    #[command(visible_alias = "rm")]
    Remove(SelectArgs),
}

/// `gateway add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// Address: https://gateway.example.com:8080
    #[arg(required_unless_present = "kubernetes", conflicts_with = "kubernetes")]
    pub(crate) endpoint: Option<String>,
    /// The gateway of a Kubernetes cluster, reached through its API server with your kubeconfig; NAME is
    /// that of the OpenShellGateway
    #[arg(long, value_name = "NAME", num_args = 0..=1, require_equals = true, default_missing_value = "default")]
    pub(crate) kubernetes: Option<String>,
    /// Context of the kubeconfig [default: the current one]
    #[arg(long, requires = "kubernetes", value_name = "CONTEXT")]
    pub(crate) context: Option<String>,
    /// Namespace of the OpenShellGateway [default: that of the context]
    #[arg(long, short, requires = "kubernetes", value_name = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// Name to register it under [default: the context, or the host]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Authority of its certificate, as PEM [default: those of this machine]
    #[arg(long, value_name = "FILE", conflicts_with = "kubernetes")]
    pub(crate) ca: Option<PathBuf>,
    /// Client certificate, as PEM
    #[arg(long, value_name = "FILE", requires = "key", conflicts_with = "kubernetes")]
    pub(crate) cert: Option<PathBuf>,
    /// Its key, as PEM
    #[arg(long, value_name = "FILE", requires = "cert", conflicts_with = "kubernetes")]
    pub(crate) key: Option<PathBuf>,
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
