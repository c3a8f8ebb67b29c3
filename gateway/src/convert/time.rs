//! Times.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use prost_types::Timestamp;

/// A time of an object on the wire.
pub(crate) fn to_wire(time: &Time) -> Timestamp {
    from_jiff(time.0)
}

/// A moment on the wire. The fraction counts forward from the second, before 1970 as well.
pub(crate) fn from_jiff(time: jiff::Timestamp) -> Timestamp {
    let nanos = time.as_nanosecond();
    let second = 1_000_000_000;
    Timestamp { seconds: nanos.div_euclid(second) as i64, nanos: nanos.rem_euclid(second) as i32 }
}

/// A length of time from the wire; `None` if it is negative or no duration at all.
pub(crate) fn duration(wire: &prost_types::Duration) -> Option<std::time::Duration> {
    let nanos = u32::try_from(wire.nanos).ok().filter(|n| *n < 1_000_000_000)?;
    Some(std::time::Duration::new(u64::try_from(wire.seconds).ok()?, nanos))
}
