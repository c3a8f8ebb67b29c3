//! Signals that end a command, as something to wait for.
//!
//! Once made, the default action is gone: whoever makes a [`Signals`] must wait for it, so that
//! Ctrl-C first cleans up (terminal, `--no-keep` sandbox) and then ends.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::CliError;

/// SIGINT, SIGTERM and SIGHUP.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the three signals over.
    pub(crate) fn take() -> Result<Self, CliError> {
        let stream = |kind| signal(kind).map_err(|e| CliError::new("io", "Signals could not be handled.").because(e));
        Ok(Self {
            interrupt: stream(SignalKind::interrupt())?,
            terminate: stream(SignalKind::terminate())?,
            hangup: stream(SignalKind::hangup())?,
        })
    }

    /// The number of the next one.
    pub(crate) async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hangup.recv() => 1,
        }
    }
}
