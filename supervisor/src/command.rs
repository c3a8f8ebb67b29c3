//! The supervisor as a command: parses, wires and exits.

use std::{path::PathBuf, process::ExitCode};

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
    Supervise {
        /// Where the sandbox's files are made ready before it is known; the directory may be renamed.
        directory: Option<PathBuf>,
    },
    /// Run the sandbox of this pod, as its main process.
    Pod,
    /// Copy this program into a directory, for a pod whose image has none.
    Install {
        /// Where to.
        directory: PathBuf,
    },
    /// Print as JSON what this machine can enforce, and what it cannot.
    Doctor,
    /// Part of `doctor`: tries namespaces in a process that is thrown away.
    #[command(name = probe::TRY_NAMESPACES, hide = true)]
    TryNamespaces,
}

/// The process, from its arguments to its exit code.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Supervise { directory } => app::supervise(directory),
        Command::Pod => app::pod(),
        Command::Install { directory } => app::install(&directory),
        Command::Doctor => app::doctor(),
        Command::TryNamespaces => ExitCode::from(probe::try_namespaces() as u8),
    }
}
