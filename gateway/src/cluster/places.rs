//! What of the cluster no sandbox may reach, whatever its policy says: the API server, and this gateway under the
//! addresses of its Service. The addresses that its pod has itself are known without asking.
//!
//! A policy names hosts and addresses; that one of them is the API server's nobody can see who reads it. They are asked
//! for again and again: a Service that is made anew has another address.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::ListParams;
use kube::{Api, Client};
use tokio::sync::watch;

use crate::limits;
use crate::start::StartError;

/// Where the API server is published.
const API_SERVER: (&str, &str) = ("default", "kubernetes");

/// Asks the API server.
pub(super) struct Places {
    client: Client,
    /// Namespace and name of the gateway's own Service.
    own: (String, String),
}

impl Places {
    /// Around the Service `name` of this gateway.
    pub(super) fn new(client: Client, namespace: &str, name: String) -> Self {
        Self { client, own: (namespace.to_owned(), name) }
    }

    /// The addresses from now on, until nobody looks any more. A gateway that cannot know them does not start.
    pub(super) async fn follow(self) -> Result<watch::Receiver<Vec<String>>, StartError> {
        let first = self.read().await.map_err(|error| {
            StartError::Cluster(format!(
                "the addresses of the API server and of Service {}, which no sandbox may reach: {error}",
                self.own.1
            ))
        })?;
        let (sender, receiver) = watch::channel(first);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    () = sender.closed() => return,
                    () = tokio::time::sleep(limits::PLACES_INTERVAL) => {}
                }
                match self.read().await {
                    Ok(now) => {
                        sender.send_if_modified(|known| {
                            let changed = *known != now;
                            *known = now;
                            changed
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the addresses that no sandbox may reach could not be read; those known go on to be refused");
                    }
                }
            }
        });
        Ok(receiver)
    }

    async fn read(&self) -> Result<Vec<String>, kube::Error> {
        let (namespace, name) = API_SERVER;
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let slices: Api<EndpointSlice> = Api::namespaced(self.client.clone(), namespace);
        let own: Api<Service> = Api::namespaced(self.client.clone(), &self.own.0);
        let behind = ListParams::default().labels(&format!("kubernetes.io/service-name={name}"));
        let (api_server, behind, own) = tokio::try_join!(services.get_opt(name), slices.list(&behind), own.get_opt(&self.own.1))?;
        let published = api_server.iter().chain(&own).flat_map(published);
        Ok(published.chain(behind.items.iter().flat_map(endpoints)).collect::<BTreeSet<_>>().into_iter().collect())
    }
}

/// Every address and name of a Service. All of its ports: nothing else is behind them.
fn published(service: &Service) -> Vec<String> {
    let spec = service.spec.clone().unwrap_or_default();
    let balancer = service.status.clone().and_then(|status| status.load_balancer?.ingress).unwrap_or_default();
    let mut found = spec.cluster_ips.unwrap_or_default();
    found.extend(spec.external_ips.unwrap_or_default());
    found.extend(balancer.into_iter().flat_map(|ingress| [ingress.ip, ingress.hostname]).flatten());
    // A Service without an address of its own says so in its place.
    found.retain(|place| !place.is_empty() && place != "None");
    found
}

/// What is behind a Service, with its ports: the address is a node's as well.
fn endpoints(slice: &EndpointSlice) -> Vec<String> {
    let ports: Vec<u16> = slice.ports.iter().flatten().filter_map(|port| u16::try_from(port.port?).ok()).collect();
    let addresses = slice.endpoints.iter().flatten().flat_map(|endpoint| &endpoint.addresses);
    addresses
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .flat_map(|address| ports.iter().map(move |port| SocketAddr::new(address, *port).to_string()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_of_a_service_and_every_port_behind_it() {
        let service = serde_json::from_value(serde_json::json!({
            "spec": {"clusterIP": "10.96.0.1", "clusterIPs": ["10.96.0.1", "fd00::1"], "externalIPs": ["192.0.2.7"]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.4"}, {"hostname": "gateway.example.com"}]}},
        }))
        .unwrap();
        assert_eq!(published(&service), ["10.96.0.1", "fd00::1", "192.0.2.7", "198.51.100.4", "gateway.example.com"]);
        let headless = serde_json::from_value(serde_json::json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}})).unwrap();
        assert!(published(&headless).is_empty());
        let slice = serde_json::from_value(serde_json::json!({
            "addressType": "IPv4", "ports": [{"port": 6443}, {"port": 443}], "endpoints": [{"addresses": ["10.0.0.2"]}, {"addresses": ["fd00::2"]}],
        }))
        .unwrap();
        assert_eq!(endpoints(&slice), ["10.0.0.2:6443", "10.0.0.2:443", "[fd00::2]:6443", "[fd00::2]:443"]);
    }
}
