//! When something was last done in a sandbox, for those that are suspended when nothing is.
//!
//! What counts: a relay (an exec or an attachment) from its beginning to its end, a start, a
//! supervisor that comes new. Reading does not: whoever watches a sandbox does not keep it busy.
//!
//! Nothing is written for each of them. The object says it at once if it has said nothing for
//! [`ACTIVITY_INTERVAL`], and else when that is over; so what it says is at most that old, which is
//! less than the shortest idle period (`spec.idleTimeout`).

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::limits::ACTIVITY_INTERVAL;

/// The activity of one sandbox, as those see it who are active.
#[derive(Debug, Default)]
pub(super) struct Activity {
    seen: Mutex<Seen>,
    changed: Notify,
}

#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    last: Option<Timestamp>,
    /// What goes on.
    open: usize,
}

impl Activity {
    /// Something begins, and ends when the answer is dropped.
    pub(super) fn begin(self: &Arc<Self>) -> Busy {
        self.note(|seen| seen.open += 1);
        Busy(Arc::clone(self))
    }

    /// Something was done.
    fn note(&self, change: impl FnOnce(&mut Seen)) {
        let mut seen = self.seen.lock();
        change(&mut seen);
        seen.last = Some(Timestamp::now());
        drop(seen);
        self.changed.notify_one();
    }

    /// Waits until something is done.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// When something was last done, which is now while something goes on.
    pub(super) fn last(&self) -> Option<Timestamp> {
        let seen = *self.seen.lock();
        if seen.open > 0 { Some(Timestamp::now()) } else { seen.last }
    }

    /// Whether something goes on.
    pub(super) fn goes_on(&self) -> bool {
        self.seen.lock().open > 0
    }
}

/// As long as it lives, something goes on.
#[derive(Debug)]
pub(super) struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.note(|seen| seen.open -= 1);
    }
}

/// What the object says of it, and when it says more.
#[derive(Default)]
pub(super) struct Said {
    /// What it shall say.
    pub(super) last: Option<Timestamp>,
    /// When that was decided.
    at: Option<Instant>,
    /// When it is looked at again.
    due: Option<Instant>,
}

impl Said {
    /// Something was done: when shall it be said?
    pub(super) fn noted(&mut self, now: Instant) {
        let soonest = self.at.map_or(now, |at| (at + ACTIVITY_INTERVAL).max(now));
        self.due.get_or_insert(soonest);
    }

    /// When it shall be said, if there is anything to say.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// It is said now.
    pub(super) fn say(&mut self, last: Option<Timestamp>, now: Instant) {
        self.last = last.or(self.last);
        self.at = Some(now);
        self.due = None;
    }

    /// It is not said: nobody asks, or nobody is there.
    pub(super) fn hush(&mut self) {
        self.due = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_is_said_at_once_and_the_others_together() {
        let (mut said, begin) = (Said::default(), Instant::now());
        said.noted(begin);
        assert_eq!(said.due(), Some(begin));
        said.say(None, begin);
        for second in 1..50 {
            said.noted(begin + Duration::from_secs(second));
            assert_eq!(said.due(), Some(begin + ACTIVITY_INTERVAL));
        }
        said.say(None, begin + ACTIVITY_INTERVAL);
        assert_eq!(said.due(), None);
        let later = begin + 10 * ACTIVITY_INTERVAL;
        said.noted(later);
        assert_eq!(said.due(), Some(later));
    }

    #[test]
    fn what_goes_on_is_activity_until_it_ends() {
        let activity = Arc::new(Activity::default());
        assert_eq!(activity.last(), None);
        let busy = (activity.begin(), activity.begin());
        drop(busy.0);
        assert!(activity.goes_on() && activity.last() > activity.seen.lock().last);
        drop(busy.1);
        assert!(!activity.goes_on() && activity.last() == activity.seen.lock().last);
    }
}
