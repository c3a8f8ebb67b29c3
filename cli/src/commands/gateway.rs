//! `gateway start`, `stop`, `info`, `list`, `select`.

use openshell_proto::v1::{GetGatewayInfoRequest, ServiceStatus};
use serde_json::{Value, json};

use crate::args::Format;
use crate::args::gateway::{GatewayCommand, SelectArgs, StartArgs};
use crate::context::Context;
use crate::error::CliError;
use crate::local::{self, Files, Options, Why};
use crate::output;
use crate::output::table::{Details, Table};
use crate::progress::Progress;
use crate::session::{Session, call};

/// `gateway …`.
pub(super) async fn run(context: &Context, command: GatewayCommand) -> Result<u8, CliError> {
    match command {
        GatewayCommand::Start(args) => start(context, args).await,
        GatewayCommand::Stop => stop(context).await,
        GatewayCommand::Info(args) => info(context, args.output).await,
        GatewayCommand::List(args) => list(context, args.output),
        GatewayCommand::Select(args) => select(context, &args),
    }
}

async fn start(context: &Context, args: StartArgs) -> Result<u8, CliError> {
    let progress = Progress::start("Starting the gateway".to_owned());
    let started = local::start(context, &Options { port: args.port, driver: args.driver }, Why::Asked).await?;
    drop(progress);
    let endpoint = &started.gateway.endpoint;
    match started.pid {
        Some(pid) => output::line(format!("Gateway {} is ready at {endpoint} (process {pid})", started.gateway.display_name()))?,
        None => output::line(format!("Gateway {} is running already at {endpoint}", started.gateway.display_name()))?,
    }
    Ok(0)
}

async fn stop(context: &Context) -> Result<u8, CliError> {
    let progress = Progress::start("Stopping the gateway".to_owned());
    let stopped = local::stop(&Files::new(context)?).await?;
    drop(progress);
    match stopped {
        Some(pid) => output::line(format!("Stopped the gateway (process {pid})"))?,
        None => output::line("The gateway of this machine is not running")?,
    }
    Ok(0)
}

async fn info(context: &Context, format: Format) -> Result<u8, CliError> {
    let session = Session::open(context).await?;
    let response = session.client.clone().get_gateway_info(call(GetGatewayInfoRequest {})).await;
    let info = response.map_err(|s| CliError::from_status("The gateway does not describe itself.", &s))?.into_inner();
    let status = health_word(info.status());
    let drivers: Vec<(String, String, String)> = info
        .compute_drivers
        .iter()
        .map(|d| {
            let capabilities = d.capabilities.clone().unwrap_or_default();
            (d.name.clone(), capabilities.driver_name, capabilities.driver_version)
        })
        .collect();
    let value = || {
        let drivers: Vec<Value> = drivers
            .iter()
            .map(|(name, driver, version)| json!({ "name": name, "capabilities": { "driver_name": driver, "driver_version": version } }))
            .collect();
        json!({
            "gateway": session.gateway.display_name(),
            "server": session.gateway.endpoint,
            "auth": session.gateway.auth(),
            "status": status,
            "version": info.gateway_version,
            "compute_drivers": drivers,
        })
    };
    output::print(format, value, || {
        let mut details = Details::default();
        details.add("Gateway", session.gateway.display_name());
        details.add("Server", session.gateway.endpoint.as_str());
        details.add("Auth", session.gateway.auth());
        details.add("Status", status);
        details.add("Version", info.gateway_version.as_str());
        details.add(
            "Drivers",
            drivers.iter().map(|(name, _, version)| format!("{name} {version}").trim_end().to_owned()).collect::<Vec<_>>().join(", "),
        );
        if session.gateway.name.as_deref() == Some(crate::config::LOCAL) {
            details.add("Registered in", context.config.user_dir().join("gateways").join(crate::config::LOCAL).display().to_string());
            if let Ok(files) = Files::new(context) {
                details.add("State", files.directory().display().to_string());
                details.add("Log", files.log().display().to_string());
            }
        }
        details.render()
    })?;
    Ok(0)
}

/// The health of a gateway in a word.
pub(super) fn health_word(status: ServiceStatus) -> &'static str {
    match status {
        ServiceStatus::Unspecified => "unknown",
        ServiceStatus::Healthy => "healthy",
        ServiceStatus::Degraded => "degraded",
        ServiceStatus::Unhealthy => "unhealthy",
    }
}

fn list(context: &Context, format: Format) -> Result<u8, CliError> {
    let gateways = context.config.gateways()?;
    let active = context.config.active()?;
    let value = |g: &crate::config::Registered| {
        json!({
            "name": g.name,
            "endpoint": g.metadata.gateway_endpoint,
            "type": g.kind(),
            "source": g.source.word(),
            "auth": g.auth(),
            "active": active.as_deref() == Some(&g.name),
            "is_remote": g.metadata.is_remote,
            "remote_host": g.metadata.remote_host,
            "resolved_host": g.metadata.resolved_host,
        })
    };
    output::print(
        format,
        || gateways.iter().map(value).collect(),
        || {
            if gateways.is_empty() {
                return "No gateways are registered. `openshell gateway start` starts one on this machine.".to_owned();
            }
            let mut table = Table::new(["active", "name", "endpoint", "type", "source", "auth"]);
            for g in &gateways {
                let mark = if active.as_deref() == Some(&g.name) { "*" } else { "" };
                table.row([mark, &g.name, &g.metadata.gateway_endpoint, g.kind(), g.source.word(), g.auth()]);
            }
            table.render()
        },
    )?;
    Ok(0)
}

fn select(context: &Context, args: &SelectArgs) -> Result<u8, CliError> {
    if context.config.gateway(&args.name)?.is_none() {
        let known: Vec<String> = context.config.gateways()?.into_iter().map(|g| g.name).collect();
        let next = if known.is_empty() { "None is registered.".to_owned() } else { format!("Registered are: {}.", known.join(", ")) };
        return Err(CliError::new("unknown-gateway", format!("There is no gateway {}.", args.name)).next(next));
    }
    context.config.select(&args.name)?;
    output::line(format!("Gateway {} is active", args.name))?;
    Ok(0)
}
