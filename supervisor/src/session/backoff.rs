//! How long to wait before connecting again: full jitter, so that the supervisors of a gateway
//! that restarts do not come back in step.

use std::time::Duration;

use rand::Rng as _;

use crate::limits::session::BACKOFF;

#[derive(Debug)]
pub(super) struct Backoff {
    bound: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { bound: BACKOFF.0 }
    }

    /// After a session that was accepted.
    pub(super) fn reset(&mut self) {
        self.bound = BACKOFF.0;
    }

    /// A random wait below a bound that doubles.
    pub(super) fn next(&mut self) -> Duration {
        let wait = rand::rng().random_range(Duration::ZERO..=self.bound);
        self.bound = (self.bound * 2).min(BACKOFF.1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_to_its_bound_and_resets() {
        let mut backoff = Backoff::new();
        let mut bound = BACKOFF.0;
        for _ in 0..20 {
            assert!(backoff.next() <= bound);
            bound = (bound * 2).min(BACKOFF.1);
        }
        assert_eq!(backoff.bound, BACKOFF.1);
        backoff.reset();
        assert!(backoff.next() <= BACKOFF.0);
    }
}
