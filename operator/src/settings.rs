//! The operator's flags and environment.

use std::net::SocketAddr;

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// Runs the controllers of a cluster: sandboxes become pods under policy.
#[derive(Clone, Debug, Parser)]
#[command(name = "openshell-operator", version, about)]
pub(crate) struct Settings {
    /// Name of the OpenShellGateway whose sandboxes these are.
    #[arg(long, env = "OPENSHELL_GATEWAY", default_value = "default", value_name = "NAME")]
    pub(crate) gateway: String,
    /// Namespace of that gateway and of the operator's lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "openshell", value_name = "NAMESPACE")]
    pub(crate) gateway_namespace: String,
    /// Namespace of the sandboxes, their policies and providers [default: that of the gateway].
    #[arg(long, env = "OPENSHELL_SANDBOX_NAMESPACE", value_name = "NAMESPACE")]
    sandbox_namespace: Option<String>,
    /// Image of the supervisor where the gateway's sandboxDefaults name none.
    #[arg(long, env = "OPENSHELL_SUPERVISOR_IMAGE", value_name = "IMAGE")]
    pub(crate) supervisor_image: Option<String>,
    /// Image of the gateway where the object names none. Absent: the gateway is not deployed by this operator.
    #[arg(long, env = "OPENSHELL_GATEWAY_IMAGE", value_name = "IMAGE")]
    pub(crate) gateway_image: Option<String>,
    /// Where /healthz and /readyz are served.
    #[arg(long, env = "OPENSHELL_HEALTH_ADDRESS", default_value = "0.0.0.0:8081", value_name = "ADDRESS")]
    pub(crate) health: SocketAddr,
    /// What is logged: a level, or a filter such as `info,kube=debug`.
    #[arg(long, env = "OPENSHELL_LOG", default_value = "info", value_name = "FILTER", value_parser = filter)]
    pub(crate) log: Filter,
    /// Who this process is among operators of the same gateway [default: a new name].
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    identity: Option<String>,
}

/// A filter that was understood.
#[derive(Clone, Debug)]
pub(crate) struct Filter(String);

impl From<Filter> for EnvFilter {
    fn from(filter: Filter) -> Self {
        Self::new(filter.0)
    }
}

fn filter(text: &str) -> Result<Filter, String> {
    EnvFilter::try_new(text).map(|_| Filter(text.to_owned())).map_err(|error| error.to_string())
}

impl Settings {
    /// Namespace of the sandboxes.
    pub(crate) fn sandbox_namespace(&self) -> String {
        self.sandbox_namespace.clone().filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| self.gateway_namespace.clone())
    }

    /// Name of the lease: one operator works for a gateway.
    pub(crate) fn lease(&self) -> String {
        format!("openshell-operator-{}", self.gateway)
    }

    /// Another one for every process, a container that was started again in its pod included.
    pub(crate) fn identity(&self) -> String {
        format!("{}_{}", self.identity.as_deref().unwrap_or("openshell-operator"), uuid::Uuid::new_v4())
    }
}
