//! What a sandbox's pod is made of: shared by `OpenShellSandbox` and the gateway's defaults.
//!
//! Bounds and forms are those of `core/v1` (`k8s.io/api/core/v1/types.go`,
//! `pkg/apis/core/validation`), so that what is taken here is not refused when the pod is made.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// An amount as Kubernetes writes it: `500m`, `2`, `1Gi`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Quantity(pub String);

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a quantity is a number or a text such as 500m or 1Gi")]
        enum Written {
            Number(i64),
            Text(String),
        }
        Ok(Self(match Written::deserialize(deserializer)? {
            Written::Number(number) => number.to_string(),
            Written::Text(text) => text,
        }))
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "An amount above zero: 500m, 2, 1Gi.",
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            // Not negative: no amount of a resource is.
            "pattern": r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,2})?$",
        })
    }
}

/// Compute resources of the sandbox's container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resources {
    /// What is set aside for it, by name of the resource: `cpu`, `memory`, `ephemeral-storage`,
    /// or one that a device plugin offers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 16))]
    pub limits: BTreeMap<String, Quantity>,
    /// GPUs that are the sandbox's alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<Gpu>,
}

/// GPUs, as a device plugin offers them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Gpu {
    /// How many.
    #[schemars(range(min = 1, max = Self::MOST))]
    pub count: i32,
    /// The resource of which a node must have as many: `amd.com/gpu`, `nvidia.com/mig-1g.5gb`. Absent:
    /// `nvidia.com/gpu`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 317), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub resource_name: Option<String>,
}

impl Gpu {
    /// Of one sandbox.
    pub const MOST: i32 = 64;

    /// The resource.
    pub fn resource(&self) -> &str {
        self.resource_name.as_deref().unwrap_or("nvidia.com/gpu")
    }
}

/// A volume that keeps the workspace. Without one, the workspace lasts as long as its pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Workspace {
    /// Its size.
    pub size: Quantity,
    /// A `StorageClass`. Absent: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub storage_class_name: Option<String>,
}

/// When a toleration matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint has this key and this value.
    #[default]
    Equal,
    /// The taint has this key.
    Exists,
}

impl TolerationOperator {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "Equal",
            Self::Exists => "Exists",
        }
    }
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TaintEffect {
    /// Keeps pods away.
    NoSchedule,
    /// Keeps pods away if there is another place.
    PreferNoSchedule,
    /// Keeps pods away and ends those that are there.
    NoExecute,
}

impl TaintEffect {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoSchedule => "NoSchedule",
            Self::PreferNoSchedule => "PreferNoSchedule",
            Self::NoExecute => "NoExecute",
        }
    }
}

/// A taint of nodes that the sandbox's pod does not mind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "(has(self.key) && self.key != '') || (has(self.operator) && self.operator == 'Exists')", "fieldPath": ".operator",
     "message": "operator must be Exists when key is empty: it then matches every taint"},
    {"rule": "!(has(self.operator) && self.operator == 'Exists') || !has(self.value) || self.value == ''", "fieldPath": ".value",
     "message": "value must be empty when operator is Exists"},
    {"rule": "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')", "fieldPath": ".effect",
     "message": "effect must be NoExecute when tolerationSeconds is set"},
]))]
pub struct Toleration {
    /// Key of the taint. Empty, with operator `Exists`: every taint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 317), regex(pattern = r"^(([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))]
    pub key: String,
    /// `Equal` if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<TolerationOperator>,
    /// Value of the taint.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 63), regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"))]
    pub value: String,
    /// Which effect is tolerated. Absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TaintEffect>,
    /// Seconds for which a `NoExecute` taint is tolerated. Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 31_536_000))]
    pub toleration_seconds: Option<i64>,
}

/// Names for an address, in the pod's `/etc/hosts`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HostAlias {
    /// An IPv4 or IPv6 address.
    #[schemars(length(min = 2, max = 45), regex(pattern = r"^[0-9a-fA-F:.]+$"))]
    pub ip: String,
    /// Its names.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(inner(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")))]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub hostnames: Vec<String>,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// Whenever a pod starts.
    Always,
    /// If the node does not have it.
    IfNotPresent,
    /// Never: the node must have it.
    Never,
}

impl ImagePullPolicy {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Always => "Always",
            Self::IfNotPresent => "IfNotPresent",
            Self::Never => "Never",
        }
    }
}

/// How the supervisor gets into the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SideloadMethod {
    /// Its image is a volume: nothing is copied. Needs Kubernetes 1.35 and a runtime that can.
    ImageVolume,
    /// An init container copies it. Works everywhere.
    InitContainer,
}

impl SideloadMethod {
    /// The API's spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImageVolume => "ImageVolume",
            Self::InitContainer => "InitContainer",
        }
    }

    /// The method of that spelling.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ImageVolume, Self::InitContainer].into_iter().find(|method| method.as_str() == text)
    }
}
