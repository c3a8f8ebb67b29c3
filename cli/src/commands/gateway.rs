//! `gateway start`, `stop`, `info`, `list`, `add`, `select`, `remove`.

use std::path::PathBuf;

use openshell_proto::v1::open_shell_client::OpenShellClient;
use openshell_proto::v1::{GetGatewayInfoRequest, HealthRequest, ServiceStatus};
use serde_json::{Value, json};

use crate::args::Format;
use crate::args::gateway::{AddArgs, GatewayCommand, SelectArgs, StartArgs};
use crate::config::{Bundle, Cluster, Metadata, Registered};
use crate::context::Context;
use crate::error::CliError;
use crate::gateway::{Gateway, Verify, cluster};
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
        GatewayCommand::Add(args) => add(context, args).await,
        GatewayCommand::Select(args) => select(context, &args),
        GatewayCommand::Remove(args) => remove(context, &args),
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

async fn add(context: &Context, args: AddArgs) -> Result<u8, CliError> {
    let progress = Progress::start("Connecting to the gateway".to_owned());
    let (kubernetes, endpoint, bundle) = if let Some(gateway) = &args.kubernetes {
        let (client, kube_context, own) = cluster::client(args.context.as_deref()).await?;
        let namespace = match args.namespace {
            Some(namespace) => namespace,
            None => cluster::namespace(&client, own, gateway).await?,
        };
        let (cluster, endpoint, bundle) = cluster::find(&client, kube_context, namespace, gateway).await?;
        (Some(cluster), endpoint, bundle)
    } else {
        let read =
            |file: &PathBuf| std::fs::read(file).map_err(|e| CliError::usage(format!("{} cannot be read.", file.display())).because(e));
        let ca = args.ca.as_ref().map(read).transpose()?;
        let identity = args.cert.as_ref().map(read).transpose()?.zip(args.key.as_ref().map(read).transpose()?);
        let endpoint = args.endpoint.unwrap_or_default();
        (None, if endpoint.contains("://") { endpoint } else { format!("https://{endpoint}") }, Bundle { ca, identity })
    };
    let given = args.name.or_else(|| kubernetes.as_ref().map(|cluster| cluster.context.clone())).or_else(|| host(&endpoint));
    let name = register(context, given, &endpoint, kubernetes, &bundle).await?;
    drop(progress);
    context.config.select(&name)?;
    output::line(format!("Gateway {name} at {endpoint} is registered and active"))?;
    Ok(0)
}

/// The gateway of the kubeconfig's current context, for `kubectl openshell`: the one that is registered
/// for it, or the one that is found there and registered now.
pub(crate) async fn of_current_context(context: &Context) -> Result<String, CliError> {
    let (client, kube_context, own) = cluster::client(None).await?;
    let is_its = |known: &Registered| known.metadata.kubernetes.as_ref().is_some_and(|cluster| cluster.context == kube_context);
    if let Some(known) = context.config.gateways()?.into_iter().find(is_its) {
        return Ok(known.name);
    }
    let namespace = cluster::namespace(&client, own, cluster::DEFAULT).await?;
    let (cluster, endpoint, bundle) = cluster::find(&client, kube_context.clone(), namespace, cluster::DEFAULT).await?;
    let name = register(context, Some(kube_context), &endpoint, Some(cluster), &bundle).await?;
    output::note(&format!("Gateway {name} at {endpoint} is registered"));
    Ok(name)
}

/// Registers a gateway, if it answers.
async fn register(
    context: &Context,
    name: Option<String>,
    endpoint: &str,
    kubernetes: Option<Cluster>,
    bundle: &Bundle,
) -> Result<String, CliError> {
    let name = name.map(|name| name.replace(['/', '@'], "-")).unwrap_or_default();
    if !crate::config::valid_name(&name) {
        return Err(CliError::usage(format!("`{name}` is no name for a gateway.")).next("Give it one with --name."));
    }
    if name == crate::config::LOCAL {
        return Err(CliError::usage(format!("{name} is the gateway of this machine.")).next("Give it another name with --name."));
    }
    let auth = if endpoint.starts_with("http://") { "plaintext" } else { "mtls" };
    let metadata = Metadata {
        name: name.clone(),
        gateway_endpoint: endpoint.to_owned(),
        is_remote: true,
        auth_mode: Some(auth.to_owned()),
        kubernetes,
        ..Metadata::default()
    };
    let before = context.config.gateway(&name)?.map(|known| Ok::<_, CliError>((known.bundle()?, known.metadata))).transpose()?;
    context.config.register(&name, &metadata, bundle)?;
    let answered = async {
        let registered = context.config.gateway(&name)?.ok_or_else(|| CliError::new("unknown-gateway", "The registration is gone."))?;
        let verify = if context.insecure() { Verify::Nothing } else { Verify::Certificate };
        let channel = Gateway::registered(&registered, verify)?.channel().await?;
        let health = OpenShellClient::new(channel).health(call(HealthRequest {})).await;
        health.map_err(|s| CliError::from_status(format!("Gateway {name} at {endpoint} does not answer as one."), &s))
    };
    if let Err(error) = answered.await {
        match before {
            Some((bundle, metadata)) => context.config.register(&name, &metadata, &bundle)?,
            None => context.config.forget_gateway(&name)?,
        }
        return Err(error);
    }
    Ok(name)
}

/// The host of an address.
fn host(endpoint: &str) -> Option<String> {
    endpoint.parse::<http::Uri>().ok()?.host().map(|host| host.trim_matches(['[', ']']).to_owned())
}

fn remove(context: &Context, args: &SelectArgs) -> Result<u8, CliError> {
    known(context, &args.name)?;
    if context.config.active()?.as_deref() == Some(&args.name) {
        return Err(CliError::new("gateway-active", format!("Gateway {} is the active one.", args.name))
            .next("Make another one active first: `openshell gateway select`."));
    }
    context.config.forget_gateway(&args.name)?;
    output::line(format!("Gateway {} is not registered any more", args.name))?;
    Ok(0)
}

fn known(context: &Context, name: &str) -> Result<(), CliError> {
    if context.config.gateway(name)?.is_some() {
        return Ok(());
    }
    let known: Vec<String> = context.config.gateways()?.into_iter().map(|g| g.name).collect();
    let next = if known.is_empty() { "None is registered.".to_owned() } else { format!("Registered are: {}.", known.join(", ")) };
    Err(CliError::new("unknown-gateway", format!("There is no gateway {name}.")).next(next))
}

fn select(context: &Context, args: &SelectArgs) -> Result<u8, CliError> {
    known(context, &args.name)?;
    context.config.select(&args.name)?;
    output::line(format!("Gateway {} is active", args.name))?;
    Ok(0)
}
