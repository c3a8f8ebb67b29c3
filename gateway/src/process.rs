//! The gateway as a process: parses, wires and exits.

use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;

use clap::Parser as _;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::{
    cluster::ClusterGateway,
    local::LocalGateway,
    settings::{Config, Flags},
    start::StartError,
};

/// Two threads carry what one machine asks for; more only cost memory.
const WORKERS: usize = 2;

/// The process, from its arguments to its exit code.
pub fn main() -> ExitCode {
    let flags = Flags::parse();
    let filter = match EnvFilter::try_new(&flags.log_level) {
        Ok(filter) => filter,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "openshell-gateway: --log-level '{}' is not understood: {error}", flags.log_level);
            return ExitCode::from(64);
        }
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "openshell-gateway: cannot start threads: {error}");
            return ExitCode::from(71);
        }
    };
    match runtime.block_on(run(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "openshell-gateway: {error}\n  help: {}", error.help());
            ExitCode::from(error.exit_code())
        }
    }
}

async fn run(flags: Flags) -> Result<(), StartError> {
    // Before readiness is told: whoever hears of it may end us at once.
    let mut terminate = signal(SignalKind::terminate()).map_err(StartError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(StartError::Signals)?;
    let gateway = match flags.resolve()? {
        Config::Local(config) => LocalGateway::start(config).await?,
        Config::Cluster(config) => ClusterGateway::start(config).await?,
    };
    // The line that a starter in the background waits for. Nobody need be reading.
    let _ = writeln!(std::io::stdout(), "ready {}", gateway.endpoint());
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: ending; sandboxes go on"),
        _ = interrupt.recv() => tracing::info!("SIGINT: ending; sandboxes go on"),
        reason = gateway.failed() => {
            gateway.stop().await;
            return Err(StartError::Failed(reason));
        }
    }
    gateway.stop().await;
    Ok(())
}
