//! `doctor`: what this machine can hold, and what is missing. Changes nothing, starts nothing.
//!
//! The kernel's part is measured by `openshell-sandbox doctor`, which tries the very walls that
//! a sandbox gets. Ours is the rest: programs, directories, certificates, the gateway.

use std::fmt::Write as _; // Into a String, which cannot fail.
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::args::Format;
use crate::config::LOCAL;
use crate::context::Context;
use crate::error::CliError;
use crate::local::{self, Files};
use crate::session::{Found, find};
use crate::{limits, output};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Severity {
    /// As it should be.
    Ok,
    /// Works, with less than could be.
    Warning,
    /// Does not work.
    Error,
}

impl Severity {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing looked at.
#[derive(Debug)]
struct Finding {
    severity: Severity,
    code: String,
    message: String,
    /// What to do about it.
    fix: String,
}

/// Everything looked at.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn ok(&mut self, code: &str, message: impl Into<String>) {
        self.add(Severity::Ok, code, message, "");
    }

    fn add(&mut self, severity: Severity, code: &str, message: impl Into<String>, fix: impl Into<String>) {
        self.0.push(Finding { severity, code: code.to_owned(), message: message.into(), fix: fix.into() });
    }

    fn worst(&self) -> Severity {
        self.0.iter().map(|f| f.severity).max().unwrap_or(Severity::Ok)
    }
}

/// `doctor`. Exit code 1 if something does not work; warnings leave it at 0.
pub(super) async fn doctor(context: &Context, format: Format) -> Result<u8, CliError> {
    let mut findings = Findings::default();
    let probe = kernel(context, &mut findings).await;
    gateway_program(context, &mut findings);
    directories(context, &mut findings);
    gateway(context, &mut findings).await;
    let worst = findings.worst();
    let value = || {
        let list: Vec<Value> = findings
            .0
            .iter()
            .map(|f| {
                let mut value = json!({ "severity": f.severity.word(), "code": f.code, "message": f.message });
                if !f.fix.is_empty() {
                    value["fix"] = json!(f.fix);
                }
                value
            })
            .collect();
        json!({ "status": worst.word(), "findings": list, "kernel": probe })
    };
    output::print(format, value, || {
        let mut text = String::new();
        for finding in &findings.0 {
            let message = output::clean_line(&finding.message);
            let _ = writeln!(text, "{:8} {message} [{}]", finding.severity.word(), finding.code);
            if !finding.fix.is_empty() {
                let _ = writeln!(text, "{:8} → {}", "", output::clean_line(&finding.fix));
            }
        }
        text.push_str(match worst {
            Severity::Ok => "\nThis machine holds everything that OpenShell promises.",
            Severity::Warning => "\nThis machine runs sandboxes, with the limits above.",
            Severity::Error => "\nThis machine needs the corrections above.",
        });
        text
    })?;
    Ok(u8::from(worst == Severity::Error))
}

/// What the supervisor finds out about the kernel.
async fn kernel(context: &Context, findings: &mut Findings) -> Value {
    let named = context.environment.supervisor_binary.as_deref();
    let Some(program) = local::find_beside("openshell-sandbox", named, context) else {
        findings.add(
            Severity::Error,
            "supervisor-not-found",
            "openshell-sandbox is neither beside this program nor on the PATH: no sandbox can run here",
            "Install openshell-sandbox beside openshell, or set OPENSHELL_SUPERVISOR_BIN.",
        );
        return Value::Null;
    };
    let broken = |findings: &mut Findings, why: String| {
        let message = format!("{} could not examine this machine: {why}", program.display());
        findings.add(Severity::Error, "probe-failed", message, "Install the programs of one version together.");
        Value::Null
    };
    let run = Command::new(&program).arg("doctor").stdin(Stdio::null()).kill_on_drop(true).output();
    let result = match tokio::time::timeout(limits::CALL, run).await {
        Err(_) => return broken(findings, "it does not end".to_owned()),
        Ok(Err(error)) => return broken(findings, error.to_string()),
        Ok(Ok(result)) => result,
    };
    if result.stdout.len() > limits::DOCTOR_BYTES {
        return broken(findings, "it says too much".to_owned());
    }
    let probe: Value = match serde_json::from_slice(&result.stdout) {
        Ok(probe) => probe,
        Err(error) => {
            let said = String::from_utf8_lossy(&result.stderr);
            let why = said.lines().last().map_or_else(|| error.to_string(), str::to_owned);
            return broken(findings, format!("{why} ({})", result.status));
        }
    };
    explain(&probe, findings);
    probe
}

/// Turns the supervisor's report into findings. Keys that are not known here are kept in `-o json`.
fn explain(probe: &Value, findings: &mut Findings) {
    let level = probe["level"].as_str().unwrap_or("unknown");
    let kernel = probe["kernel"].as_str().map(|k| format!(" (kernel {k})")).unwrap_or_default();
    let walls = probe["walls"].as_array().map_or(0, Vec::len);
    let walls = if walls == 0 { String::new() } else { format!(", {walls} walls stand") };
    match level {
        "full" => findings.ok("enforcement", format!("sandboxes are enforced in full{kernel}{walls}")),
        "reduced" => findings.add(
            Severity::Warning,
            "enforcement",
            format!("sandboxes are enforced with reductions{kernel}{walls}"),
            "The reasons follow. A policy with `landlock.compatibility: hard_requirement` refuses to start here.",
        ),
        _ => findings.add(
            Severity::Error,
            "enforcement",
            format!("sandboxes cannot be enforced here (level {level}){kernel}"),
            "The reasons follow. Linux 5.14 or newer with seccomp user notification is needed.",
        ),
    }
    let severity = if matches!(level, "full" | "reduced") { Severity::Warning } else { Severity::Error };
    for reason in probe["reasons"].as_array().into_iter().flatten() {
        let (code, message, fix) = match reason {
            Value::String(code) => (code.as_str(), meaning(code).unwrap_or(code), ""),
            other => {
                let code = other["code"].as_str().unwrap_or("reason");
                let message = other["message"].as_str().or_else(|| meaning(code)).unwrap_or(code);
                (code, message, other["fix"].as_str().unwrap_or_default())
            }
        };
        findings.add(severity, code, message, fix);
    }
}

/// What a reason means where the supervisor gives its code only.
fn meaning(code: &str) -> Option<&'static str> {
    Some(match code {
        "secrets-readable" => "without Landlock an agent can read what its user can; sandboxes get no credentials here",
        "no-user-namespaces" => "without user namespaces sandboxes share /tmp, /run and the process list of this machine",
        _ => return None,
    })
}

fn gateway_program(context: &Context, findings: &mut Findings) {
    match local::find_beside("openshell-gateway", context.environment.gateway_binary.as_deref(), context) {
        Some(program) => findings.ok("gateway-program", format!("the gateway is {}", program.display())),
        None => findings.add(
            Severity::Warning,
            "gateway-not-found",
            "openshell-gateway is neither beside this program nor on the PATH: only remote gateways can be used",
            "Install openshell-gateway beside openshell, or set OPENSHELL_GATEWAY_BIN.",
        ),
    }
}

fn directories(context: &Context, findings: &mut Findings) {
    let registered = context.config.user_dir().join("gateways").join(LOCAL);
    secret(&registered.join("mtls").join("tls.key"), findings);
    if let Some(state) = &context.environment.state_dir {
        directory(state, findings);
        secret(&state.join("gateway").join("seal.key"), findings);
        secret(&state.join("tls").join("ca.key"), findings);
    }
    directory(context.config.user_dir(), findings);
}

/// A directory of ours: a directory, ours, writable. Absent is fine where it can be made.
fn directory(path: &Path, findings: &mut Findings) {
    let shown = path.display();
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            let Some(above) = path.ancestors().skip(1).find(|above| above.exists()) else { return };
            if let Err(e) = rustix::fs::access(above, rustix::fs::Access::WRITE_OK) {
                let message = format!("{shown} does not exist and cannot be made: {} is not writable: {e}", above.display());
                findings.add(Severity::Error, "directory", message, "Correct its mode, or set XDG_STATE_HOME and XDG_CONFIG_HOME.");
            }
        }
        Err(e) => findings.add(Severity::Error, "directory", format!("{shown} cannot be read: {e}"), "Correct its owner and mode."),
        Ok(m) if !m.is_dir() => findings.add(Severity::Error, "directory", format!("{shown} is no directory"), "Move the file away."),
        Ok(m) if m.uid() != rustix::process::geteuid().as_raw() => {
            findings.add(
                Severity::Error,
                "directory-owner",
                format!("{shown} belongs to another user"),
                format!("chown it: `chown -R $USER {shown}`."),
            );
        }
        Ok(_) => match rustix::fs::access(path, rustix::fs::Access::WRITE_OK) {
            Ok(()) => findings.ok("directory", format!("{shown} is writable")),
            Err(e) => findings.add(Severity::Error, "directory", format!("{shown} is not writable: {e}"), "Correct its mode."),
        },
    }
}

/// A key: nobody else may read it.
fn secret(path: &Path, findings: &mut Findings) {
    if let Ok(metadata) = std::fs::metadata(path)
        && metadata.permissions().mode() & 0o077 != 0
    {
        let shown = path.display();
        findings.add(
            Severity::Error,
            "key-readable",
            format!("other users may read {shown}"),
            format!("`chmod 600 {shown}`; if others use this machine, make new keys."),
        );
    }
}

async fn gateway(context: &Context, findings: &mut Findings) {
    let found = match find(context) {
        Ok(Found::Gateway(gateway, _)) => gateway,
        Ok(Found::NothingConfigured) => {
            findings.ok("gateway", "no gateway is configured; the first command that needs one starts it");
            return;
        }
        Err(error) => {
            findings.add(Severity::Error, "gateway", error.to_string(), "`openshell gateway list` shows the registered gateways.");
            return;
        }
    };
    let name = found.display_name().to_owned();
    match found.channel().await {
        Ok(_) => findings.ok("gateway", format!("gateway {name} answers at {}", found.endpoint)),
        Err(error) => {
            let local_and_stopped = name == LOCAL && Files::new(context).and_then(|f| f.running()).is_ok_and(|r| r.is_none());
            if local_and_stopped {
                findings.ok("gateway", format!("gateway {name} is not running; the next command that needs it starts it"));
            } else {
                let error = CliError::from(error);
                let reason = std::error::Error::source(&error).map(|s| format!(" {s}")).unwrap_or_default();
                findings.add(
                    Severity::Error,
                    "gateway",
                    format!("{error}{reason}"),
                    "`openshell gateway start`, or choose another: `openshell gateway list`.",
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
