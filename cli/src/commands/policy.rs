//! `policy set`, `get`, `list`, `check`.

use std::time::Duration;

use openshell_proto::v1::{
    GetSandboxPolicyStatusRequest, GetSandboxPolicyStatusResponse, ListSandboxPoliciesRequest, PolicyStatus, UpdateConfigRequest,
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::args::Format;
use crate::args::policy::{CheckArgs, GetArgs, ListArgs, PolicyCommand, SetArgs};
use crate::context::Context;
use crate::error::{CliError, Exit};
use crate::progress::Progress;
use crate::session::{Session, call, empty_answer, force};
use crate::{limits, output, policy_file};

/// `policy …`.
pub(super) async fn run(context: &Context, command: PolicyCommand) -> Result<u8, CliError> {
    match command {
        PolicyCommand::Set(args) => set(context, args).await,
        PolicyCommand::Get(args) => get(context, args).await,
        PolicyCommand::List(args) => list(context, args).await,
        PolicyCommand::Check(args) => check(&args),
    }
}

async fn set(context: &Context, args: SetArgs) -> Result<u8, CliError> {
    let policy = policy_file::read(&args.policy)?;
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let request = UpdateConfigRequest {
        sandbox: name.clone(),
        policy: Some(policy_file::to_wire(&policy)),
        workspace_scope: session.scope(),
        ..UpdateConfigRequest::default()
    };
    let updated = session.client.clone().update_config(force(args.force, call(request))).await;
    let refused = |s: &tonic::Status| CliError::from_status(format!("The policy of sandbox {name} was not changed."), s);
    let version = updated.map_err(|s| refused(&s))?.into_inner().version;
    if !args.wait {
        output::line(format!("Policy revision {version} of sandbox {name} is set"))?;
        return Ok(0);
    }
    let progress = Progress::start(format!("Waiting until {name} enforces policy revision {version}"));
    loaded(&session, &name, version, Duration::from_secs(args.timeout.into())).await?;
    drop(progress);
    output::line(format!("Policy revision {version} of sandbox {name} is enforced"))?;
    Ok(0)
}

/// Until a revision is enforced.
async fn loaded(session: &Session, name: &str, version: u32, timeout: Duration) -> Result<(), CliError> {
    let deadline = Instant::now() + timeout;
    loop {
        let status = revision(session, name, version).await?;
        let revision = status.revision.unwrap_or_default();
        let rejected = |why: &str| {
            CliError::new("policy-rejected", format!("Sandbox {name} does not enforce policy revision {version}."))
                .because(why)
                .next(format!("Revision {} stays in force. `openshell policy list {name}` shows all of them.", status.active_version))
        };
        match revision.status() {
            PolicyStatus::Loaded => return Ok(()),
            PolicyStatus::Failed => return Err(rejected(&revision.load_error)),
            // Enforced and replaced between two looks is enforced; a newer one that overtook is not.
            PolicyStatus::Superseded if status.active_version > version => {
                return Err(rejected("a newer revision was set in the meantime"));
            }
            _ if status.active_version == version => return Ok(()),
            _ => {}
        }
        if Instant::now() >= deadline {
            return Err(CliError::new(
                "timeout",
                format!("Sandbox {name} has not acknowledged policy revision {version} after {} s.", timeout.as_secs()),
            )
            .because("the sandbox is stopped, or its supervisor is not connected")
            .next(format!("It takes effect when the sandbox comes back. `openshell sandbox get {name}` shows its state."))
            .exits(Exit::Timeout));
        }
        sleep(limits::POLL).await;
    }
}

async fn revision(session: &Session, name: &str, version: u32) -> Result<GetSandboxPolicyStatusResponse, CliError> {
    let request = GetSandboxPolicyStatusRequest { sandbox: name.to_owned(), version, global: false, workspace_scope: session.scope() };
    let status = session.client.clone().get_sandbox_policy_status(call(request)).await;
    status
        .map(tonic::Response::into_inner)
        .map_err(|s| CliError::from_status(format!("The policy of sandbox {name} could not be read."), &s))
}

async fn get(context: &Context, args: GetArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let status = revision(&session, &name, args.rev).await?;
    let active = status.active_version;
    let revision = status
        .revision
        .ok_or_else(|| CliError::from_status(format!("The policy of sandbox {name} could not be read."), &empty_answer()))?;
    if args.output.output == Format::Table {
        let mut text = output::policy::details(&name, active, &revision);
        if args.full
            && let Some(policy) = &revision.policy
        {
            text.push('\n');
            text.push_str(&policy_file::yaml(policy)?);
        }
        output::line(text.trim_end())?;
        return Ok(0);
    }
    let value = output::policy::value(&name, active, &revision)?;
    output::print(args.output.output, || value, String::new)?;
    Ok(0)
}

async fn list(context: &Context, args: ListArgs) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let mut revisions = Vec::new();
    let mut token = String::new();
    while revisions.len() < args.limit as usize {
        let request = ListSandboxPoliciesRequest {
            sandbox: name.clone(),
            page_size: limits::PAGE,
            page_token: token.clone(),
            global: false,
            workspace_scope: session.scope(),
        };
        let page = session.client.clone().list_sandbox_policies(call(request)).await;
        let page =
            page.map_err(|s| CliError::from_status(format!("The policies of sandbox {name} could not be listed."), &s))?.into_inner();
        revisions.extend(page.revisions);
        if page.next_page_token.is_empty() || page.next_page_token == token {
            break;
        }
        token = page.next_page_token;
    }
    revisions.truncate(args.limit as usize);
    let values: Vec<Value> = revisions.iter().map(|r| output::policy::value(&name, 0, r)).collect::<Result<_, _>>()?;
    let without_active = |mut value: Value| {
        if let Some(map) = value.as_object_mut() {
            map.remove("active_version");
        }
        value
    };
    output::print(args.output.output, || values.into_iter().map(without_active).collect(), || output::policy::table(&revisions))?;
    Ok(0)
}

fn check(args: &CheckArgs) -> Result<u8, CliError> {
    let policy = policy_file::read(&args.file)?;
    openshell_policy::Engine::compile(&policy)
        .map_err(|e| CliError::new("policy-compile", "The policy could not be compiled.").because(e))?;
    output::line(format!("{} is a valid policy ({})", args.file.display(), policy.hash()))?;
    Ok(0)
}
