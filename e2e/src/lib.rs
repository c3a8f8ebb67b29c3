//! Harness of the end-to-end suites: real binaries, a real gateway in directories of its own, real
//! servers on an address of this machine, and nothing that survives a test.
//!
//! ```text
//!   Stack ── openshell-gateway (own XDG directories, own port)
//!     │        └ openshell-sandbox … (one per sandbox)
//!     ├ cli()      runs `openshell` against it
//!     └ drop       ends the gateway and every supervisor it started, by process id
//!   Server ── HTTP or HTTPS on a non-loopback address; remembers what it was asked
//! ```
#![forbid(unsafe_code)]

pub mod bins;
pub mod host;
pub mod policy;
pub mod report;
pub mod server;
pub mod stack;

pub use server::Server;
pub use stack::Stack;
