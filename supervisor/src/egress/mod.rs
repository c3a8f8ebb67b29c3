//! Decides and carries what the agent sends out.

pub mod identity;
