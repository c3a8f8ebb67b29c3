//! `logs`.

use openshell_proto::v1::sandbox_stream_event::Payload;
use openshell_proto::v1::{GetSandboxLogsRequest, SandboxLogLine, WatchSandboxRequest};
use serde_json::Value;

use crate::args::Format;
use crate::args::sandbox::LogsArgs;
use crate::context::Context;
use crate::error::CliError;
use crate::output;
use crate::session::{Session, call};

/// `logs`.
pub(super) async fn logs(context: &Context, args: LogsArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let since = args.since.and_then(|age| {
        let then = jiff::Timestamp::now().checked_sub(jiff::SignedDuration::try_from(age).ok()?).ok()?;
        Some(prost_types::Timestamp { seconds: then.as_second(), nanos: then.subsec_nanosecond() })
    });
    let level = args.level.clone().unwrap_or_default();
    let format = args.output.output;
    let what = || format!("The logs of sandbox {name} could not be read.");
    if !args.tail {
        let request = GetSandboxLogsRequest {
            sandbox: name.clone(),
            lines: args.lines,
            sources: args.sources,
            min_level: level,
            workspace_scope: session.scope(),
            since_time: since,
        };
        let response = session.client.clone().get_sandbox_logs(call(request)).await;
        let logs = response.map_err(|s| CliError::from_status(what(), &s))?.into_inner().logs;
        if format != Format::Table {
            let values: Value = logs.iter().map(output::logs::value).collect();
            output::print(format, || values, String::new)?;
            return Ok(0);
        }
        for log in &logs {
            output::line(output::logs::text(log))?;
        }
        return Ok(0);
    }
    let request = WatchSandboxRequest {
        sandbox: name.clone(),
        follow_logs: true,
        log_tail_lines: args.lines,
        log_sources: args.sources,
        log_min_level: level,
        workspace_scope: session.scope(),
        since_time: since,
        ..WatchSandboxRequest::default()
    };
    let stream = session.client.clone().watch_sandbox(request).await;
    let mut stream = stream.map_err(|s| CliError::from_status(what(), &s))?.into_inner();
    while let Some(event) = stream.message().await.map_err(|s| CliError::from_status(what(), &s))? {
        match event.payload {
            Some(Payload::Log(log)) => line(format, &log)?,
            Some(Payload::Warning(warning)) => output::note(&warning.message),
            _ => {}
        }
    }
    Ok(0)
}

/// One line of a stream: JSON lines and YAML documents, so that each can be read when it comes.
fn line(format: Format, log: &SandboxLogLine) -> Result<(), CliError> {
    match format {
        Format::Table => output::line(output::logs::text(log)),
        Format::Json => output::line(output::logs::value(log).to_string()),
        Format::Yaml => output::line(format!("---\n{}", output::yaml(&output::logs::value(log))?.trim_end())),
    }
}
