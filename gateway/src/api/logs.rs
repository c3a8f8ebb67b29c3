//! What sandboxes recorded.

use kube::ResourceExt as _;
use openshell_proto::v1;
use prost_types::Timestamp;
use tonic::{Request, Status};

use super::{Api, scope};
use crate::convert::log;
use crate::errors;
use crate::limits;
use crate::session::{Level, LogError, LogQuery};

/// Which records a request asks for.
pub(super) enum Wanted {
    /// These.
    Some(LogQuery),
    /// None that exist: only sources that have no log here.
    None,
}

/// `sources` are `sandbox` (everything) or what a record's target says (`proxy`, `stdout`, ...).
pub(super) fn query(lines: u32, sources: &[String], min_level: &str, since: Option<Timestamp>) -> Result<Wanted, Status> {
    if min_level.len() > limits::LOG_LEVEL_BYTES {
        return Err(errors::invalid("min_level", "it is too long"));
    }
    let min_level = match min_level.to_ascii_uppercase().as_str() {
        "" => Level::Trace,
        name @ ("TRACE" | "DEBUG" | "INFO" | "WARN" | "WARNING" | "ERROR" | "OCSF") => Level::of(name),
        other => return Err(errors::invalid("min_level", format!("'{other}' is none of trace, debug, info, warn, error, ocsf"))),
    };
    let all = sources.is_empty() || sources.iter().any(|s| s == log::SOURCE);
    // Nothing that happens locally is logged with the gateway as its source.
    let targets: Vec<String> = if all { Vec::new() } else { sources.iter().filter(|s| *s != "gateway").cloned().collect() };
    if !all && targets.is_empty() {
        return Ok(Wanted::None);
    }
    Ok(Wanted::Some(LogQuery { lines, since, targets, min_level, after: None }))
}

pub(super) fn failed(error: &LogError) -> Status {
    tracing::error!(%error, "the log cannot be read");
    errors::internal(error.to_string())
}

pub(super) async fn get(api: &Api, request: Request<v1::GetSandboxLogsRequest>) -> Result<v1::GetSandboxLogsResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    let uid = api.sandbox(&request.sandbox).await?.uid().unwrap_or_default();
    let most = limits::LOG_LINES as u32;
    let lines = if request.lines == 0 { most } else { request.lines.min(most) };
    let logs = match query(lines, &request.sources, &request.min_level, request.since_time)? {
        Wanted::None => Vec::new(),
        Wanted::Some(query) => api.hub.logs().tail(&uid, &query).await.map_err(|e| failed(&e))?,
    };
    let logs: Vec<_> = logs.into_iter().map(|stored| log::to_wire(&uid, stored.record)).collect();
    Ok(v1::GetSandboxLogsResponse { buffer_total: logs.len() as u32, logs })
}
