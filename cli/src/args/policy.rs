//! `openshell policy …`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::{ForceArgs, OutputArgs};

/// The policy commands.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Give a sandbox another policy
    ///
    /// A running sandbox can change what it may reach. `filesystem_policy` may be left out: then it
    /// stays as it is. `landlock` and `process` have to be those of the running sandbox. A stopped
    /// sandbox takes any policy and starts under it.
    ///
    /// With --wait the exit code is 0 when the sandbox enforces it, 1 when it was rejected (the
    /// policy before stays in force) and 124 after the timeout.
    Set(SetArgs),
    /// Show the policy of a sandbox
    Get(GetArgs),
    /// Show the policies that a sandbox has had
    List(ListArgs),
    /// Check a policy file without any gateway
    Check(CheckArgs),
}

/// `policy set`.
#[derive(Debug, Args)]
pub(crate) struct SetArgs {
    /// Sandbox [default: the last one used]
    pub(crate) name: Option<String>,
    /// Policy file
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: PathBuf,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
    /// Wait until the sandbox enforces it
    #[arg(long)]
    pub(crate) wait: bool,
    /// Seconds to wait
    #[arg(long, default_value_t = 60, value_name = "SECONDS", requires = "wait")]
    pub(crate) timeout: u32,
}

/// `policy get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Sandbox [default: the last one used]
    pub(crate) name: Option<String>,
    /// Revision; 0 means the newest
    #[arg(long, default_value_t = 0, value_name = "REVISION")]
    pub(crate) rev: u32,
    /// Print the policy itself too
    #[arg(long)]
    pub(crate) full: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `policy list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Sandbox [default: the last one used]
    pub(crate) name: Option<String>,
    /// Show at most this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::limits::LIST)))]
    pub(crate) limit: u32,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `policy check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Policy file
    #[arg(short, long = "file", value_name = "FILE")]
    pub(crate) file: PathBuf,
}
