//! The seccomp filters of the agent's side.
//!
//! Two of them: what is denied outright ([`deny`], compiled by `seccompiler`) and what the broker
//! answers ([`notify`], ours, because `seccompiler` has no such action). The kernel takes the
//! strictest verdict of all filters, so neither can loosen the other.

pub(super) mod assembler;
pub(super) mod deny;
pub(super) mod notify;

#[cfg(test)]
mod interpreter;
#[cfg(test)]
mod tests;

/// Audit architecture of this build.
#[cfg(target_arch = "x86_64")]
pub(super) const ARCHITECTURE: u32 = 0xC000_003E;
/// Audit architecture of this build.
#[cfg(target_arch = "aarch64")]
pub(super) const ARCHITECTURE: u32 = 0xC000_00B7;

/// The last system call this build knows (`file_setattr`, Linux 6.17; numbers from 424 on are the
/// same on every architecture). Later ones get `ENOSYS`: programs fall back, and nothing new opens
/// before somebody has looked at it.
pub(super) const LAST_KNOWN: u32 = 469;
