//! What a sandbox asks of its pod: its own wishes over the gateway's defaults.
//!
//! What the schema of the objects cannot say is checked here, so that it is refused with its
//! path instead of when the pod is made.

use std::collections::BTreeMap;
use std::net::IpAddr;

use openshell_crds::pod::{HostAlias, ImagePullPolicy, Resources, SideloadMethod, Toleration, Workspace};
use openshell_crds::{OpenShellGateway, OpenShellSandbox};
use serde::Serialize;

use super::{BlueprintError, Reason};

/// What is asked of a pod. Its default asks for nothing that only a pod can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PodRequest {
    /// Image whose files the agent sees.
    pub image: Option<String>,
    /// When images are pulled.
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets with which they are.
    pub image_pull_secrets: Vec<String>,
    /// Image that holds the supervisor.
    pub supervisor_image: Option<String>,
    /// How the supervisor gets into the pod, if somebody says so.
    pub sideload_method: Option<SideloadMethod>,
    /// The `RuntimeClass`.
    pub runtime_class_name: Option<String>,
    /// Compute resources.
    pub resources: Option<Resources>,
    /// A volume for the workspace.
    pub workspace: Option<Workspace>,
    /// Labels that a node must have.
    pub node_selector: BTreeMap<String, String>,
    /// Taints that do not matter.
    pub tolerations: Vec<Toleration>,
    /// Names for addresses.
    pub host_aliases: Vec<HostAlias>,
    /// URL of the gateway for its supervisor, where it is not the gateway's Service at its usual port.
    pub gateway_endpoint: Option<String>,
}

impl PodRequest {
    /// The first thing that is asked for and only a pod can be, as the objects call it.
    pub fn first(&self) -> Option<&'static str> {
        [
            ("image", self.image.is_some()),
            ("runtimeClassName", self.runtime_class_name.is_some()),
            ("resources", self.resources.is_some()),
            ("workspace", self.workspace.is_some()),
            ("nodeSelector", !self.node_selector.is_empty()),
            ("tolerations", !self.tolerations.is_empty()),
            ("imagePullSecrets", !self.image_pull_secrets.is_empty()),
            ("hostAliases", !self.host_aliases.is_empty()),
            ("imagePullPolicy", self.image_pull_policy.is_some()),
            ("supervisorImage", self.supervisor_image.is_some()),
            ("sideloadMethod", self.sideload_method.is_some()),
            ("endpoint", self.gateway_endpoint.is_some()),
        ]
        .into_iter()
        .find_map(|(name, asked)| asked.then_some(name))
    }
}

/// The sandbox's wishes over the gateway's defaults.
pub(super) fn merge(sandbox: &OpenShellSandbox, gateway: &OpenShellGateway) -> Result<PodRequest, BlueprintError> {
    let (own, defaults) = (&sandbox.spec, &gateway.spec.sandbox_defaults);
    let mut secrets: Vec<String> = Vec::new();
    for secret in own.image_pull_secrets.iter().chain(&defaults.image_pull_secrets) {
        if !secrets.contains(&secret.name) {
            secrets.push(secret.name.clone());
        }
    }
    let request = PodRequest {
        image: own.image.clone().or_else(|| defaults.image.clone()),
        image_pull_policy: defaults.image_pull_policy,
        gateway_endpoint: gateway.spec.has_unusual_endpoint().then(|| gateway.callback_endpoint()),
        image_pull_secrets: secrets,
        supervisor_image: defaults.supervisor_image.clone(),
        sideload_method: defaults.sideload_method,
        runtime_class_name: own.runtime_class_name.clone().or_else(|| defaults.runtime_class_name.clone()),
        resources: own.resources.clone().or_else(|| defaults.resources.clone()),
        workspace: own.workspace.clone().or_else(|| defaults.workspace.clone()),
        node_selector: own.node_selector.clone(),
        tolerations: own.tolerations.clone(),
        host_aliases: own.host_aliases.clone(),
    };
    check(&request)?;
    Ok(request)
}

fn check(request: &PodRequest) -> Result<(), BlueprintError> {
    let refuse = |what: String| Err(BlueprintError::new(Reason::PodInvalid, what));
    if let Some(resources) = &request.resources {
        for (list, amounts) in [("requests", &resources.requests), ("limits", &resources.limits)] {
            if let Some(name) = amounts.keys().find(|name| !qualified(name)) {
                return refuse(format!("resources.{list}: \"{name}\" is no resource; use cpu, memory or what a device plugin offers"));
            }
        }
        if let Some(gpu) = &resources.gpu {
            let resource = gpu.resource();
            if !qualified(resource) {
                return refuse(format!("resources.gpu.resourceName: \"{resource}\" is no resource; use what a device plugin offers"));
            }
            if resources.limits.contains_key(resource) || resources.requests.contains_key(resource) {
                return refuse(format!("resources: {resource} is asked for by gpu and by name; leave one of them out"));
            }
        }
    }
    if let Some(key) = request.node_selector.keys().find(|key| !qualified(key)) {
        return refuse(format!("nodeSelector: \"{key}\" is no label; labels are names such as kubernetes.io/arch"));
    }
    for (i, alias) in request.host_aliases.iter().enumerate() {
        if alias.ip.parse::<IpAddr>().is_err() {
            return refuse(format!("hostAliases[{i}].ip: \"{}\" is no IP address", alias.ip));
        }
    }
    Ok(())
}

/// A qualified name: `name` or `prefix/name` (`k8s.io/apimachinery/pkg/util/validation`).
fn qualified(text: &str) -> bool {
    let (prefix, name) = text.split_once('/').map_or((None, text), |(prefix, name)| (Some(prefix), name));
    let ends = |part: &str| part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.ends_with(|c: char| c.is_ascii_alphanumeric());
    let named = name.len() <= 63 && ends(name) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    let domain = |prefix: &str| {
        prefix.len() <= 253
            && prefix
                .split('.')
                .all(|label| ends(label) && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
    };
    named && prefix.is_none_or(domain)
}
