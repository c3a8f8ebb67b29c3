//! The `openshell` command: what a person types, what a script parses.
//!
//! ```text
//!  args ──▶ commands ──▶ session ──▶ gateway (gRPC openshell.v1, or /apis with kube::Client)
//!  clap      one file      config: which gateway, which certificates
//!            per noun      local:  starts one when there is none, and says so
//!               │
//!               ├──▶ output    tables for people, JSON and YAML for programs
//!               ├──▶ attach    a command's input, output, terminal and exit code
//!               └──▶ error     what failed, why, what to do next, a stable code
//! ```
//!
//! It relies on the wire (`openshell-proto`) and the object types (`openshell-crds`); it parses
//! policies itself so that a mistake is shown with its line before anything is sent. It holds no
//! state but the configuration directory that the published SDK reads too, and decides nothing
//! about security: the gateway and the supervisor do.
//!
//! Exit codes: the command's own for `create -- CMD` and `exec`; 1 an error; 2 wrong usage;
//! 124 a timeout; 128 + n ended by signal n.
#![forbid(unsafe_code)]

mod args;
mod attach;
mod commands;
mod config;
mod context;
mod env;
mod error;
mod gateway;
mod limits;
mod local;
mod object;
mod output;
mod policy_file;
mod progress;
mod reference;
mod session;
mod signals;
mod terminal;
mod wait;

use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, FromArgMatches as _};

use crate::error::{CliError, Exit};

/// The whole command: parses `args`, runs, renders an error if there is one.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    if let Some(error) = local::launch::requested(&args) {
        return report(&error);
    }
    let plugin = args.first().is_some_and(|program| is_plugin(program));
    let mut command = args::Cli::command();
    if plugin {
        command = command.bin_name(PLUGIN.replacen('-', " ", 1));
    }
    let cli = match command.try_get_matches_from(args).and_then(|m| args::Cli::from_arg_matches(&m)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = if error.use_stderr() { Exit::Usage.code() } else { 0 };
            // Help that nobody reads (a closed pipe) is no failure of ours.
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match run(cli, plugin) {
        Ok(code) => ExitCode::from(code),
        Err(error) => report(&error),
    }
}

/// The command tree, from which the reference page and the completions are made.
pub fn command() -> clap::Command {
    args::Cli::command()
}

/// `docs/cli.md`, made from [`command`].
pub fn reference_page() -> String {
    reference::markdown(command())
}

/// What kubectl looks for on the path when somebody types `kubectl openshell`.
const PLUGIN: &str = "kubectl-openshell";

fn is_plugin(program: &OsStr) -> bool {
    Path::new(program).file_stem().is_some_and(|name| name == PLUGIN)
}

fn run(cli: args::Cli, plugin: bool) -> Result<u8, CliError> {
    let mut context = context::Context::new(cli.global, env::Environment::read()?)?;
    context.install_log();
    // The provider can be installed once per process; a second attempt changes nothing.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| CliError::new("io", "The command could not start.").because(e))?;
    let outcome = runtime.block_on(async {
        if plugin {
            commands::as_plugin(&mut context, &cli.command).await?;
        }
        commands::dispatch(&context, cli.command).await
    });
    // A thread that waits for a keystroke or a full pipe must not keep the command alive.
    runtime.shutdown_background();
    outcome
}

fn report(error: &CliError) -> ExitCode {
    let code = error.exit().code();
    error.render();
    ExitCode::from(code)
}
