//! `sandbox list`, `get`, `delete`, `stop`, `start`.

use openshell_proto::v1::{
    DeleteSandboxRequest, DeletionOutcome, GetSandboxPolicyStatusRequest, ListSandboxesRequest, Sandbox, StartSandboxRequest,
    StopSandboxRequest,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::args::sandbox::{DeleteArgs, GetArgs, ListArgs, NameArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::progress::Progress;
use crate::session::{Session, call, force};
use crate::signals::Signals;
use crate::wait::{self, Goal, Patience};
use crate::{limits, output, policy_file};

/// `sandbox list`.
pub(super) async fn list(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let scope = if args.all_workspaces { Session::all_workspaces() } else { session.scope() };
    let selector = args.selector.clone().unwrap_or_default();
    let wanted = (args.offset as usize).saturating_add(args.limit as usize);
    let all = pages(&session, scope, &selector, wanted).await?;
    let shown: Vec<&Sandbox> = all.iter().skip(args.offset as usize).take(args.limit as usize).collect();
    let text = |s: &Sandbox, id: bool| s.metadata.as_ref().map(|m| if id { m.id.clone() } else { m.name.clone() }).unwrap_or_default();
    if args.ids || args.names {
        for sandbox in shown {
            output::line(text(sandbox, args.ids))?;
        }
        return Ok(0);
    }
    output::print(
        args.output.output,
        || shown.iter().map(|s| Value::Object(output::sandbox::value(s))).collect(),
        || {
            if shown.is_empty() {
                "No sandboxes. `openshell sandbox create -- COMMAND` makes one.".to_owned()
            } else {
                output::sandbox::table(shown.iter().copied())
            }
        },
    )?;
    Ok(0)
}

/// The first `wanted` sandboxes, page by page.
async fn pages(
    session: &Session,
    scope: Option<openshell_proto::datamodel::WorkspaceSelector>,
    selector: &str,
    wanted: usize,
) -> Result<Vec<Sandbox>, CliError> {
    let mut all = Vec::new();
    let mut token = String::new();
    while all.len() < wanted {
        let request = ListSandboxesRequest {
            page_size: limits::PAGE,
            page_token: token.clone(),
            label_selector: selector.to_owned(),
            workspace_scope: scope.clone(),
        };
        let page = session.client.clone().list_sandboxes(call(request)).await;
        let page = page.map_err(|s| CliError::from_status("The sandboxes could not be listed.", &s))?.into_inner();
        let more = !page.next_page_token.is_empty() && page.next_page_token != token;
        all.extend(page.sandboxes);
        token = page.next_page_token;
        if !more {
            break;
        }
    }
    Ok(all)
}

/// `sandbox get`.
pub(super) async fn get(context: &Context, args: GetArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let sandbox = session.sandbox(&name).await?;
    let policy = in_force(&session, &name).await?;
    if args.policy_only {
        let policy = policy.and_then(|p| p.policy).or_else(|| sandbox.spec.as_ref().and_then(|s| s.policy.clone()));
        let policy = policy.ok_or_else(|| {
            CliError::new("no-policy", format!("Sandbox {name} has no policy yet."))
                .because(wait::summary(&sandbox))
                .next("It has one as soon as it is ready.")
        })?;
        output::line(policy_file::yaml(&policy)?.trim_end())?;
        return Ok(0);
    }
    let mut value = output::sandbox::value(&sandbox);
    value.insert("policy_source".into(), json!("sandbox"));
    value.insert("revision".into(), json!(policy.as_ref().map(|p| p.version)));
    value.insert("policy".into(), policy.and_then(|p| p.policy).map(|p| policy_file::value(&p)).transpose()?.unwrap_or_default());
    output::print(args.output.output, || Value::Object(value), || output::sandbox::details(&sandbox))?;
    Ok(0)
}

/// The newest policy revision; none before the first.
async fn in_force(session: &Session, name: &str) -> Result<Option<openshell_proto::v1::SandboxPolicyRevision>, CliError> {
    let request = GetSandboxPolicyStatusRequest {
        sandbox: name.to_owned(),
        workspace_scope: session.scope(),
        ..GetSandboxPolicyStatusRequest::default()
    };
    match session.client.clone().get_sandbox_policy_status(call(request)).await {
        Ok(response) => Ok(response.into_inner().revision),
        Err(status) if matches!(status.code(), Code::NotFound | Code::FailedPrecondition) => Ok(None),
        Err(status) => Err(CliError::from_status(format!("The policy of sandbox {name} could not be read."), &status)),
    }
}

/// `sandbox delete`.
pub(super) async fn delete(context: &Context, args: DeleteArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let names: Vec<String> = if args.all {
        let all = pages(&session, session.scope(), "", usize::MAX).await?;
        all.into_iter().filter_map(|s| s.metadata).map(|m| m.name).collect()
    } else {
        args.names
    };
    if names.is_empty() {
        output::line("No sandboxes.")?;
    }
    // One that fails does not save the others; the first error decides the exit code.
    let mut first = None;
    for name in names {
        let request = DeleteSandboxRequest {
            name: name.clone(),
            workspace_scope: session.scope(),
            allow_missing: args.all,
            ..DeleteSandboxRequest::default()
        };
        match session.client.clone().delete_sandbox(force(args.force, call(request))).await {
            Ok(response) if response.get_ref().outcome() == DeletionOutcome::AlreadyAbsent => {
                output::line(format!("Sandbox {name} was deleted before"))?;
            }
            Ok(_) => output::line(format!("Deleted sandbox {name}"))?,
            Err(status) => {
                let error = CliError::from_status(format!("Sandbox {name} could not be deleted."), &status);
                if let Some(earlier) = first.replace(error) {
                    earlier.render();
                }
                continue;
            }
        }
        session.forget(&name);
    }
    first.map_or(Ok(0), Err)
}

/// `sandbox stop`.
pub(super) async fn stop(context: &Context, args: NameArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let request = StopSandboxRequest { name: name.clone(), workspace_scope: session.scope(), ..StopSandboxRequest::default() };
    let stopped = session.client.clone().stop_sandbox(call(request)).await;
    stopped.map_err(|s| CliError::from_status(format!("Sandbox {name} could not be stopped."), &s))?;
    until(context, &session, &name, Goal::Stopped, "Stopping").await?;
    output::line(format!("Stopped sandbox {name}"))?;
    Ok(0)
}

/// `sandbox start`.
pub(super) async fn start(context: &Context, args: NameArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let request = StartSandboxRequest { name: name.clone(), workspace_scope: session.scope(), ..StartSandboxRequest::default() };
    let started = session.client.clone().start_sandbox(call(request)).await;
    started.map_err(|s| CliError::from_status(format!("Sandbox {name} could not be started."), &s))?;
    until(context, &session, &name, Goal::Started, "Starting").await?;
    output::line(format!("Started sandbox {name}"))?;
    Ok(0)
}

async fn until(context: &Context, session: &Session, name: &str, goal: Goal, doing: &str) -> Result<(), CliError> {
    let mut signals = Signals::take()?;
    let progress = Progress::start(format!("{doing} {name}"));
    let patience = Patience::Total(context.environment.lifecycle_timeout);
    tokio::select! {
        reached = wait::wait(session, name, goal, patience, &progress) => reached.map(drop),
        number = signals.next() => Err(CliError::signal(number)),
    }
}
