//! The terminal: is there one, how large is it, and raw mode that always ends.

use std::io::IsTerminal as _;

use crate::error::CliError;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) cols: u16,
    pub(crate) rows: u16,
}

/// What a remote terminal is given when we have none.
pub(crate) const DEFAULT_SIZE: Size = Size { cols: 80, rows: 24 };

/// The size of ours, if there is one.
pub(crate) fn size() -> Option<Size> {
    [rustix::stdio::stdout(), rustix::stdio::stderr(), rustix::stdio::stdin()].into_iter().find_map(|fd| {
        let size = rustix::termios::tcgetwinsize(fd).ok()?;
        (size.ws_col > 0 && size.ws_row > 0).then_some(Size { cols: size.ws_col, rows: size.ws_row })
    })
}

/// Whether a person types and reads here: standard input and output are terminals.
pub(crate) fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

/// Raw mode until dropped, on whatever way out (a panic unwinds through it too).
#[derive(Debug)]
pub(crate) struct RawMode(());

impl RawMode {
    /// Every key goes to the sandbox, Ctrl-C included.
    pub(crate) fn enter() -> Result<Self, CliError> {
        crossterm::terminal::enable_raw_mode()
            .map_err(|e| CliError::new("terminal", "The terminal cannot be put into raw mode.").because(e).next("Use --no-tty."))?;
        Ok(Self(()))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        // A terminal that went away needs no restoring.
        let _ = crossterm::terminal::disable_raw_mode();
    }
}
