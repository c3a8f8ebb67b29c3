//! Entry point of the `openshell` command: see the library for everything.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    openshell_cli::main(std::env::args_os())
}
