//! `sandbox exec` and `sandbox connect`.

use std::collections::HashMap;

use openshell_proto::v1::ExecSandboxRequest;

use crate::args::sandbox::{ConnectArgs, ExecArgs, TtyChoice};
use crate::args::value::KeyValue;
use crate::attach::{self, Ended};
use crate::context::Context;
use crate::error::CliError;
use crate::session::Session;
use crate::signals::Signals;
use crate::terminal;

/// Without a better idea of what the agent's terminal can do.
const TERM: &str = "xterm-256color";

/// The agent's own shell if it names one, bash where there is one, sh otherwise.
const LOGIN_SHELL: &str = r#"if [ -n "$SHELL" ] && [ -x "$SHELL" ]; then exec "$SHELL" -l; elif [ -x /bin/bash ]; then exec /bin/bash -l; else exec /bin/sh -l; fi"#;

/// `sandbox exec`.
pub(super) async fn exec(context: &Context, args: ExecArgs) -> Result<u8, CliError> {
    let mut signals = Signals::take()?;
    let session = Session::open(context).await?;
    let sandbox = session.sandbox_name(args.name.as_deref())?;
    let tty = match args.tty.choice() {
        TtyChoice::Auto => terminal::interactive(),
        TtyChoice::Always => true,
        TtyChoice::Never => false,
    };
    let environment = args.env.into_iter().map(|KeyValue { key, value }| (key, value)).collect();
    let start = ExecSandboxRequest {
        sandbox,
        command: args.command,
        workdir: args.workdir.unwrap_or_default(),
        environment: with_term(context, environment, tty),
        tty,
        workspace_scope: session.scope(),
        execution_timeout: (args.timeout > 0).then(|| prost_types::Duration { seconds: args.timeout.into(), nanos: 0 }),
        ..ExecSandboxRequest::default()
    };
    attach::run(&session, start, &mut signals).await.map(Ended::code)
}

/// `sandbox connect`.
pub(super) async fn connect(context: &Context, args: ConnectArgs) -> Result<u8, CliError> {
    let mut signals = Signals::take()?;
    let session = Session::open(context).await?;
    let name = session.sandbox_name(args.name.as_deref())?;
    let sandbox = session.sandbox(&name).await?;
    let running = sandbox.status.as_ref().is_some_and(|s| s.exit_code.is_none());
    let main = sandbox.spec.as_ref().is_some_and(|s| s.tty && !s.command.is_empty()) && running;
    let ended = if main {
        let start =
            ExecSandboxRequest { sandbox: name.clone(), tty: true, workspace_scope: session.scope(), ..ExecSandboxRequest::default() };
        let ended = attach::run(&session, start, &mut signals).await?;
        attach::note_detached(ended, &name);
        ended
    } else {
        shell(context, &session, &name, &mut signals).await?
    };
    Ok(ended.code())
}

/// A login shell in a sandbox; without a terminal here it reads commands from standard input.
pub(super) async fn shell(context: &Context, session: &Session, name: &str, signals: &mut Signals) -> Result<Ended, CliError> {
    let tty = terminal::interactive();
    let start = ExecSandboxRequest {
        sandbox: name.to_owned(),
        command: ["/bin/sh", "-c", LOGIN_SHELL].map(str::to_owned).to_vec(),
        environment: with_term(context, HashMap::new(), tty),
        tty,
        workspace_scope: session.scope(),
        ..ExecSandboxRequest::default()
    };
    attach::run(session, start, signals).await
}

fn with_term(context: &Context, mut environment: HashMap<String, String>, tty: bool) -> HashMap<String, String> {
    if tty {
        environment.entry("TERM".to_owned()).or_insert_with(|| context.environment.term.clone().unwrap_or_else(|| TERM.to_owned()));
    }
    environment
}
