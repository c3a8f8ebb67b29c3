//! The supervisor as a command: parses, wires and exits.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{app, confine::probe};

/// Starts before an agent, confines it, and stays as its only way out.
#[derive(Parser)]
#[command(name = "openshell-sandbox", version, arg_required_else_help = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a sandbox. Started by a driver, which writes the bootstrap to standard input.
    Supervise,
    /// Print as JSON what this machine can enforce, and what it cannot.
    Doctor,
    /// Part of `doctor`: tries namespaces in a process that is thrown away.
    #[command(name = probe::TRY_NAMESPACES, hide = true)]
    TryNamespaces,
}

/// The process, from its arguments to its exit code.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Supervise => app::supervise(),
        Command::Doctor => app::doctor(),
        Command::TryNamespaces => ExitCode::from(probe::try_namespaces() as u8),
    }
}
