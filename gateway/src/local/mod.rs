//! A gateway on one machine, without a configuration file.
//!
//! Order of a start, so that nothing is half-written when it fails: rules, directories, lock,
//! listener, keys, store, controllers, registration, readiness. Whatever fails gives one
//! [`StartError`].

mod bootstrap;

use std::sync::Arc;

use futures::FutureExt as _;
use openshell_crds::OpenShellGateway;
use openshell_operator::LOCAL_NAMESPACE;
use openshell_operator::api::LocalApi;
use openshell_operator::controllers::{self, ControllerConfig, Setting};
use openshell_operator::driver::process::{ProcessDriver, ProcessDriverConfig};
use openshell_operator::driver::{ComputeDriver, Registry};
use openshell_operator::metrics::Metrics;

pub use crate::running::Running;

use crate::api::Placement;
use crate::auth::{Hosts, Rules};
use crate::http;
use crate::pki::{Pki, Registration, SERVER_NAMES, SandboxTokens, endpoint, register};
use crate::running::{Parts, listen};
use crate::serve::{Transport, tls_config};
use crate::session::LogStore;
use crate::settings::LocalConfig;
use crate::start::StartError;
use crate::state::Lock;

/// Name of the `OpenShellGateway` object.
const OBJECT_NAME: &str = "local";

/// Starts gateways.
pub struct LocalGateway;

impl LocalGateway {
    /// Starts a gateway: when this returns, it serves and is registered.
    pub async fn start(config: LocalConfig) -> Result<Running, StartError> {
        let rules = Rules::read(openshell_proto::DESCRIPTORS)?;
        config.directories.prepare()?;
        let lock = Lock::take(&config.directories)?;
        let listener = listen(config.bind).await?;
        let address = listener.local_addr().map_err(|e| StartError::Failed(e.to_string()))?;
        let health = match config.health {
            Some(health) => Some(listen(health).await?),
            None => None,
        };
        let pki = Pki::open(config.directories.tls(), &config.server_names)?;
        let (scheme, tls) = match config.transport {
            Transport::Tls => ("https", Some(Arc::new(tls_config(&pki.ca_pem, &pki.server)?))),
            Transport::Plaintext => ("http", None),
        };
        let Pki { ca_pem, client: certificate, tokens, .. } = pki;
        let tokens = Arc::new(tokens);
        let endpoint = endpoint(address, scheme);
        let driver = driver(&config, &tokens, &endpoint, &ca_pem)?;
        let store = open_store(&config).await?;
        let logs = LogStore::open(store.pool()).await.map_err(|e| StartError::Store(e.to_string()))?;
        let client = store.client();
        keep_gateway_object(&client).await?;

        let names = SERVER_NAMES.iter().map(|&n| n.to_owned()).chain(config.server_names.clone()).chain([config.bind.ip().to_string()]);
        let mut running = Parts {
            rules,
            secrets: store.secrets(),
            logs,
            placement: Placement::Here(driver.clone()),
            tokens,
            exchange: None,
            hosts: Hosts::new(names),
            client: client.clone(),
            namespace: LOCAL_NAMESPACE.to_owned(),
            gateway_name: OBJECT_NAME.to_owned(),
            gateway_namespace: LOCAL_NAMESPACE.to_owned(),
            listener,
            tls,
            health,
            objects: Some(http::routes(&store.service())),
            places: None,
        }
        .start(endpoint.clone())?;
        running.store = Some((store, lock));
        let controllers = ControllerConfig {
            client,
            driver,
            gateway_name: OBJECT_NAME.to_owned(),
            gateway_namespace: LOCAL_NAMESPACE.to_owned(),
            namespace: LOCAL_NAMESPACE.to_owned(),
            setting: Setting::Local { endpoint: Some(endpoint) },
            metrics: Metrics::default(),
        };
        running.beside(|end| controllers::run(controllers, end).boxed());
        let registration = match config.transport {
            Transport::Tls => Registration::Mtls { ca_pem: &ca_pem, client: &certificate },
            Transport::Plaintext => {
                tracing::warn!("TLS is off: everybody on this machine may do everything with this gateway");
                Registration::Plaintext
            }
        };
        if let Err(error) = register(config.directories.config(), address, &registration) {
            running.stop().await;
            return Err(error.into());
        }
        tracing::info!(endpoint = running.endpoint(), "serving");
        Ok(running)
    }
}

/// The driver that was asked for, or the one that is found.
fn driver(config: &LocalConfig, tokens: &Arc<SandboxTokens>, endpoint: &str, ca_pem: &str) -> Result<Arc<dyn ComputeDriver>, StartError> {
    let bootstrap = bootstrap::Bootstrap { tokens: tokens.clone(), endpoint: endpoint.to_owned(), ca_pem: ca_pem.to_owned() };
    let process = ProcessDriverConfig::new(
        config.directories.sandboxes(),
        config.supervisor.clone(),
        config.directories.protected(),
        Arc::new(bootstrap),
    );
    let mut registry = Registry::new();
    registry.register(Arc::new(ProcessDriver::new(process).map_err(|e| StartError::Driver(e.to_string()))?));
    let found = match &config.driver {
        Some(name) => registry.get(name),
        None => registry.detect(),
    };
    found.map_err(|e| StartError::Driver(e.to_string()))
}

async fn open_store(config: &LocalConfig) -> Result<LocalApi, StartError> {
    let directory = config.directories.gateway();
    LocalApi::open(&directory.join("openshell.db"), &directory.join("seal.key")).await.map_err(|e| StartError::Store(e.to_string()))
}

/// The object that holds this gateway's defaults, made on first start. A user may change it.
async fn keep_gateway_object(client: &kube::Client) -> Result<(), StartError> {
    let api = kube::Api::<OpenShellGateway>::namespaced(client.clone(), LOCAL_NAMESPACE);
    let object = OpenShellGateway::new(OBJECT_NAME, openshell_crds::OpenShellGatewaySpec::default());
    match api.create(&kube::api::PostParams::default(), &object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(StartError::Store(error.to_string())),
    }
}
