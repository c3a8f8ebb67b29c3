//! What is to be known of nodes, and no more: a cluster may have thousands.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt as _;
use openshell_crds::pod::TaintEffect;

use super::sideload::{Taint, Version};

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct NodeFacts {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// Taints that keep pods away for longer than a moment.
    pub(super) taints: Vec<Taint>,
    pub(super) kubelet: Option<Version>,
    /// `containerd://2.2.1`.
    pub(super) runtime: String,
    pub(super) addresses: Vec<IpAddr>,
}

impl From<&Node> for NodeFacts {
    fn from(node: &Node) -> Self {
        let status = node.status.as_ref();
        let info = status.and_then(|status| status.node_info.as_ref());
        let taints = node.spec.iter().flat_map(|spec| spec.taints.iter().flatten()).filter_map(|taint| {
            let effect = match taint.effect.as_str() {
                "NoSchedule" => TaintEffect::NoSchedule,
                "NoExecute" => TaintEffect::NoExecute,
                _ => return None,
            };
            // Set and taken away by the node controller: the node will be back.
            if taint.key.starts_with("node.kubernetes.io/") {
                return None;
            }
            Some(Taint { key: taint.key.clone(), value: taint.value.clone().unwrap_or_default(), effect })
        });
        Self {
            name: node.name_any(),
            labels: node.labels().clone(),
            taints: taints.collect(),
            kubelet: info.and_then(|info| Version::parse(&info.kubelet_version)),
            runtime: info.map(|info| info.container_runtime_version.clone()).unwrap_or_default(),
            addresses: status
                .iter()
                .flat_map(|status| status.addresses.iter().flatten())
                .filter_map(|address| address.address.parse().ok())
                .collect(),
        }
    }
}
