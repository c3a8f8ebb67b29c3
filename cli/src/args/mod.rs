//! The command tree: one definition per command and flag, from which parsing, help, completions
//! and `docs/cli.md` come.
//!
//! A flag that is not implemented is not defined, so that using it is an error.

pub(crate) mod gateway;
pub(crate) mod object;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod sandbox;
pub(crate) mod value;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

/// Run autonomous agents in sandboxes, under a policy.
///
/// A sandbox can touch nothing that its policy does not grant. Without a configured gateway the
/// first command starts one on this machine.
#[derive(Debug, Parser)]
#[command(name = "openshell", version, max_term_width = 100, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Global options")]
pub(crate) struct Global {
    /// Registered gateway to talk to [env: OPENSHELL_GATEWAY] [default: the active one]
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) gateway: Option<String>,
    /// Address of a gateway; beats --gateway [env: OPENSHELL_GATEWAY_ENDPOINT]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) gateway_endpoint: Option<String>,
    /// Do not verify the gateway's certificate: anyone on the way can read and change everything
    /// [env: OPENSHELL_GATEWAY_INSECURE]
    #[arg(long, global = true)]
    pub(crate) gateway_insecure: bool,
    /// Workspace
    #[arg(long, global = true, value_name = "NAME", env = "OPENSHELL_WORKSPACE", default_value = "default", hide_env_values = true)]
    pub(crate) workspace: String,
    /// Say more on standard error; repeat for more
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub(crate) verbose: u8,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create, use and delete sandboxes
    #[command(visible_alias = "sb", subcommand)]
    Sandbox(sandbox::SandboxCommand),
    /// Show what happened in a sandbox: its output and every decision of its policy
    #[command(visible_alias = "lg")]
    Logs(sandbox::LogsArgs),
    /// Set and read the policy of a sandbox
    #[command(visible_alias = "pol", subcommand)]
    Policy(policy::PolicyCommand),
    /// Manage credentials that sandboxes use and never see
    #[command(subcommand)]
    Provider(provider::ProviderCommand),
    /// Create or change objects from files, as `kubectl apply` does in a cluster
    Apply(object::ApplyArgs),
    /// Show objects
    Get(object::GetArgs),
    /// Delete objects
    Delete(object::DeleteArgs),
    /// Start, stop and choose gateways
    #[command(visible_alias = "gw", subcommand)]
    Gateway(gateway::GatewayCommand),
    /// Show whether the gateway answers and accepts this client
    Status(OutputArgs),
    /// Check what this machine can hold, and say what is missing
    #[command(visible_alias = "dr")]
    Doctor(OutputArgs),
    /// Print a completion script
    Completions(CompletionsArgs),
}

/// How to print.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

/// `-o`.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct OutputArgs {
    /// Form of the output
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub(crate) output: Format,
}

/// `--force`, of commands that change or delete objects.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ForceArgs {
    /// Do it also to what is managed elsewhere: by Argo CD, Flux, Helm, or from files that somebody applies
    #[arg(long)]
    pub(crate) force: bool,
}

/// `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// Shell that will read the script
    pub(crate) shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests;
