//! What a call is answered.

use std::io;

/// An error number, positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Errno(pub(super) i32);

impl From<io::Error> for Errno {
    fn from(error: io::Error) -> Self {
        Self(error.raw_os_error().unwrap_or(libc::EIO))
    }
}

impl From<rustix::io::Errno> for Errno {
    fn from(error: rustix::io::Errno) -> Self {
        Self(error.raw_os_error())
    }
}

impl From<crate::flow::Errno> for Errno {
    fn from(errno: crate::flow::Errno) -> Self {
        use crate::flow::Errno as E;
        Self(match errno {
            E::Denied => libc::EACCES,
            E::Refused => libc::ECONNREFUSED,
            E::TimedOut => libc::ETIMEDOUT,
            E::Unreachable => libc::EHOSTUNREACH,
            E::Exhausted => libc::EAGAIN,
        })
    }
}

/// What a handler says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The call returns this.
    Value(i64),
    /// The kernel performs the call: nothing depends on what it finds.
    Proceed,
    /// It has been answered, or somebody else will.
    Taken,
}

/// A handler's result; an error is the call's error.
pub(super) type Answered = Result<Answer, Errno>;

/// Success without a value.
pub(super) const DONE: Answered = Ok(Answer::Value(0));
