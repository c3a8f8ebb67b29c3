//! The gateway dies between any two actions of the reconciler; the next one goes on.
//!
//! Needs a gateway with the cargo feature `failpoints` (`scripts/killed` builds it), which aborts
//! at a named place: as good as `kill -9` at exactly that instruction. Everything else is as it is
//! shipped: the command line, the store, real supervisors.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{ExitCode, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{anyhow, ensure};
use openshell_e2e::{
    Stack,
    report::Report,
    stack::{PATIENCE, scratch},
};
use rustix::process::Signal;

/// What is asked for, and every place where the gateway can be made to die on the way (with which
/// pass of it, where there are several).
const DEATHS: [(Goal, &[&str]); 3] = [
    (
        Goal::Ready,
        &[
            "sandbox-starting",
            "process-noted",
            "process-prepared",
            "process-bound",
            "process-recorded",
            "sandbox-started",
            // A second status may never be: the first one has everything where the session is there at once.
            "sandbox-status",
        ],
    ),
    (Goal::Stopped, &["process-marked", "sandbox-status", "sandbox-status:2"]),
    (Goal::Deleted, &["process-marked", "sandbox-deleting", "process-put-aside", "sandbox-releasing", "sandbox-status"]),
];

/// What was asked for when it died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Ready,
    Stopped,
    Deleted,
}

fn main() -> ExitCode {
    let mut report = Report::default();
    for (goal, places) in DEATHS {
        for place in places {
            report.step(&format!("{goal:?} although the gateway died at {place}"), || survives(goal, place));
        }
    }
    report.finish()
}

fn survives(goal: Goal, place: &str) -> anyhow::Result<String> {
    let failpoint = [("OPENSHELL_FAILPOINT", place)];
    let mut stack = Stack::below(scratch()?, if goal == Goal::Ready { &failpoint } else { &[] })?;
    if goal != Goal::Ready {
        stack.ok(["sandbox", "create", "--name", "demo", "--detach"])?;
        stack.stop_gateway()?;
        stack.set_env(&failpoint);
        stack.start_gateway()?;
    }
    let mut command = match goal {
        Goal::Ready => stack.command(["sandbox", "create", "--name", "demo", "--detach"])?,
        Goal::Stopped => stack.command(["sandbox", "stop", "demo"])?,
        Goal::Deleted => stack.command(["sandbox", "delete", "demo"])?,
    };
    // The command must not start a gateway of its own in place of the one that dies.
    let mut asked = command.env("OPENSHELL_GATEWAY_BIN", "/bin/false").stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let died = loop {
        if let Some(status) = stack.gateway_ended()? {
            break Ok(status);
        }
        if Instant::now() > deadline {
            break Err(anyhow!("the gateway never came to {place}"));
        }
        thread::sleep(Duration::from_millis(5));
    };
    asked.kill()?;
    asked.wait()?;
    let status = died?;
    ensure!(status.signal() == Some(Signal::ABORT.as_raw()), "the gateway ended otherwise: {status}");
    stack.set_env(&[]);
    stack.start_gateway()?;
    reached(&stack, goal)?;
    Ok(String::new())
}

/// The gateway that took over brings it to an end, with one supervisor or none.
fn reached(stack: &Stack, goal: Goal) -> anyhow::Result<()> {
    let wanted = usize::from(goal == Goal::Ready);
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sandboxes: serde_json::Value = serde_json::from_str(&stack.ok(["sandbox", "list", "-o", "json"])?)?;
        let phase = sandboxes.get(0).map(|sandbox| sandbox["phase"].to_string().to_lowercase());
        let there = match goal {
            Goal::Ready => phase.as_ref().is_some_and(|phase| phase.contains("ready")),
            Goal::Stopped => phase.as_ref().is_some_and(|phase| phase.contains("stopped")),
            Goal::Deleted => phase.is_none(),
        };
        let living = stack.supervisors().len();
        if there && living == wanted {
            break;
        }
        ensure!(Instant::now() < deadline, "phase {phase:?} with {living} supervisors");
        thread::sleep(Duration::from_millis(20));
    }
    match goal {
        Goal::Ready => {
            ensure!(stack.exec("demo", &["true"])?.status.success(), "nothing can be run in it");
            // One, and it stays one.
            ensure!(stack.supervisors().len() == 1, "{} supervisors", stack.supervisors().len());
        }
        Goal::Stopped => {
            stack.ok(["sandbox", "start", "demo"])?;
            ensure!(stack.exec("demo", &["true"])?.status.success(), "nothing can be run in it after a start");
        }
        Goal::Deleted => {
            // The directory of the one supervisor that waits is nobody's.
            let (spare, left): (Vec<_>, Vec<_>) = std::fs::read_dir(stack.state().join("sandboxes"))?
                .flatten()
                .filter(|entry| {
                    entry.file_name() != ".removed" || std::fs::read_dir(entry.path()).is_ok_and(|mut inside| inside.next().is_some())
                })
                .map(|entry| entry.path())
                .partition(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".spare-")));
            ensure!(left.is_empty() && spare.len() <= 1, "left behind: {left:?} {spare:?}");
        }
    }
    Ok(())
}
