//! Watches that are taken up again soon.
//!
//! kube's own pauses grow to 30 s, and whoever waits for a watch waits as long after an API server
//! came back. These are bounded by what people wait for.

use std::fmt::Debug;
use std::time::Duration;

use backon::ExponentialBuilder;
use futures::Stream;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::{Backoff, ResetTimerBackoff};
use kube::runtime::watcher::{self, Event, ExponentialBackoff, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::limits;

/// Pauses that grow until nothing has failed for a while. A watch says that it begins before it has
/// asked, which is no reason to begin with the first pause again.
struct Pauses(ResetTimerBackoff<ExponentialBackoff>);

impl Default for Pauses {
    fn default() -> Self {
        let pauses = ExponentialBuilder::default().with_min_delay(limits::WATCH_FIRST).with_max_delay(limits::WATCH_LONGEST);
        Self(ResetTimerBackoff::new(pauses.without_max_times().with_jitter().into(), limits::WATCH_SETTLED))
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.0.next()
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {}
}

/// Watches for ever: an error is followed by a pause, and by whatever has changed since.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    watcher(api, config).backoff(Pauses::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_although_a_watch_begins_anew_and_stay_short() {
        let mut pauses = Pauses::default();
        let taken: Vec<Duration> = (0..12)
            .filter_map(|_| {
                pauses.reset();
                pauses.next()
            })
            .collect();
        assert!(taken[0] >= limits::WATCH_FIRST && taken[0] <= 2 * limits::WATCH_FIRST, "{taken:?}");
        assert!(taken.iter().skip(3).all(|pause| *pause >= limits::WATCH_LONGEST), "{taken:?}");
        assert!(taken.iter().all(|pause| *pause <= 2 * limits::WATCH_LONGEST), "{taken:?}");
    }
}
