//! Threads for what the agent can make hang.
//!
//! A connect on a socket of the agent's may block whatever its flags said a moment ago: the agent
//! shares them, can drop every answer with a socket filter, and may listen without accepting. On a
//! thread of the supervisor's runtime that would hold up the session, policies and signals; here
//! it holds up the agent's own connects and nothing else.

use std::{io, time::Duration};

use tokio::{
    runtime::{Builder, Runtime},
    task::JoinHandle,
};

use crate::limits::broker::WAITING_THREADS;

/// How long a thread without work stays.
const KEPT: Duration = Duration::from_secs(5);

/// The threads. Dropping them waits for nobody.
pub(super) struct Waits(Option<Runtime>);

impl Waits {
    pub(super) fn new() -> io::Result<Self> {
        // Only its blocking threads are used; nothing ever drives the runtime itself.
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(WAITING_THREADS)
            .thread_keep_alive(KEPT)
            .thread_name("broker-waits")
            .build()?;
        Ok(Self(Some(runtime)))
    }

    /// Runs `work`, as soon as a thread is free. How much may queue is bounded by who asks.
    pub(super) fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<JoinHandle<T>> {
        self.0.as_ref().map(|runtime| runtime.spawn_blocking(work))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
