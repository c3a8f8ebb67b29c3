//! `Provider` (`osprov`): credentials by reference, and where they may go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::sandbox::EnvVar;

/// Credentials of one service, and the endpoints they are for.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "openshell.ai",
    version = "v1alpha1",
    kind = "Provider",
    plural = "providers",
    shortname = "osprov",
    category = "openshell",
    namespaced,
    status = "ProviderStatus",
    derive = "PartialEq",
    doc = "Credentials of one service by reference, and where they may go.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Accepted", type_ = "string", json_path = ".status.conditions[?(@.type==\"Accepted\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.config) || !has(self.credentials) || self.config.all(c, !self.credentials.exists(k, k.name == c.name))",
     "fieldPath": ".config", "message": "a name is a credential or a setting, not both"},
]))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderSpec {
    /// What kind of service it is (`github`, `anthropic`, `generic`, ...). A name only: where the
    /// credentials may go is said by `endpoints`.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 64), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub type_: String,
    /// Environment variables under which the agent sees placeholders, and where the values are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub credentials: Vec<CredentialSource>,
    /// Where the credentials may go. A policy can narrow this, never widen it.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub endpoints: Vec<ProviderEndpoint>,
    /// Settings that are no secret, put into the agent's environment as they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub config: Vec<EnvVar>,
}

/// One credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialSource {
    /// Environment variable of the placeholder.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "!self.startsWith('OPENSHELL_')", "message": "names beginning with OPENSHELL_ are reserved"}]))]
    pub name: String,
    /// Where the value is. Never the value itself.
    pub secret_key_ref: SecretKeyRef,
}

/// A key of a Secret labelled `openshell.ai/credential: "true"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretKeyRef {
    /// Name of the Secret, in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub name: String,
    /// Key in its `data`.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// A destination that may receive the credentials.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProviderEndpoint {
    /// Host name, or a wildcard as in a policy (`*.example.com`).
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[A-Za-z0-9*:]([-A-Za-z0-9.*:_]*[A-Za-z0-9:])?$"))]
    #[schemars(extend("x-kubernetes-validations" = [
        {"rule": "self != '*' && self != '**'", "message": "name the hosts that may receive the credentials; * alone is every host"},
    ]))]
    pub host: String,
    /// TCP port; 443 unless said.
    #[serde(default = "https")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,
    /// Only requests under this path (as an endpoint's `path` in a policy). Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^(/|\*\*)[^\x00-\x20]*$"))]
    pub path: Option<String>,
}

fn https() -> i32 {
    443
}

/// What is known of a provider.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// Generation last looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
}
