//! The NetworkPolicy of the sandboxes of a namespace: what the cluster's network is told.
//!
//! Nobody connects to a sandbox's pod, and the pod reaches neither link-local and metadata
//! addresses nor nodes nor the API server. A NetworkPolicy cannot tell the agent from its
//! supervisor, and many networks do not enforce it at all: it is one wall more behind the broker,
//! and is counted as none.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use openshell_crds::labels;

use super::render;

/// Its name.
pub(super) const NAME: &str = "openshell-sandboxes";

/// Link-local (with the metadata service of most clouds), and the metadata services elsewhere:
/// Amazon's over IPv6 and Alibaba's.
const ALWAYS: [&str; 4] = ["169.254.0.0/16", "fe80::/10", "fd00:ec2::254/128", "100.100.100.200/32"];
/// NodeLocal DNSCache serves names at this link-local address
/// (`kubernetes/cluster/addons/dns/nodelocaldns`).
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

/// The policy.
pub(super) fn policy(namespace: &str, gateway: &str, refused: &BTreeSet<IpAddr>, owner: Option<OwnerReference>) -> NetworkPolicy {
    let selector: BTreeMap<String, String> = render::labels(gateway, "").into_iter().filter(|(key, _)| key != labels::SANDBOX_ID).collect();
    let everything_but = |cidr: &str, v4: bool| {
        let of_nodes = refused.iter().filter(|ip| ip.is_ipv4() == v4).map(|ip| format!("{ip}/{}", if v4 { 32 } else { 128 }));
        let always = ALWAYS.iter().filter(|block| block.contains(':') != v4).map(|block| (*block).to_owned());
        NetworkPolicyPeer {
            ip_block: Some(IPBlock { cidr: cidr.to_owned(), except: Some(always.chain(of_nodes).collect()) }),
            ..NetworkPolicyPeer::default()
        }
    };
    let dns = |protocol: &str| NetworkPolicyPort {
        protocol: Some(protocol.to_owned()),
        port: Some(IntOrString::Int(53)),
        ..NetworkPolicyPort::default()
    };
    let node_local_dns =
        NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: NODE_LOCAL_DNS.to_owned(), except: None }), ..NetworkPolicyPeer::default() };
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(selector.clone()),
            owner_references: owner.map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(selector), ..LabelSelector::default() }),
            policy_types: Some(vec!["Ingress".to_owned(), "Egress".to_owned()]),
            ingress: None,
            egress: Some(vec![
                NetworkPolicyEgressRule { to: Some(vec![everything_but("0.0.0.0/0", true), everything_but("::/0", false)]), ports: None },
                NetworkPolicyEgressRule { to: Some(vec![node_local_dns]), ports: Some(vec![dns("UDP"), dns("TCP")]) },
            ]),
        }),
    }
}
