//! `openshell sandbox …` and `openshell logs`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Subcommand};

use super::value::{self, KeyValue};
use super::{ForceArgs, Format, OutputArgs};

/// The sandbox commands.
#[derive(Debug, Subcommand)]
pub(crate) enum SandboxCommand {
    /// Create a sandbox and run a command in it, or a shell
    ///
    /// With a command after `--`, runs it as the sandbox's main process, shows its output and
    /// ends with its exit code. Without one, opens a shell if this is a terminal, and leaves the
    /// sandbox waiting otherwise. The sandbox is kept unless --no-keep is given.
    Create(Box<CreateArgs>),
    /// Show sandboxes
    #[command(visible_alias = "ls")]
    List(ListArgs),
    /// Show one sandbox
    Get(GetArgs),
    /// Delete sandboxes with everything in them
    Delete(DeleteArgs),
    /// Stop a sandbox; its workspace is kept
    Stop(NameArgs),
    /// Start a stopped sandbox
    Start(NameArgs),
    /// Run a command in a sandbox
    ///
    /// Standard input is passed on; the exit code is the command's.
    Exec(ExecArgs),
    /// Open a shell in a sandbox, or return to its main process if that has a terminal
    Connect(ConnectArgs),
    /// Show what happened in a sandbox: its output and every decision of its policy
    Logs(LogsArgs),
}

/// Whether the command gets a terminal.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct TtyArgs {
    /// Give the command a terminal [default: if standard input and output are one]
    #[arg(long, overrides_with = "no_tty")]
    pub(crate) tty: bool,
    /// Give the command no terminal
    #[arg(long)]
    pub(crate) no_tty: bool,
}

/// What [`TtyArgs`] ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TtyChoice {
    /// A terminal if we have one.
    Auto,
    /// A terminal in any case.
    Always,
    /// None.
    Never,
}

impl TtyArgs {
    pub(crate) fn choice(self) -> TtyChoice {
        match (self.tty, self.no_tty) {
            (true, _) => TtyChoice::Always,
            (_, true) => TtyChoice::Never,
            _ => TtyChoice::Auto,
        }
    }
}

/// `sandbox create`.
#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Name: lower case letters, digits and single dashes, at most 19 characters [default: two words]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Container image; only where sandboxes run in images. A name without `/`, `:` and `.` is that of a
    /// sandbox in the registry OPENSHELL_COMMUNITY_REGISTRY
    #[arg(long, value_name = "IMAGE", value_parser = value::non_empty)]
    pub(crate) from: Option<String>,
    /// Processor time at most: cores (2, 0.5) or thousandths (500m); only where sandboxes are pods
    #[arg(long, value_name = "AMOUNT", value_parser = value::non_empty)]
    pub(crate) cpu: Option<String>,
    /// Memory at most: 512Mi, 2Gi; only where sandboxes are pods
    #[arg(long, value_name = "AMOUNT", value_parser = value::non_empty)]
    pub(crate) memory: Option<String>,
    /// GPUs [default without a number: 1]; only where sandboxes are pods
    #[arg(long, value_name = "COUNT", num_args = 0..=1, require_equals = true, default_missing_value = "1", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) gpu: Option<u32>,
    /// Settings of the driver by its name, such as
    /// {"kubernetes":{"pod":{"node_selector":{"disk":"ssd"},"runtime_class_name":"crun"}}}
    #[arg(long, value_name = "JSON", value_parser = value::object)]
    pub(crate) driver_config_json: Option<serde_json::Map<String, serde_json::Value>>,
    /// Policy file [env: OPENSHELL_SANDBOX_POLICY] [default: no egress, a read-only system]
    #[arg(long, value_name = "FILE")]
    pub(crate) policy: Option<PathBuf>,
    /// Provider whose credentials the sandbox may use; repeat for more
    #[arg(long = "provider", value_name = "NAME", action = ArgAction::Append)]
    pub(crate) providers: Vec<String>,
    /// Environment variable; repeat for more. Secrets belong into a provider
    #[arg(long = "env", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) env: Vec<KeyValue>,
    /// Label; repeat for more
    #[arg(long = "label", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) labels: Vec<KeyValue>,
    /// Delete the sandbox when the command or the shell has ended, or on Ctrl-C
    #[arg(long, conflicts_with = "detach")]
    pub(crate) no_keep: bool,
    /// Return as soon as the sandbox is ready
    #[arg(long)]
    pub(crate) detach: bool,
    #[command(flatten)]
    pub(crate) tty: TtyArgs,
    /// Form of the output; json and yaml only where no command's output is shown
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT", conflicts_with = "no_keep")]
    pub(crate) output: Format,
    /// Main process and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `sandbox list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// Show at most this many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=i64::from(crate::limits::LIST)))]
    pub(crate) limit: u32,
    /// Leave out this many
    #[arg(long, default_value_t = 0)]
    pub(crate) offset: u32,
    /// Print identifiers only, one per line
    #[arg(long, conflicts_with_all = ["names", "output"])]
    pub(crate) ids: bool,
    /// Print names only, one per line
    #[arg(long, conflicts_with = "output")]
    pub(crate) names: bool,
    /// Only sandboxes with these labels: key=value[,key=value…]
    #[arg(long, value_name = "SELECTOR", value_parser = value::non_empty)]
    pub(crate) selector: Option<String>,
    /// Of every workspace
    #[arg(long)]
    pub(crate) all_workspaces: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `sandbox get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Sandbox [default: the last one used]
    pub(crate) name: Option<String>,
    /// Print the policy in force, as YAML
    #[arg(long, conflicts_with = "output")]
    pub(crate) policy_only: bool,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `sandbox delete`.
#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// Sandboxes
    #[arg(required_unless_present = "all", value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Every sandbox of the workspace
    #[arg(long, conflicts_with = "names")]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) force: ForceArgs,
}

/// A sandbox or the last one used.
#[derive(Debug, Args)]
pub(crate) struct NameArgs {
    /// Sandbox [default: the last one used]
    pub(crate) name: Option<String>,
}

/// `sandbox exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// Sandbox [default: the last one used]
    #[arg(short, long)]
    pub(crate) name: Option<String>,
    /// Directory in which the command starts [default: the workspace]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) workdir: Option<String>,
    /// Seconds until the command is ended, with exit code 124; 0 means never
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    pub(crate) timeout: u32,
    /// Environment variable; repeat for more
    #[arg(long = "env", value_name = "KEY=VALUE", action = ArgAction::Append)]
    pub(crate) env: Vec<KeyValue>,
    #[command(flatten)]
    pub(crate) tty: TtyArgs,
    /// Command and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
}

/// `sandbox connect`.
#[derive(Debug, Args)]
pub(crate) struct ConnectArgs {
    /// Sandbox [default: the last one used]
    pub(crate) name: Option<String>,
}

/// `logs`.
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Sandbox [default: the last one used]
    pub(crate) name: Option<String>,
    /// Begin with this many of the newest lines
    #[arg(short = 'n', default_value_t = 200, value_name = "LINES")]
    pub(crate) lines: u32,
    /// Go on as new lines come
    #[arg(long, visible_alias = "follow", short_alias = 'f')]
    pub(crate) tail: bool,
    /// Only lines that are not older: 30s, 5m, 2h, 1d
    #[arg(long, value_name = "AGE", value_parser = value::ago)]
    pub(crate) since: Option<Duration>,
    /// Only from this source (gateway, sandbox); repeat for more
    #[arg(long = "source", value_name = "SOURCE", action = ArgAction::Append)]
    pub(crate) sources: Vec<String>,
    /// Only this level and above: trace, debug, info, warn, error
    #[arg(long, value_name = "LEVEL", value_parser = ["trace", "debug", "info", "warn", "error"])]
    pub(crate) level: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}
