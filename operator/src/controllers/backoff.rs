//! Pauses between failed attempts, per object.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use rand::Rng as _;

use crate::limits;

/// How often each object has failed in a row. Holds only objects that fail now.
#[derive(Default)]
pub(super) struct Backoff {
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// One more failure: how long to wait, with up to a fifth more so that objects that failed
    /// together do not come back together.
    pub(super) fn failed(&self, name: &str) -> Duration {
        let failures = {
            let mut all = self.failures.lock();
            let failures = all.entry(name.to_owned()).or_default();
            *failures = failures.saturating_add(1);
            *failures
        };
        let pause = limits::BACKOFF_FIRST.saturating_mul(1 << (failures - 1).min(16)).min(limits::BACKOFF_LONGEST);
        pause + pause.mul_f64(rand::rng().random_range(0.0..0.2))
    }

    /// It went well, or the object is gone.
    pub(super) fn settled(&self, name: &str) {
        self.failures.lock().remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_longest_and_starts_anew_after_success() {
        let backoff = Backoff::default();
        let mut last = Duration::ZERO;
        for failure in 0..12 {
            let pause = backoff.failed("demo");
            let plain = limits::BACKOFF_FIRST.saturating_mul(1 << failure).min(limits::BACKOFF_LONGEST);
            assert!(pause >= plain && pause <= plain.mul_f64(1.2), "failure {failure}: {pause:?}");
            last = pause;
        }
        assert!(last >= limits::BACKOFF_LONGEST);
        backoff.settled("demo");
        assert!(backoff.failed("demo") <= limits::BACKOFF_FIRST.mul_f64(1.2));
        assert_eq!(backoff.failures.lock().len(), 1);
    }
}
