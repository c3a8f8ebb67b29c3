//! `openshell provider …`.

use clap::{ArgAction, ArgGroup, Args, Subcommand};

use super::value::{Credential, Destination, KeyValue};
use super::{ForceArgs, OutputArgs};

/// The provider commands.
#[derive(Debug, Subcommand)]
pub(crate) enum ProviderCommand {
    /// Store credentials and say where they may go
    ///
    /// The agent sees a placeholder in its environment. The value is put into requests outside
    /// the sandbox, and only into requests to the provider's endpoints.
    Create(CreateArgs),
    /// Show providers
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one provider; values are never shown
    Get(GetArgs),
    /// Delete providers and their credentials
    Delete(DeleteArgs),
}

/// `provider create`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("source").required(true).args(["from_existing", "credentials"]))]
pub(crate) struct CreateArgs {
    /// Name
    #[arg(long)]
    pub(crate) name: String,
    /// Kind of service: github, gitlab, claude-code, codex, nvidia, generic, …
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) kind: String,
    /// Credential under the name of its environment variable; without a value it is taken from
    /// this command's environment. Repeat for more
    #[arg(long = "credential", value_name = "KEY[=VALUE]", action = ArgAction::Append)]
    pub(crate) credentials: Vec<Credential>,
    /// Take the credentials that programs of this type use from this command's environment
    #[arg(long)]
    pub(crate) from_existing: bool,
    /// Setting that is no secret, put into the agent's environment; repeat for more
    #[arg(long = "config", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) config: Vec<KeyValue>,
    /// Where the credentials may go [default: the endpoints of the type]; repeat for more
    #[arg(long = "endpoint", value_name = "HOST[:PORT][/PATH]", action = ArgAction::Append)]
    pub(crate) endpoints: Vec<Destination>,
}

/// `provider list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show at most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::limits::LIST)))]
    pub(crate) limit: u32,
    /// Leave out this many
    #[arg(long, default_value_t = 0)]
    pub(crate) offset: u32,
    /// Print names only, one per line
    #[arg(long, conflicts_with = "output")]
    pub(crate) names: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `provider get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Provider
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `provider delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Providers
    #[arg(required = true, value_name = "NAME")]
    pub(crate) names: Vec<String>,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
}
