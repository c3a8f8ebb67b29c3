//! One file per noun; each function is one command and returns its exit code.

mod create;
mod doctor;
mod exec;
mod gateway;
mod logs;
mod object;
mod policy;
mod provider;
mod sandbox;
mod status;

use clap::CommandFactory as _;

use crate::args::sandbox::SandboxCommand;
use crate::args::{Cli, Command};
use crate::config::Config;
use crate::context::Context;
use crate::error::CliError;

/// As `kubectl openshell`: the gateway is that of the kubeconfig's current context, unless one is named.
pub(crate) async fn as_plugin(context: &mut Context, command: &Command) -> Result<(), CliError> {
    let asks_none = matches!(command, Command::Gateway(_) | Command::Doctor(_) | Command::Completions(_));
    if !asks_none && Config::named(&context.flags, &context.environment).is_none() {
        context.flags.gateway = Some(gateway::of_current_context(context).await?);
    }
    Ok(())
}

/// Runs one command.
pub(crate) async fn dispatch(context: &Context, command: Command) -> Result<u8, CliError> {
    match command {
        Command::Sandbox(command) => match command {
            SandboxCommand::Create(args) => create::create(context, *args).await,
            SandboxCommand::List(args) => sandbox::list(context, args).await,
            SandboxCommand::Get(args) => sandbox::get(context, args).await,
            SandboxCommand::Delete(args) => sandbox::delete(context, args).await,
            SandboxCommand::Stop(args) => sandbox::stop(context, args).await,
            SandboxCommand::Start(args) => sandbox::start(context, args).await,
            SandboxCommand::Exec(args) => exec::exec(context, args).await,
            SandboxCommand::Connect(args) => exec::connect(context, args).await,
            SandboxCommand::Logs(args) => logs::logs(context, args).await,
        },
        Command::Logs(args) => logs::logs(context, args).await,
        Command::Policy(command) => policy::run(context, command).await,
        Command::Provider(command) => provider::run(context, command).await,
        Command::Apply(args) => object::apply(context, args).await,
        Command::Get(args) => object::get(context, args).await,
        Command::Delete(args) => object::delete(context, args).await,
        Command::Gateway(command) => gateway::run(context, command).await,
        Command::Status(args) => status::status(context, args.output).await,
        Command::Doctor(args) => doctor::doctor(context, args.output).await,
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Cli::command(), "openshell", &mut script);
            crate::output::line(String::from_utf8_lossy(&script).trim_end())?;
            Ok(0)
        }
    }
}
