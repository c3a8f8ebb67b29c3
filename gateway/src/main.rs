//! `openshell-gateway`.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    openshell_gateway::process::main()
}
