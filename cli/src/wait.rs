//! Waiting for a sandbox to get somewhere, by watching it.

use std::time::Duration;

use openshell_crds::conditions::ENFORCED;
use openshell_proto::v1::sandbox_stream_event::Payload;
use openshell_proto::v1::{Sandbox, SandboxCondition, SandboxPhase, SandboxStreamEvent, WatchSandboxRequest};
use tokio::time::{Instant, sleep_until, timeout_at};
use tonic::{Code, Streaming};

use crate::error::{CliError, Exit};
use crate::limits;
use crate::progress::Progress;
use crate::session::Session;

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// The supervisor enforces the policy; or the main process has come and gone.
    Ready,
    /// Ready again, from a stop.
    Started,
    /// Suspended.
    Stopped,
}

/// How long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Since the last sign of progress.
    Idle(Duration),
    /// In all.
    Total(Duration),
}

/// What a snapshot means for a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Reached.
    There,
    /// It will not get there by itself.
    Never,
    /// Not yet.
    Wait,
}

/// Judges a snapshot.
pub(crate) fn judge(goal: Goal, sandbox: &Sandbox) -> Verdict {
    let exited = sandbox.status.as_ref().is_some_and(|s| s.exit_code.is_some());
    match (goal, phase(sandbox)) {
        (Goal::Ready | Goal::Started, SandboxPhase::Ready | SandboxPhase::Completed) | (Goal::Stopped, SandboxPhase::Stopped) => {
            Verdict::There
        }
        // A main process that failed did run: its output and its code are worth showing.
        (Goal::Ready | Goal::Started, SandboxPhase::Error) if exited => Verdict::There,
        (_, SandboxPhase::Error | SandboxPhase::Deleting) | (Goal::Ready, SandboxPhase::Stopped) => Verdict::Never,
        _ => Verdict::Wait,
    }
}

/// The phase, `Unknown` if it is one that we do not know.
pub(crate) fn phase(sandbox: &Sandbox) -> SandboxPhase {
    sandbox.status.as_ref().map_or(SandboxPhase::Unspecified, |s| SandboxPhase::try_from(s.phase).unwrap_or(SandboxPhase::Unknown))
}

/// Waits; returns the snapshot that reached the goal.
pub(crate) async fn wait(session: &Session, name: &str, goal: Goal, patience: Patience, progress: &Progress) -> Result<Sandbox, CliError> {
    let (Patience::Idle(length) | Patience::Total(length)) = patience;
    let mut deadline = Instant::now() + length;
    let mut last: Option<Sandbox> = None;
    loop {
        let watched = async {
            let mut stream = watch(session, name).await?;
            next(&mut stream).await.map(|event| (stream, event))
        };
        // A stream that breaks is opened again: the gateway may restart while we wait.
        let mut turn = match timeout_at(deadline, watched).await {
            Err(_) => return Err(timed_out(name, goal, length, last.as_ref())),
            Ok(Err(Broken::Final(error))) => return Err(error),
            Ok(Err(Broken::Again)) => None,
            Ok(Ok(turn)) => Some(turn),
        };
        while let Some((mut stream, event)) = turn {
            // The same state said again is no progress.
            let moved = match &event.payload {
                Some(Payload::Sandbox(sandbox)) => last.as_ref().is_none_or(|last| summary(last) != summary(sandbox)),
                Some(_) => true,
                None => false,
            };
            if moved && matches!(patience, Patience::Idle(_)) {
                deadline = Instant::now() + length;
            }
            match event.payload {
                Some(Payload::Sandbox(sandbox)) => {
                    match judge(goal, &sandbox) {
                        Verdict::There => return Ok(sandbox),
                        Verdict::Never => return Err(never(name, goal, &sandbox)),
                        Verdict::Wait => progress.say(&format!("{name}: {}", summary(&sandbox))),
                    }
                    last = Some(sandbox);
                }
                Some(Payload::Event(event)) if !event.message.is_empty() => progress.say(&format!("{name}: {}", event.message)),
                Some(Payload::Warning(warning)) => progress.say(&format!("{name}: {}", warning.message)),
                _ => {}
            }
            turn = match timeout_at(deadline, next(&mut stream)).await {
                Err(_) => return Err(timed_out(name, goal, length, last.as_ref())),
                Ok(Err(Broken::Final(error))) => return Err(error),
                Ok(Err(Broken::Again)) => None,
                Ok(Ok(event)) => Some((stream, event)),
            };
        }
        sleep_until((Instant::now() + limits::WATCH_RETRY).min(deadline)).await;
    }
}

/// Why a watch ended.
enum Broken {
    /// Worth another attempt.
    Again,
    /// Not.
    Final(CliError),
}

async fn watch(session: &Session, name: &str) -> Result<Streaming<SandboxStreamEvent>, Broken> {
    let request = WatchSandboxRequest {
        sandbox: name.to_owned(),
        follow_status: true,
        follow_events: true,
        workspace_scope: session.scope(),
        ..WatchSandboxRequest::default()
    };
    let opened = session.client.clone().watch_sandbox(request).await;
    opened.map(tonic::Response::into_inner).map_err(|s| broken(name, &s))
}

async fn next(stream: &mut Streaming<SandboxStreamEvent>) -> Result<SandboxStreamEvent, Broken> {
    match stream.message().await {
        Ok(Some(event)) => Ok(event),
        Ok(None) => Err(Broken::Again),
        Err(status) => Err(broken("the sandbox", &status)),
    }
}

fn broken(name: &str, status: &tonic::Status) -> Broken {
    match status.code() {
        Code::Unavailable | Code::Cancelled | Code::Aborted | Code::Unknown => Broken::Again,
        _ => Broken::Final(CliError::from_status(format!("Sandbox {name} could not be watched."), status)),
    }
}

/// What is going on, in a few words: the reason of `Ready`, else the phase.
pub(crate) fn summary(sandbox: &Sandbox) -> String {
    let ready = sandbox.status.as_ref().and_then(|s| s.conditions.iter().find(|c| c.r#type == "Ready"));
    match ready {
        Some(condition) if !condition.message.is_empty() => condition.message.clone(),
        Some(condition) if !condition.reason.is_empty() => condition.reason.clone(),
        _ => crate::output::sandbox::phase_word(phase(sandbox)).to_owned(),
    }
}

fn never(name: &str, goal: Goal, sandbox: &Sandbox) -> CliError {
    let what = match goal {
        Goal::Ready => format!("Sandbox {name} did not become ready."),
        Goal::Started => format!("Sandbox {name} did not start."),
        Goal::Stopped => format!("Sandbox {name} did not stop."),
    };
    let phase = crate::output::sandbox::phase_word(phase(sandbox));
    let mut error = CliError::new("sandbox-failed", what).because(format_args!("Phase: {phase}"));
    // One cause is often the message of several conditions; it is said once.
    let mut said = std::collections::BTreeSet::new();
    // A reduced level is no cause: the sandbox would run at it.
    let is_cause = |c: &&SandboxCondition| c.status == "False" && !c.message.is_empty() && c.r#type != ENFORCED;
    let failed = sandbox.status.iter().flat_map(|s| &s.conditions).filter(is_cause);
    for condition in failed.filter(|c| said.insert(c.message.as_str())) {
        error = error.because(format_args!("{} ({})", condition.message, condition.reason));
    }
    error.next(format!("`openshell logs {name}` says more; `openshell sandbox delete {name}` removes it."))
}

fn timed_out(name: &str, goal: Goal, length: Duration, last: Option<&Sandbox>) -> CliError {
    let goal = match goal {
        Goal::Ready => "ready",
        Goal::Started => "started",
        Goal::Stopped => "stopped",
    };
    let mut error = CliError::new("timeout", format!("Sandbox {name} is not {goal} after {} s.", length.as_secs())).exits(Exit::Timeout);
    if let Some(sandbox) = last {
        error = error.because(summary(sandbox));
    }
    error.next(format!("It goes on trying. `openshell sandbox get {name}` shows its state."))
}

#[cfg(test)]
mod tests;
