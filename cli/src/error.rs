//! The one error of the command: what failed, why, what to do next, and a stable code.
//!
//! Rendered by `miette` on standard error. Refusals of a gateway carry `google.rpc` details
//! (`ErrorInfo`, `BadRequest`, `PreconditionFailure`); they become the reasons and the code.

use std::error::Error as StdError;
use std::fmt;

use miette::{Diagnostic, LabeledSpan, NamedSource, SourceCode};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::output::clean;

/// With what the command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// 1: it failed.
    Failure,
    /// 2: it was called wrongly.
    Usage,
    /// 124: it took too long.
    Timeout,
    /// 128 + n: ended by signal n. Nothing is printed.
    Signal(u8),
}

impl Exit {
    /// The number.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Failure => 1,
            Self::Usage => 2,
            Self::Timeout => 124,
            Self::Signal(n) => 128u8.saturating_add(n),
        }
    }
}

/// An error for a person.
#[derive(Debug)]
pub(crate) struct CliError {
    code: String,
    what: String,
    why: Option<Box<Reason>>,
    next: Option<String>,
    exit: Exit,
    place: Option<Box<Place>>,
}

/// Where in a file.
#[derive(Debug)]
struct Place {
    text: NamedSource<String>,
    labels: Vec<LabeledSpan>,
}

/// One reason, and the one behind it.
#[derive(Debug)]
struct Reason {
    text: String,
    behind: Option<Box<Reason>>,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Reason {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.behind.as_deref().map(|r| r as &(dyn StdError + 'static))
    }
}

impl CliError {
    /// `code` is lower case with dashes and stays the same for ever; `what` is a sentence.
    pub(crate) fn new(code: &str, what: impl Into<String>) -> Self {
        Self { code: code.to_owned(), what: what.into(), why: None, next: None, exit: Exit::Failure, place: None }
    }

    /// A call that cannot be meant.
    pub(crate) fn usage(what: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, ..Self::new("usage", what) }
    }

    /// Ended by a signal: says nothing.
    pub(crate) fn signal(number: u8) -> Self {
        Self { exit: Exit::Signal(number), ..Self::new("signal", "Interrupted.") }
    }

    /// Adds the deepest reason.
    pub(crate) fn because(mut self, reason: impl fmt::Display) -> Self {
        let mut end = &mut self.why;
        while let Some(reason) = end {
            end = &mut reason.behind;
        }
        *end = Some(Box::new(Reason { text: clean(&reason.to_string()), behind: None }));
        self
    }

    /// Adds `error` and everything behind it, each said once.
    pub(crate) fn because_of(mut self, error: &(dyn StdError + 'static)) -> Self {
        let mut said = String::new();
        let mut next = Some(error);
        while let Some(error) = next {
            let text = error.to_string();
            if !text.is_empty() && !said.contains(&text) {
                said.push_str(&text);
                self = self.because(&text);
            }
            next = error.source();
        }
        self
    }

    /// What to do now.
    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Another exit code than 1.
    pub(crate) fn exits(mut self, exit: Exit) -> Self {
        self.exit = exit;
        self
    }

    /// Shows `text` with marks.
    pub(crate) fn at(mut self, name: &str, text: &str, labels: Vec<LabeledSpan>) -> Self {
        self.place = Some(Box::new(Place { text: NamedSource::new(name, text.to_owned()), labels }));
        self
    }

    /// A refusal by the gateway; `what` says what was asked of it.
    pub(crate) fn from_status(what: impl Into<String>, status: &Status) -> Self {
        // What a gateway says comes without a source; an error with one was made here, when the connection
        // ended in the middle of an answer. Its text is about the protocol, and helps nobody.
        if StdError::source(status).is_some() && matches!(status.code(), Code::Internal | Code::Unknown | Code::Cancelled) {
            return Self::new("connection-lost", what)
                .because("the connection to the gateway was lost before the answer was complete")
                .next("Run it again: a gateway that was restarted is back in a moment. What had begun may have been done; a command in a sandbox was ended.");
        }
        let details = status.get_error_details();
        let code = details.error_info().map(|i| i.reason.to_lowercase().replace('_', "-")).filter(|r| !r.is_empty());
        let mut error = Self::new(code.as_deref().unwrap_or_else(|| code_name(status.code())), what);
        if !status.message().is_empty() {
            error = error.because(status.message());
        }
        if let Some(bad) = details.bad_request() {
            for violation in &bad.field_violations {
                if !status.message().contains(&violation.description) {
                    error = error.because(format_args!("{}: {}", violation.field, violation.description));
                }
            }
        }
        if let Some(failed) = details.precondition_failure() {
            for violation in &failed.violations {
                if !status.message().contains(&violation.description) {
                    error = error.because(&violation.description);
                }
            }
        }
        if let Some(source) = StdError::source(status) {
            error = error.because_of(source);
        }
        let advice = details.help().and_then(|h| h.links.first()).map(|l| l.description.clone()).filter(|d| !d.is_empty());
        if let Some(next) = advice.or_else(|| advice_for(status.code()).map(str::to_owned)) {
            error = error.next(clean(&next));
        }
        if status.code() == Code::DeadlineExceeded {
            error = error.exits(Exit::Timeout);
        }
        error
    }

    /// With what the command ends.
    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The stable code, without its prefix.
    #[cfg(test)]
    pub(crate) fn stable_code(&self) -> &str {
        &self.code
    }

    /// Prints it on standard error.
    pub(crate) fn render(&self) {
        use std::io::Write as _;
        if matches!(self.exit, Exit::Signal(_)) {
            return;
        }
        // Nothing is left to do when standard error is gone.
        let _ = writeln!(std::io::stderr(), "{}", self.rendered(&miette::GraphicalReportHandler::new_themed(theme()).with_width(width())));
    }

    fn rendered(&self, handler: &miette::GraphicalReportHandler) -> String {
        let mut text = String::new();
        if handler.render_report(&mut text, self).is_err() {
            text = format!("error: {self}");
        }
        text.trim_end().to_owned()
    }

    /// As it is rendered without colour, for tests.
    #[cfg(test)]
    pub(crate) fn plain(&self) -> String {
        let theme = miette::GraphicalTheme::unicode_nocolor();
        self.rendered(&miette::GraphicalReportHandler::new_themed(theme).with_width(100))
    }
}

fn theme() -> miette::GraphicalTheme {
    use std::io::IsTerminal as _;
    let colour = std::io::stderr().is_terminal() && !crate::env::no_color();
    if colour { miette::GraphicalTheme::unicode() } else { miette::GraphicalTheme::unicode_nocolor() }
}

fn width() -> usize {
    crate::terminal::size().map_or(100, |s| usize::from(s.cols)).clamp(60, 120)
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl StdError for CliError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.why.as_deref().map(|r| r as &(dyn StdError + 'static))
    }
}

impl Diagnostic for CliError {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(format!("openshell::{}", self.code)))
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.next.as_ref().map(|n| Box::new(n) as Box<dyn fmt::Display + 'a>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.place.as_deref().map(|p| &p.text as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        self.place.as_deref().map(|p| Box::new(p.labels.iter().cloned()) as Box<dyn Iterator<Item = LabeledSpan>>)
    }
}

impl From<std::io::Error> for CliError {
    /// Of writing to standard output: a reader that went away (`| head`) ends the command as
    /// SIGPIPE would.
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            return Self::signal(13);
        }
        Self::new("io", "The output could not be written.").because(error)
    }
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::InvalidArgument => "invalid-argument",
        Code::DeadlineExceeded => "timeout",
        Code::NotFound => "not-found",
        Code::AlreadyExists => "already-exists",
        Code::PermissionDenied => "permission-denied",
        Code::ResourceExhausted => "limit-reached",
        Code::FailedPrecondition => "failed-precondition",
        Code::Aborted => "conflict",
        Code::Unimplemented => "not-supported",
        Code::Unavailable => "unavailable",
        Code::Unauthenticated => "unauthenticated",
        _ => "gateway-error",
    }
}

fn advice_for(code: Code) -> Option<&'static str> {
    Some(match code {
        Code::NotFound => "See what there is: `openshell sandbox list`, `openshell provider list`.",
        Code::AlreadyExists => "Choose another name, or delete the one that exists.",
        Code::PermissionDenied => "Ask an administrator of the gateway for the role named above.",
        Code::Aborted => "Someone else changed it in the meantime. Run the command again.",
        Code::Unavailable => "Look at the gateway: `openshell status`. Start a local one: `openshell gateway start`.",
        Code::Unauthenticated => {
            "The gateway did not accept this client. `openshell gateway list` shows which one is asked; its certificates are in the configuration directory."
        }
        Code::FailedPrecondition => "`openshell sandbox get NAME` shows the state and the conditions of a sandbox.",
        Code::ResourceExhausted => "Delete what is not needed any more, or try again later.",
        Code::Unimplemented => "This gateway does not offer that. `openshell status` shows its version.",
        Code::Internal | Code::Unknown => "This is a defect of the gateway. Its log says more: `openshell gateway info` shows where it is.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests;
