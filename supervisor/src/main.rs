//! `openshell-sandbox`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    openshell_supervisor::command::main()
}
