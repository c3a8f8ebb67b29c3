//! `OpenShellGateway` (`osg`): a gateway and the defaults of its sandboxes.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::deployment::{CertificatesStatus, GatewayDeployment, GatewayService, GatewayTls};
use crate::pod::{ImagePullPolicy, Resources, SideloadMethod, Workspace};
use crate::sandbox::{EnvVar, LocalRef};

/// A gateway. Locally there is one, named `local`, made on first start.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "openshell.ai",
    version = "v1alpha1",
    kind = "OpenShellGateway",
    plural = "openshellgateways",
    shortname = "osg",
    category = "openshell",
    namespaced,
    status = "OpenShellGatewayStatus",
    derive = "PartialEq",
    doc = "A gateway, and what its sandboxes get.",
    validation = kube::core::Rule::new("self.metadata.name.size() <= 40 && self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')")
        .message("the name of a gateway begins with a letter, has letters, digits and dashes and at most 40 characters: Services are named after it"),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".status.endpoint"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.sandboxNamespace) ? self.sandboxNamespace : '') == (has(oldSelf.sandboxNamespace) ? oldSelf.sandboxNamespace : '')",
     "fieldPath": ".sandboxNamespace", "message": "sandboxNamespace is fixed when the gateway is created: its sandboxes are there; create another gateway"},
]))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenShellGatewaySpec {
    /// What every sandbox of this gateway gets.
    #[serde(default)]
    pub sandbox_defaults: SandboxDefaults,
    /// Upper bounds over all sandboxes.
    #[serde(default)]
    pub quotas: Quotas,
    /// Namespace of its sandboxes in a cluster. Absent: its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub sandbox_namespace: Option<String>,
    /// URL under which supervisors reach the gateway. Absent: its Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512), regex(pattern = r"^https://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:[1-9][0-9]{0,4})?$"))]
    pub endpoint: Option<String>,
    /// Its pod in a cluster.
    #[serde(default)]
    pub deployment: GatewayDeployment,
    /// Its Service in a cluster.
    #[serde(default)]
    pub service: GatewayService,
    /// Its certificates in a cluster.
    #[serde(default)]
    pub tls: GatewayTls,
}

/// Defaults of the sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SandboxDefaults {
    /// Environment for every sandbox; its own `env` wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// What to do on a kernel that cannot hold every wall.
    #[serde(default)]
    pub enforcement: Enforcement,
    /// Image of sandboxes that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$"))]
    pub image: Option<String>,
    /// When images are pulled, that of the supervisor included. Absent: as Kubernetes has it, which
    /// is `Always` for the tag `latest` and `IfNotPresent` for others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
    /// Secrets of the sandboxes' namespace with which images are pulled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalRef>,
    /// Image that holds the supervisor, `/openshell-sandbox`. Absent: the one that the operator was
    /// installed with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$"))]
    pub supervisor_image: Option<String>,
    /// How the supervisor gets into pods. Absent: `ImageVolume` where server, nodes and runtime are
    /// known to have it, `InitContainer` elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sideload_method: Option<SideloadMethod>,
    /// `RuntimeClass` of sandboxes that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub runtime_class_name: Option<String>,
    /// Workspace volume of sandboxes that ask for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Compute resources of sandboxes that name none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
}

/// What to do where not every wall can stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Enforcement {
    /// Run at a reduced level and say so.
    #[default]
    BestEffort,
    /// Refuse to run.
    Full,
}

/// Upper bounds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Quotas {
    /// Sandboxes that may exist at a time. Absent: no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub sandboxes: Option<i32>,
}

/// What is known of a gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenShellGatewayStatus {
    /// Generation last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Where clients reach it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Version that serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Pods that serve: 0 or 1. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_replicas: Option<i32>,
    /// Certificates in use. In a cluster only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificates: Option<CertificatesStatus>,
    /// `Ready`, and in a cluster `Reconciling` and `Stalled` while they hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
}
