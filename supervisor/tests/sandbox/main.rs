//! The confinement and the broker against a real kernel. Each case runs a whole sandbox of its own
//! in a process of its own, because the launcher is forked while there is one thread; so this
//! executable is both the tests and the sandbox.

mod harness;
mod helper;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(helper::ARGUMENT) {
        helper::run();
    }
    if std::env::args().nth(1).as_deref() == Some("try") {
        // By hand: `try <none|all> command…`.
        let arguments: Vec<String> = std::env::args().skip(2).collect();
        let mut sandbox = harness::Sandbox::new(&arguments[1..]);
        if arguments[0].contains("none") {
            sandbox = sandbox.without_namespaces();
        }
        if arguments[0].contains("user") {
            sandbox = sandbox.as_user();
        }
        let outcome = sandbox.run();
        println!("code {}\n{}{}\n{}", outcome.code, outcome.stdout, outcome.stderr, outcome.log);
    }
}
