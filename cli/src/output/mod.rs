//! What is printed: tables for people, JSON and YAML for programs.
//!
//! Text that comes from a sandbox, a gateway or a file is cleaned of control characters before it
//! reaches a terminal: a log line of an agent must not be able to move the cursor or to retitle
//! the window. The output of `exec` and `connect` is the agent's own and is passed as it is.

pub(crate) mod logs;
pub(crate) mod policy;
pub(crate) mod provider;
pub(crate) mod sandbox;
pub(crate) mod table;

use std::borrow::Cow;
use std::io::Write as _;

use jiff::Timestamp;
use serde_json::Value;

use crate::args::Format;
use crate::error::CliError;

/// Prints a line (or lines) on standard output.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), CliError> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_ref().as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}

/// Prints a line for the person on standard error; never fails the command.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{}", clean(text));
}

/// Prints `value` as asked; the table is made only when it is wanted.
pub(crate) fn print(format: Format, value: impl FnOnce() -> Value, table: impl FnOnce() -> String) -> Result<(), CliError> {
    match format {
        Format::Table => line(table().trim_end_matches('\n')),
        Format::Json => line(json(&value())?),
        Format::Yaml => line(yaml(&value())?.trim_end_matches('\n')),
    }
}

/// Pretty JSON.
pub(crate) fn json(value: &Value) -> Result<String, CliError> {
    serde_json::to_string_pretty(value).map_err(|e| unprintable(&e))
}

/// YAML.
pub(crate) fn yaml(value: &impl serde::Serialize) -> Result<String, CliError> {
    serde_saphyr::to_string(value).map_err(|e| unprintable(&e))
}

fn unprintable(error: &dyn std::fmt::Display) -> CliError {
    CliError::new("output", "The result could not be printed.").because(error)
}

/// Without control characters: each becomes visible. Line ends and tabs stay.
pub(crate) fn clean(text: &str) -> String {
    visible(text, |c| matches!(c, '\n' | '\t')).into_owned()
}

/// As [`clean`], on one line.
pub(crate) fn clean_line(text: &str) -> Cow<'_, str> {
    visible(text, |_| false)
}

fn visible(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    // Beside the control characters: the ones that reorder what a person reads.
    let bad =
        |c: char| (c.is_control() && !keep(c)) || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}');
    if !text.contains(bad) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .fold(String::with_capacity(text.len()), |mut out, c| {
            if bad(c) {
                out.extend(c.escape_default());
            } else {
                out.push(c);
            }
            out
        })
        .into()
}

/// A wire time as RFC 3339, if it is one.
pub(crate) fn time(time: Option<&prost_types::Timestamp>) -> Option<String> {
    timestamp(time).map(|t| t.to_string())
}

/// A wire time.
pub(crate) fn timestamp(time: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    let time = time?;
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// How long ago, in the two largest units that `kubectl` would show.
pub(crate) fn age(since: Option<Timestamp>) -> String {
    since.map_or_else(|| "-".to_owned(), |t| span(Timestamp::now().as_second() - t.as_second()))
}

fn span(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    if seconds < 120 {
        format!("{seconds}s")
    } else if minutes < 10 {
        let rest = seconds % 60;
        if rest == 0 { format!("{minutes}m") } else { format!("{minutes}m{rest}s") }
    } else if hours < 3 {
        format!("{minutes}m")
    } else if hours < 48 {
        format!("{hours}h")
    } else {
        format!("{days}d")
    }
}

#[cfg(test)]
mod tests;
