//! A gateway inside a Kubernetes cluster, reached as `kubectl` reaches things: through the API server,
//! with the user's own kubeconfig.
//!
//! No port of this machine is opened. Every connection to the gateway is a forwarded stream to one
//! of its pods, and TLS to the gateway goes on inside it.

use std::collections::BTreeMap;
use std::io;

use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, ResourceExt as _};
use openshell_crds::OpenShellGateway;
use tokio::io::{AsyncRead, AsyncWrite};
use tonic::transport::{Channel, Endpoint};

use crate::config::{Bundle, Cluster};
use crate::error::CliError;
use crate::limits;

/// Bytes both ways.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The API server of a context, by default the current one, with the context's name and namespace.
pub(crate) async fn client(context: Option<&str>) -> Result<(Client, String, String), CliError> {
    let broken = |e: &dyn std::fmt::Display| {
        CliError::new("kubeconfig", "The cluster cannot be used.")
            .because(e)
            .next("Check the kubeconfig: `kubectl config get-contexts`, and KUBECONFIG.")
    };
    let kubeconfig = Kubeconfig::read().map_err(|e| broken(&e))?;
    let name = context.map(str::to_owned).or_else(|| kubeconfig.current_context.clone()).unwrap_or_default();
    let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|e| broken(&e))?;
    config.connect_timeout = Some(limits::CONNECT);
    let namespace = config.default_namespace.clone();
    Ok((Client::try_from(config).map_err(|e| broken(&e))?, name, namespace))
}

/// Name of the gateway that the chart makes.
pub(crate) const DEFAULT: &str = "default";

/// Where a gateway is: in the namespace of the context, or in the only one that has a gateway of that name.
pub(crate) async fn namespace(client: &Client, own: String, name: &str) -> Result<String, CliError> {
    let all: Api<OpenShellGateway> = Api::all(client.clone());
    let Ok(found) = all.list(&ListParams::default().fields(&format!("metadata.name={name}"))).await else {
        // Who may not look everywhere looks there; what is wrong is told by that.
        return Ok(own);
    };
    let namespaces: Vec<String> = found.items.iter().filter_map(kube::ResourceExt::namespace).collect();
    match &namespaces[..] {
        _ if namespaces.contains(&own) => Ok(own),
        [] => Ok(own),
        [only] => Ok(only.clone()),
        several => Err(CliError::new("several-gateways", format!("There are several gateways {name}: in {}.", several.join(", ")))
            .next("Name one: `openshell gateway add --kubernetes --namespace NAMESPACE`.")),
    }
}

/// What is to be known of a gateway before it can be registered: where it is, and how to
/// authenticate.
pub(crate) async fn find(client: &Client, context: String, namespace: String, name: &str) -> Result<(Cluster, String, Bundle), CliError> {
    let failed = |what: String| move |e: kube::Error| CliError::new("cluster", what).because_of(&e);
    let gateways: Api<OpenShellGateway> = Api::namespaced(client.clone(), &namespace);
    let gateway = gateways.get_opt(name).await.map_err(failed(format!("OpenShellGateway {namespace}/{name} cannot be read.")))?;
    let gateway = gateway.ok_or_else(|| {
        CliError::new("no-gateway", format!("There is no OpenShellGateway {name} in the namespace {namespace}."))
            .next("`kubectl get openshellgateways --all-namespaces` shows them; name one with --namespace and --kubernetes=NAME.")
    })?;
    let service = service(client, &namespace, name).await.map_err(failed(format!("The Service of gateway {name} cannot be read.")))?;
    let port = service.spec.as_ref().and_then(|spec| spec.ports.as_ref()?.first().map(|port| port.port)).unwrap_or(limits::CLUSTER_PORT);
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let secret = gateway.client_secret_name();
    let values = secrets
        .get(&secret)
        .await
        .map_err(|e| {
            CliError::new("no-certificate", format!("The client certificate of gateway {name} cannot be read.")).because_of(&e).next(
                format!("Ask for the right to get the Secret {namespace}/{secret}, or for a certificate: `openshell gateway add --help`."),
            )
        })?
        .data
        .unwrap_or_default();
    let value = |key: &str| {
        values.get(key).map(|bytes| bytes.0.clone()).ok_or_else(|| {
            CliError::new("no-certificate", format!("The Secret {namespace}/{secret} has no {key}."))
                .next("The operator writes it: see `kubectl describe openshellgateway`.")
        })
    };
    let bundle = Bundle { ca: Some(value("ca.crt")?), identity: Some((value("tls.crt")?, value("tls.key")?)) };
    let endpoint = format!("https://{name}-gateway.{namespace}.svc:{port}");
    Ok((Cluster { context, namespace, gateway: name.to_owned() }, endpoint, bundle))
}

async fn service(client: &Client, namespace: &str, gateway: &str) -> Result<Service, kube::Error> {
    Api::namespaced(client.clone(), namespace).get(&format!("{gateway}-gateway")).await
}

/// Connects through the API server.
pub(crate) async fn connect(cluster: &Cluster, endpoint: Endpoint) -> Result<Channel, tonic::transport::Error> {
    let cluster = cluster.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let cluster = cluster.clone();
        async move { forward(&cluster).await.map(TokioIo::new).map_err(io::Error::other) }
    });
    endpoint.connect_with_connector(connector).await
}

/// A stream to a pod of the gateway that is ready.
async fn forward(cluster: &Cluster) -> Result<Box<dyn Stream>, String> {
    let text = |e: kube::Error| e.to_string();
    let (client, ..) = client(Some(&cluster.context)).await.map_err(|e| e.to_string())?;
    let spec = service(&client, &cluster.namespace, &cluster.gateway).await.map_err(text)?.spec.unwrap_or_default();
    let selector: BTreeMap<String, String> = spec.selector.unwrap_or_default();
    let selector: Vec<String> = selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let pods: Api<Pod> = Api::namespaced(client, &cluster.namespace);
    let found = pods.list(&ListParams::default().labels(&selector.join(","))).await.map_err(text)?;
    let pod = found.items.iter().find(|pod| is_ready(pod)).ok_or_else(|| {
        format!("no pod of gateway {} is ready; `kubectl describe openshellgateway {}` says why", cluster.gateway, cluster.gateway)
    })?;
    let port = container_port(pod).unwrap_or(limits::CLUSTER_PORT as u16);
    let mut forwarder = pods.portforward(&pod.name_any(), &[port]).await.map_err(text)?;
    let stream = forwarder.take_stream(port).ok_or("the API server forwards no stream")?;
    // It carries the stream until that is closed.
    tokio::spawn(async move {
        if let Err(error) = forwarder.join().await {
            tracing::debug!(%error, "the forwarded stream ended");
        }
    });
    Ok(Box::new(stream))
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
    pod.metadata.deletion_timestamp.is_none() && conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == "True")
}

/// The port named `grpc`, else the first.
fn container_port(pod: &Pod) -> Option<u16> {
    let ports: Vec<_> = pod.spec.as_ref()?.containers.iter().flat_map(|container| container.ports.iter().flatten()).collect();
    let port = ports.iter().find(|port| port.name.as_deref() == Some("grpc")).or(ports.first())?;
    u16::try_from(port.container_port).ok()
}
