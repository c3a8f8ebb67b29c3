//! `openshell-operator`: the controllers of a cluster.
#![forbid(unsafe_code)]

mod settings;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use kube::{Api, Client};
use openshell_operator::controllers::{self, ControllerConfig, DeploymentConfig, Setting};
use openshell_operator::driver::kubernetes::{Gateway, KubernetesDriver, KubernetesDriverConfig};
use openshell_operator::health::Health;
use openshell_operator::lease::{Candidate, Times};
use openshell_operator::metrics::Metrics;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    let settings = Settings::parse();
    let _ = tracing_subscriber::fmt().with_env_filter(settings.log.clone()).with_writer(std::io::stderr).with_ansi(false).try_init();
    match run(settings).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Waits for the lease, works while it is held, and gives it back.
async fn run(settings: Settings) -> anyhow::Result<()> {
    let client = Client::try_default().await.context("no Kubernetes API: set KUBECONFIG, or run in a pod with a service account")?;
    let health = Health::default();
    let shutdown = CancellationToken::new();
    stop_on_signals(shutdown.clone())?;
    let metrics = Metrics::default();
    health
        .serve(settings.health, metrics.clone(), shutdown.clone())
        .await
        .with_context(|| format!("health checks on {}", settings.health))?;

    let candidate = Candidate {
        leases: Api::namespaced(client.clone(), &settings.gateway_namespace),
        name: settings.lease(),
        identity: settings.identity(),
        times: Times::default(),
    };
    if !candidate.acquire(&shutdown, || health.ready()).await {
        return Ok(());
    }
    metrics.leads();
    let working = shutdown.child_token();
    let mut work = tokio::spawn(controllers::run(config(&settings, client, metrics, &working), working.clone()));
    let lost = tokio::select! {
        () = candidate.keep(&shutdown) => !shutdown.is_cancelled(),
        ended = &mut work => {
            candidate.release().await;
            return ended.context("the controllers")?.context("the controllers");
        }
    };
    if lost {
        // Another one may work from now on: nothing more may be written.
        anyhow::bail!("the lease was lost; the process is to be started again");
    }
    work.await.context("the controllers")??;
    candidate.release().await;
    Ok(())
}

fn config(settings: &Settings, client: Client, metrics: Metrics, shutdown: &CancellationToken) -> ControllerConfig {
    let gateway = Gateway { name: settings.gateway.clone(), namespace: settings.gateway_namespace.clone() };
    let driver = KubernetesDriverConfig {
        client: client.clone(),
        namespace: settings.sandbox_namespace(),
        gateway,
        supervisor_image: settings.supervisor_image.clone(),
    };
    ControllerConfig {
        client,
        driver: Arc::new(KubernetesDriver::start(driver, shutdown)),
        gateway_name: settings.gateway.clone(),
        gateway_namespace: settings.gateway_namespace.clone(),
        namespace: settings.sandbox_namespace(),
        metrics,
        setting: Setting::Cluster { deployment: settings.gateway_image.clone().map(|image| DeploymentConfig { image }) },
    }
}

fn stop_on_signals(shutdown: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("ending");
        shutdown.cancel();
    });
    Ok(())
}
