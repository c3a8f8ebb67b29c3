//! `sandbox create`: from a command line to a running agent, its output and its exit code.
//!
//! ```text
//!  policy checked here ─▶ CreateSandbox ─▶ watch until Ready ─┬─ command: attach to the main process
//!                              │                              ├─ terminal, no command: a shell
//!                              └── from here on, --no-keep    └─ else: say its name
//!                                  deletes on every way out
//! ```

use std::path::Path;

use openshell_proto::v1::{
    CreateSandboxRequest, DeleteSandboxRequest, ExecSandboxRequest, GpuResourceRequirements, ResourceRequirements, Sandbox, SandboxSpec,
    SandboxTemplate,
};
use openshell_proto::value::object_to_wire;
use serde_json::{Map, Value};

use crate::args::Format;
use crate::args::sandbox::{CreateArgs, TtyChoice};
use crate::args::value::KeyValue;
use crate::attach::{self, Ended};
use crate::context::Context;
use crate::error::CliError;
use crate::progress::Progress;
use crate::session::{Session, call, empty_answer};
use crate::signals::Signals;
use crate::wait::{self, Goal, Patience};
use crate::{limits, output, policy_file, terminal};

/// What follows once the sandbox is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    /// Show the main process.
    Attach,
    /// Open a shell.
    Shell,
    /// Nothing: the sandbox goes on by itself.
    Leave,
}

/// `sandbox create`.
pub(super) async fn create(context: &Context, mut args: CreateArgs) -> Result<u8, CliError> {
    let shell = args.command.is_empty() && terminal::interactive() && args.output == Format::Table;
    let then = match (args.detach, args.command.is_empty()) {
        (false, false) => Then::Attach,
        (false, true) if shell => Then::Shell,
        _ => Then::Leave,
    };
    if args.no_keep && then == Then::Leave {
        return Err(CliError::usage("There is nothing to run in a sandbox that is not kept.")
            .because("--no-keep deletes it after its command, and without a terminal there is no shell to open")
            .next("Give a command after `--`, or leave out --no-keep."));
    }
    if args.output != Format::Table && then == Then::Attach {
        return Err(CliError::usage("-o would mix with the output of the command.").next("Use it with --detach."));
    }
    let policy = match args.policy.as_ref().or(context.environment.sandbox_policy.as_ref()) {
        Some(file) => Some(policy_file::read(file)?),
        None => None,
    };
    let template = template(&mut args, context.environment.community_registry.as_deref())?;
    let tty = match args.tty.choice() {
        TtyChoice::Always => !args.command.is_empty(),
        TtyChoice::Never => false,
        TtyChoice::Auto => then == Then::Attach && terminal::interactive(),
    };
    let mut signals = Signals::take()?;
    let session = Session::open(context).await?;
    let request = CreateSandboxRequest {
        name: args.name.clone().unwrap_or_default(),
        labels: args.labels.into_iter().map(|KeyValue { key, value }| (key, value)).collect(),
        await_main_process_attachment: then == Then::Attach,
        workspace_scope: session.scope(),
        spec: Some(SandboxSpec {
            environment: args.env.into_iter().map(|KeyValue { key, value }| (key, value)).collect(),
            template,
            resource_requirements: args.gpu.map(|count| ResourceRequirements { gpu: Some(GpuResourceRequirements { count: Some(count) }) }),
            policy: policy.as_ref().map(policy_file::to_wire),
            providers: args.providers,
            command: args.command,
            tty,
            ..SandboxSpec::default()
        }),
        ..CreateSandboxRequest::default()
    };
    let progress = Progress::start("Creating the sandbox".to_owned());
    let created = session.client.clone().create_sandbox(call(request)).await;
    let failed = |s: &tonic::Status| match &args.name {
        Some(name) => CliError::from_status(format!("Sandbox {name} could not be created."), s),
        None => CliError::from_status("The sandbox could not be created.", s),
    };
    let sandbox = created.map_err(|s| failed(&s))?.into_inner().sandbox.ok_or_else(|| failed(&empty_answer()))?;
    let name = sandbox.metadata.map(|m| m.name).unwrap_or_default();
    session.remember(&name);

    let outcome = use_it(context, &session, &name, then, tty, args.output, progress, &mut signals).await;
    if !args.no_keep {
        if let (Ok(ended), Then::Attach | Then::Shell) = (&outcome, then) {
            attach::note_detached(*ended, &name);
        }
        return outcome.map(Ended::code);
    }
    let deleted = delete(&session, &name, &mut signals).await;
    match (outcome, deleted) {
        (Ok(ended), Ok(())) => Ok(ended.code()),
        (Ok(_), Err(error)) => Err(error),
        (Err(error), deleted) => {
            if let Err(second) = deleted {
                second.render();
            }
            Err(error)
        }
    }
}

/// What the sandbox is made of, if anything is said about it.
fn template(args: &mut CreateArgs, registry: Option<&str>) -> Result<Option<SandboxTemplate>, CliError> {
    let image = args.from.take().map(|from| image(from, registry)).transpose()?.unwrap_or_default();
    // The documented `K` is written `k` in Kubernetes, alone of its kind.
    let memory = args.memory.take().map(|m| m.strip_suffix('K').map(|n| format!("{n}k")).unwrap_or(m));
    let amounts = [("cpu", args.cpu.take()), ("memory", memory)];
    let limits: Map<String, Value> = amounts.into_iter().filter_map(|(name, amount)| Some((name.to_owned(), amount?.into()))).collect();
    let resources = (!limits.is_empty()).then(|| object_to_wire(Map::from_iter([("limits".to_owned(), limits.into())])));
    let driver_config = args.driver_config_json.take().map(object_to_wire);
    let template = SandboxTemplate { image, resources, driver_config, ..SandboxTemplate::default() };
    Ok((template != SandboxTemplate::default()).then_some(template))
}

/// The image that `--from` means. Images are not built here; and a bare name is no image of whatever
/// registry a node asks first.
fn image(from: String, registry: Option<&str>) -> Result<String, CliError> {
    let path = Path::new(&from);
    if from.starts_with(['.', '/', '~']) || path.join("Dockerfile").exists() {
        return Err(CliError::usage(format!("No image is built from {from}."))
            .because("this version runs images that are there, and builds none")
            .next("Build and push the image, and give its name."));
    }
    if from.contains(['/', ':', '.']) {
        return Ok(from);
    }
    match registry {
        Some(registry) => Ok(format!("{}/{from}:latest", registry.trim_end_matches('/'))),
        None => Err(CliError::usage(format!("`{from}` is no image reference."))
            .because("a name without `/`, `:` and `.` is that of a sandbox in OPENSHELL_COMMUNITY_REGISTRY, which is not set")
            .next(format!("Write the whole reference, at least `{from}:latest`."))),
    }
}

/// Everything between creation and end.
#[allow(clippy::too_many_arguments)] // One call site; a struct would name each of them twice.
async fn use_it(
    context: &Context,
    session: &Session,
    name: &str,
    then: Then,
    tty: bool,
    format: Format,
    progress: Progress,
    signals: &mut Signals,
) -> Result<Ended, CliError> {
    progress.say(&format!("{name}: Provisioning"));
    let patience = Patience::Idle(context.environment.provision_timeout);
    let ready = tokio::select! {
        ready = wait::wait(session, name, Goal::Ready, patience, &progress) => ready?,
        number = signals.next() => return Ok(Ended::Signal(number)),
    };
    drop(progress);
    match then {
        Then::Leave => {
            announce(format, &ready, name)?;
            Ok(Ended::Exit(0))
        }
        Then::Attach => {
            output::note(&format!("Created sandbox: {name}"));
            let start =
                ExecSandboxRequest { sandbox: name.to_owned(), tty, workspace_scope: session.scope(), ..ExecSandboxRequest::default() };
            attach::run(session, start, signals).await
        }
        Then::Shell => {
            output::note(&format!("Created sandbox: {name}"));
            super::exec::shell(context, session, name, signals).await
        }
    }
}

fn announce(format: Format, sandbox: &Sandbox, name: &str) -> Result<(), CliError> {
    output::print(format, || Value::Object(output::sandbox::value(sandbox)), || format!("Created sandbox: {name}"))
}

/// Deletes a sandbox that is not to be kept; a second signal or too much time ends the attempt.
async fn delete(session: &Session, name: &str, signals: &mut Signals) -> Result<(), CliError> {
    let request = DeleteSandboxRequest {
        name: name.to_owned(),
        workspace_scope: session.scope(),
        allow_missing: true,
        ..DeleteSandboxRequest::default()
    };
    let mut client = session.client.clone();
    let left = |why: &str| {
        CliError::new("not-deleted", format!("Sandbox {name} could not be deleted."))
            .because(why)
            .next(format!("Delete it yourself: `openshell sandbox delete {name}`."))
    };
    let deleted = tokio::select! {
        deleted = client.delete_sandbox(call(request)) => deleted,
        number = signals.next() => return Err(left(&format!("signal {number} came first"))),
        () = tokio::time::sleep(limits::CLEANUP) => return Err(left("the gateway does not answer")),
    };
    deleted.map_err(|s| left(s.message()))?;
    session.forget(name);
    output::note(&format!("Deleted sandbox {name}"));
    Ok(())
}

#[cfg(test)]
mod tests;
