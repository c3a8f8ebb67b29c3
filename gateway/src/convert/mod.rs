//! Objects to wire and back. Pure: nothing here reads or writes anything.
//!
//! The wire says some things that no object says yet (log levels, restarts, templates). What a
//! request asks for and an object cannot hold is refused by the handler that takes the request,
//! with the field's path; nothing is dropped here.

pub(crate) mod log;
pub(crate) mod meta;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod sandbox;
pub(crate) mod template;
pub(crate) mod time;

#[cfg(test)]
mod tests;
