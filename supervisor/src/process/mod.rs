//! Processes of the agent: the main process and the execs, seen from outside their domain.
//!
//! ```text
//!  Input ─▶ pipe or terminal ─▶ process ─▶ pipes or terminal ─▶ Output      exec: one client
//!                                  │                     └─▶ history ─▶ logs, attachments
//!                                  └─ exit ─▶ Table ─▶ whoever waits
//! ```
//!
//! The launcher starts them ([`crate::confine`]); this module makes their standard streams,
//! carries them with bounded memory, times them out, and tells how they ended. A command that
//! nobody reads from is held by its own full pipe; the main process is never held: what is not
//! read is in the history, up to its bound.
//!
//! A command is executed as it is given, never through a shell: the reference runs execs as
//! `bash -lc`, which needs that shell in the sandbox and reads the agent's own start-up files
//! before every command. Here every process gets one documented environment
//! ([`environment`]); who wants a shell names it.

pub mod environment;
mod exec;
mod history;
mod lines;
mod main_process;
mod streams;
mod table;
mod terminal;

use std::{ffi::OsString, io, path::PathBuf};

use bytes::Bytes;

pub use exec::{Exec, run as exec};
pub use main_process::{Attachment, MainProcess, MainSpec, StdinSource};
pub use table::Table;

use crate::confine::SpawnError;

/// Size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Columns.
    pub cols: u16,
    /// Rows.
    pub rows: u16,
}

impl Size {
    /// What a terminal has that nobody has sized.
    pub const DEFAULT: Self = Self { cols: 80, rows: 24 };

    /// From the wire, where 0 means unsaid.
    pub fn new(cols: u32, rows: u32) -> Self {
        let or = |given: u32, default: u16| u16::try_from(given).ok().filter(|n| *n > 0).unwrap_or(default);
        Self { cols: or(cols, Self::DEFAULT.cols), rows: or(rows, Self::DEFAULT.rows) }
    }
}

/// What a client sends to a process. The end of the channel means that the client has gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Bytes for its standard input.
    Data(Bytes),
    /// No more input.
    Eof,
    /// The client's terminal has another size.
    Resize(Size),
    /// A signal for its process group.
    Signal(u32),
}

/// What a process gives to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Standard output, or everything that a terminal shows.
    Stdout(Bytes),
    /// Standard error.
    Stderr(Bytes),
    /// The last thing.
    Exit(Exited),
}

/// How a process ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exited {
    /// 0 to 255, or 128 + signal, 124 on timeout, 126 or 127 if it never ran.
    pub code: i32,
    /// Empty, or why it never ran: `NotFound`, `PermissionDenied`, `LaunchFailed`.
    pub reason: &'static str,
    /// For people; empty unless there is a reason.
    pub message: String,
}

/// Exit code of a command whose time was over, as `timeout(1)` has it.
const TIMED_OUT: i32 = 124;
/// Exit code of a program that may not be executed, as shells have it.
const NOT_EXECUTABLE: i32 = 126;
/// Exit code of a program that is not there, as shells have it.
const NOT_FOUND: i32 = 127;

impl Exited {
    /// It ran and ended.
    fn with(code: i32) -> Self {
        Self { code, ..Self::default() }
    }

    /// It never ran.
    fn never(error: &SpawnError) -> Self {
        let message = error.to_string();
        match error {
            SpawnError::Failed { step, source } if step.starts_with("exec") => match source.kind() {
                io::ErrorKind::NotFound => Self { code: NOT_FOUND, reason: "NotFound", message },
                io::ErrorKind::PermissionDenied => Self { code: NOT_EXECUTABLE, reason: "PermissionDenied", message },
                _ => Self { code: NOT_EXECUTABLE, reason: "LaunchFailed", message },
            },
            _ => Self { code: NOT_EXECUTABLE, reason: "LaunchFailed", message },
        }
    }
}

/// A checked command: what it is, not how it is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Program and arguments; the program is looked for in `PATH` of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// Absolute.
    pub cwd: PathBuf,
}
