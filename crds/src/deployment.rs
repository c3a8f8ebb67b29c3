//! How a gateway is deployed in a cluster: its pod, its Service, its certificates.
//!
//! Read by the controller that deploys gateways. A local gateway is a process of its user: it
//! has none of this.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::pod::{ImagePullPolicy, Quantity, Resources, Toleration};
use crate::sandbox::LocalRef;
use crate::{OpenShellGateway, OpenShellGatewaySpec};

/// Port of a gateway's Service unless it says another.
pub const SERVICE_PORT: i32 = 8080;

/// The gateway's pod. There is one, never two at a time: sessions of supervisors are in its memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayDeployment {
    /// Image of the gateway. Absent: the one that the operator was installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^[^\s]+$"))]
    pub image: Option<String>,
    /// When the image is pulled. Absent: Kubernetes decides by the tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets in the gateway's namespace that the image is pulled with.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalRef>,
    /// error, warn, info, debug or trace, or directives per module. Absent: info.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[!-~]+$"))]
    pub log_level: Option<String>,
    /// What the container may use.
    #[serde(default)]
    pub resources: Resources,
    /// Labels of the nodes that it may run on.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels", description = "Labels of the nodes that it may run on.")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that it tolerates.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Its PriorityClass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub priority_class_name: Option<String>,
    /// Further annotations of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations", description = "Further annotations of the pod.")]
    pub pod_annotations: BTreeMap<String, String>,
    /// Further labels of the pod.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "further_labels", description = "Further labels of the pod.")]
    pub pod_labels: BTreeMap<String, String>,
    /// A volume for the logs of the sandboxes. Absent: they go with the pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<GatewayStorage>,
}

/// A claim for the gateway's data.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.storageClassName) ? self.storageClassName : '') == (has(oldSelf.storageClassName) ? oldSelf.storageClassName : '')",
     "fieldPath": ".storageClassName", "message": "the class of a volume is fixed when it is made"},
]))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayStorage {
    /// Size, for example `1Gi`. It can grow where the class allows it.
    pub size: Quantity,
    /// Its StorageClass. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub storage_class_name: Option<String>,
}

/// How the gateway is reached within the cluster, and from outside where the type says so.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayService {
    /// Who can reach it. Absent: ClusterIP.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<ServiceType>,
    /// Its port. Absent: 8080.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// Annotations, as load balancers want them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations", description = "Annotations, as load balancers want them.")]
    pub annotations: BTreeMap<String, String>,
}

/// Who can reach a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceType {
    /// The cluster.
    ClusterIP,
    /// Whoever reaches a node.
    NodePort,
    /// Whoever reaches the load balancer.
    LoadBalancer,
}

impl ServiceType {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ClusterIP => "ClusterIP",
            Self::NodePort => "NodePort",
            Self::LoadBalancer => "LoadBalancer",
        }
    }
}

/// The gateway's certificates. The operator is their authority and renews them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.certificateDays) || self.certificateDays <= (has(self.authorityDays) ? self.authorityDays : 3650)",
     "fieldPath": ".certificateDays", "message": "a certificate cannot be good for longer than its authority; set authorityDays higher"},
]))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GatewayTls {
    /// Secret, in the gateway's namespace, that the operator writes a client certificate for
    /// users into: `tls.crt`, `tls.key`, `ca.crt`. Absent: `<name>-gateway-client-tls`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "!self.endsWith('-gateway-tls') && !self.endsWith('-gateway-ca') && !self.endsWith('-gateway-jwt')",
         "message": "this is the name of another Secret of a gateway; choose one that ends otherwise"},
    ]))]
    pub client_tls_secret_name: Option<String>,
    /// Further DNS names and IP addresses under which clients reach the gateway.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 32),
        inner(length(min = 1, max = 253), regex(pattern = r"^(\*\.)?[A-Za-z0-9:]([-A-Za-z0-9.:]*[A-Za-z0-9:])?$"))
    )]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub server_names: Vec<String>,
    /// Days that certificates are good for; they are renewed when a third is left. Absent: 365.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 2, max = 3650))]
    pub certificate_days: Option<i32>,
    /// Days that the authority is good for; the next one is announced when a third is left, and
    /// issues a day later. Absent: 3650.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 6, max = 36500))]
    pub authority_days: Option<i32>,
}

impl GatewayTls {
    /// How long certificates are good for, in days.
    pub fn certificate_days(&self) -> i32 {
        self.certificate_days.unwrap_or(365)
    }

    /// How long the authority is good for, in days.
    pub fn authority_days(&self) -> i32 {
        self.authority_days.unwrap_or(3650)
    }
}

/// Certificates in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificatesStatus {
    /// When the gateway's certificate ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server_ends: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
    /// When the authority that issues ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority_ends: Option<k8s_openapi::apimachinery::pkg::apis::meta::v1::Time>,
}

impl OpenShellGatewaySpec {
    /// Whether supervisors reach the gateway elsewhere than at its Service's usual port.
    pub fn has_unusual_endpoint(&self) -> bool {
        self.endpoint.is_some() || self.service.port.is_some_and(|port| port != SERVICE_PORT)
    }
}

/// Names of what belongs to the gateway `name`.
impl OpenShellGateway {
    /// Its Deployment, Service, ServiceAccount and claim.
    pub fn deployment_name(&self) -> String {
        format!("{}-gateway", self.name_any())
    }

    /// The Secret with its certificate, and the authorities that its clients may come from.
    pub fn tls_secret_name(&self) -> String {
        format!("{}-gateway-tls", self.name_any())
    }

    /// The Secret with the key of its sandbox tokens.
    pub fn jwt_secret_name(&self) -> String {
        format!("{}-gateway-jwt", self.name_any())
    }

    /// The Secret with its authority. Also the ConfigMaps that say whom to trust, in its namespace
    /// and in that of its sandboxes.
    pub fn authority_name(&self) -> String {
        format!("{}-gateway-ca", self.name_any())
    }

    /// The Secret with a client certificate for users.
    pub fn client_secret_name(&self) -> String {
        self.spec.tls.client_tls_secret_name.clone().unwrap_or_else(|| format!("{}-gateway-client-tls", self.name_any()))
    }

    /// Where its sandboxes are.
    pub fn sandbox_namespace(&self) -> String {
        self.spec.sandbox_namespace.clone().or_else(|| self.namespace()).unwrap_or_default()
    }

    /// Where supervisors in this cluster reach it.
    pub fn callback_endpoint(&self) -> String {
        if let Some(endpoint) = &self.spec.endpoint {
            return endpoint.clone();
        }
        let port = self.spec.service.port.unwrap_or(SERVICE_PORT);
        format!("https://{}.{}.svc:{port}", self.deployment_name(), self.namespace().unwrap_or_default())
    }
}

fn map(most: u32, value: &serde_json::Value, rules: &serde_json::Value) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": most,
        "additionalProperties": value,
        "x-kubernetes-validations": rules,
    })
}

fn key_rule() -> serde_json::Value {
    serde_json::json!({
        "rule": "self.all(k, k.size() <= 317 && k.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$'))",
        "message": "a key is a name of at most 63 characters, with an optional DNS prefix and a slash before it",
    })
}

fn labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = serde_json::json!({ "type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$" });
    map(32, &value, &serde_json::json!([key_rule()]))
}

fn further_labels(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = serde_json::json!({ "type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$" });
    let ours = serde_json::json!({
        "rule": "self.all(k, !k.startsWith('openshell.ai/') && !k.startsWith('app.kubernetes.io/'))",
        "message": "labels below openshell.ai and app.kubernetes.io are the operator's",
    });
    map(32, &value, &serde_json::json!([key_rule(), ours]))
}

fn annotations(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let value = serde_json::json!({ "type": "string", "maxLength": 4096 });
    let ours = serde_json::json!({
        "rule": "self.all(k, !k.startsWith('openshell.ai/'))",
        "message": "annotations below openshell.ai are the operator's",
    });
    map(32, &value, &serde_json::json!([key_rule(), ours]))
}
