//! Watches that are taken up again soon.
//!
//! kube's own pauses grow to 30 s, and whoever waits for a watch waits as long after an API server
//! came back. These are bounded by what people wait for.

use std::fmt::Debug;

use backon::ExponentialBuilder;
use futures::Stream;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::utils::ResetTimerBackoff;
use kube::runtime::watcher::{self, Event, ExponentialBackoff, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;

use crate::limits;

/// Watches for ever: an error is followed by a pause, and by whatever has changed since.
pub fn watch<K>(api: Api<K>, config: watcher::Config) -> impl Stream<Item = watcher::Result<Event<K>>> + Send
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let pauses = ExponentialBuilder::default().with_min_delay(limits::WATCH_FIRST).with_max_delay(limits::WATCH_LONGEST);
    let pauses = ExponentialBackoff::from(pauses.without_max_times().with_jitter());
    watcher(api, config).backoff(ResetTimerBackoff::new(pauses, limits::WATCH_SETTLED))
}
