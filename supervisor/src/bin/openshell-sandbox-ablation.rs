//! `openshell-sandbox` whose walls can be taken down one by one. Under a name of its own, so that it
//! is never taken for the real one.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    openshell_supervisor::command::main()
}
