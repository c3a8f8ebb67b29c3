//! Progress on standard error, only where a person watches.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::output::clean;

/// A line that moves while something takes time; gone when dropped.
#[derive(Debug)]
pub(crate) struct Progress(Option<ProgressBar>);

impl Progress {
    /// Begins with `message`.
    pub(crate) fn start(message: String) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
            bar.set_style(style);
        }
        bar.set_message(message);
        // Something quicker than this needs no line at all.
        bar.enable_steady_tick(Duration::from_millis(100));
        Self(Some(bar))
    }

    /// Now it is this.
    pub(crate) fn say(&self, message: &str) {
        if let Some(bar) = &self.0 {
            bar.set_message(clean(message));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
