//! `openshell-gateway` whose environment can make it abort at named places. Under a name of its
//! own, so that it is never taken for the real one.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    openshell_gateway::process::main()
}
