//! Places where a test can make the process die.
//!
//! With the feature `failpoints`, a process that has `OPENSHELL_FAILPOINT=<name>` in its
//! environment aborts when it comes to the place of that name, without unwinding: as good as
//! `kill -9` at exactly that instruction. `OPENSHELL_FAILPOINT=<name>:<n>` lets the first `n - 1`
//! passes through. Without the feature the places are empty, and a release build refuses the
//! feature.

#[cfg(all(feature = "failpoints", not(debug_assertions)))]
compile_error!("the feature `failpoints` lets an environment variable abort the process; it must not be in a release build");

/// Aborts here if the environment asks for it.
#[cfg(feature = "failpoints")]
pub(crate) fn reached(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};

    static PASSES: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("OPENSHELL_FAILPOINT") else { return };
    let (place, nth) = wanted.split_once(':').map_or((wanted.as_str(), 1), |(place, nth)| (place, nth.parse().unwrap_or(1)));
    if place == name && PASSES.fetch_add(1, Ordering::SeqCst) + 1 >= nth {
        std::process::abort();
    }
}

/// Nothing: the build has no failpoints.
#[cfg(not(feature = "failpoints"))]
#[inline]
pub(crate) fn reached(_name: &str) {}
