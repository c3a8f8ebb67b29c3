//! A gateway in a cluster: the Kubernetes API is its store, the operator runs the sandboxes.
//!
//! Its certificate and the key of its tokens come in mounted Secrets that the operator makes and renews; a
//! change of them rolls the pod. Logs are kept in a database on a volume of its own.

mod attest;
mod places;

use std::path::Path;
use std::sync::Arc;

use openshell_operator::api::KubeSecrets;

pub use attest::{AUDIENCE, PodAttest};
use places::Places;

use crate::api::Placement;
use crate::auth::{Hosts, Rules};
use crate::pki::{Leaf, SERVER_NAMES, SandboxTokens};
use crate::running::{Parts, Running, listen};
use crate::serve::tls_config;
use crate::session::{Exchange, LogStore};
use crate::settings::ClusterConfig;
use crate::start::StartError;

/// Starts gateways in clusters.
pub struct ClusterGateway;

impl ClusterGateway {
    /// Starts a gateway: when this returns, it serves.
    pub async fn start(config: ClusterConfig) -> Result<Running, StartError> {
        let rules = Rules::read(openshell_proto::DESCRIPTORS)?;
        let client = kube::Client::try_default().await.map_err(|error| StartError::Cluster(error.to_string()))?;
        let tls = read_tls(&config.tls)?;
        let tokens = Arc::new(SandboxTokens::read(&config.jwt.join("signing.pem"), &config.name)?);
        let logs = LogStore::at(&config.data.join("logs.db")).await.map_err(|error| StartError::Store(error.to_string()))?;
        let places = Places::new(client.clone(), &config.namespace, format!("{}-gateway", config.name)).follow().await?;
        let listener = listen(config.bind).await?;
        let health = match config.health {
            Some(address) => Some(listen(address).await?),
            None => None,
        };
        let service = format!("{}-gateway.{}.svc", config.name, config.namespace);
        let own = [format!("{}-gateway", config.name), service.clone(), format!("{service}.cluster.local"), config.bind.ip().to_string()];
        let names = SERVER_NAMES.iter().map(|&name| name.to_owned()).chain(own).chain(config.server_names.clone());
        let endpoint = format!("https://{service}:{}", config.bind.port());
        let running = Parts {
            rules,
            secrets: Arc::new(KubeSecrets::new(client.clone())),
            logs,
            placement: Placement::Operator,
            exchange: Some(Exchange {
                tokens: tokens.clone(),
                attest: Arc::new(PodAttest::new(client.clone(), &config.sandbox_namespace)),
            }),
            tokens,
            hosts: Hosts::new(names),
            client,
            namespace: config.sandbox_namespace,
            gateway_name: config.name,
            gateway_namespace: config.namespace,
            listener,
            tls: Some(tls),
            health,
            objects: None,
            places: Some(places),
        }
        .start(endpoint)?;
        tracing::info!(endpoint = running.endpoint(), "serving");
        Ok(running)
    }
}

/// The certificate and its authority, as a Secret of the type `kubernetes.io/tls` holds them.
fn read_tls(directory: &Path) -> Result<Arc<rustls::ServerConfig>, StartError> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read_to_string(&path).map_err(|error| StartError::Mounted { path, reason: error.to_string() })
    };
    let leaf = Leaf { certificate: read("tls.crt")?, key: read("tls.key")? };
    Ok(Arc::new(tls_config(&read("ca.crt")?, &leaf)?))
}
