//! `Sandbox` of `agents.x-k8s.io`: the part of it that we write and read.
//!
//! The fields are those of [kubernetes-sigs/agent-sandbox](https://github.com/kubernetes-sigs/agent-sandbox),
//! `api/v1beta1/sandbox_types.go`. `v1alpha1` has the same shape but for one thing: whether the
//! pod shall run is `replicas` there and `operatingMode` here. [`SandboxSpec::set_running`] and
//! [`SandboxSpec::running`] are the whole difference.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{PersistentVolumeClaimSpec, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::Resource;
use kube::core::{DynamicResourceScope, TypeMeta};
use serde::{Deserialize, Serialize};

/// API group of the kind.
pub const GROUP: &str = "agents.x-k8s.io";
/// The kind.
pub const KIND: &str = "Sandbox";

/// A version that an API server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Served {
    /// Releases 0.5.0 and later.
    V1Beta1,
    /// Releases before 0.5.0, and beside `v1beta1` before 1.0.0.
    V1Alpha1,
}

impl Served {
    /// The versions that we can use, the better one first.
    pub const KNOWN: [Self; 2] = [Self::V1Beta1, Self::V1Alpha1];

    /// `v1beta1`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Alpha1 => "v1alpha1",
        }
    }

    /// `agents.x-k8s.io/v1beta1`.
    pub fn api_version(self) -> String {
        format!("{GROUP}/{}", self.as_str())
    }
}

/// Whether the pod shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OperatingMode {
    /// It shall.
    Running,
    /// It shall not; claims are kept.
    Suspended,
}

/// A `Sandbox`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sandbox {
    /// Version and kind.
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub types: Option<TypeMeta>,
    /// As of every object.
    pub metadata: ObjectMeta,
    /// What shall be.
    pub spec: SandboxSpec,
    /// What is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<SandboxStatus>,
}

/// What shall be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxSpec {
    /// The pod. Used when it is made, never afterwards, but for its metadata.
    pub pod_template: PodTemplate,
    /// Claims that outlive pods. Cannot be changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volume_claim_templates: Vec<ClaimTemplate>,
    /// Whether there shall be a headless Service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<bool>,
    /// Whether the pod shall run, in `v1beta1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operating_mode: Option<OperatingMode>,
    /// The same in `v1alpha1`: 0 or 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodTemplate {
    /// Labels and annotations; anything else is dropped.
    #[serde(default)]
    pub metadata: PodMetadata,
    /// The pod.
    pub spec: PodSpec,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PodMetadata {
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// A claim for each sandbox, named `<name>-<sandbox>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimTemplate {
    /// Its name.
    pub metadata: ClaimMetadata,
    /// The claim.
    pub spec: PersistentVolumeClaimSpec,
}

/// A name and labels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimMetadata {
    /// The volume that it replaces in the pod.
    pub name: String,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

/// What is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// `Ready`, `Suspended`, `PodScheduled`, `Finished`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Pods there are, in `v1alpha1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<i32>,
}

impl SandboxSpec {
    /// Says whether the pod shall run, as that version has it.
    pub fn set_running(&mut self, served: Served, mode: OperatingMode) {
        match served {
            Served::V1Beta1 => self.operating_mode = Some(mode),
            Served::V1Alpha1 => {
                self.replicas = Some(match mode {
                    OperatingMode::Running => 1,
                    OperatingMode::Suspended => 0,
                });
            }
        }
    }

    /// Whether the pod shall run, in either version.
    pub fn running(&self) -> OperatingMode {
        match (self.operating_mode, self.replicas) {
            (Some(mode), _) => mode,
            (None, Some(0)) => OperatingMode::Suspended,
            (None, _) => OperatingMode::Running,
        }
    }
}

impl Resource for Sandbox {
    type DynamicType = Served;
    type Scope = DynamicResourceScope;

    fn kind(_: &Served) -> Cow<'_, str> {
        KIND.into()
    }

    fn group(_: &Served) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version(served: &Served) -> Cow<'_, str> {
        served.as_str().into()
    }

    fn plural(_: &Served) -> Cow<'_, str> {
        "sandboxes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_says_in_its_own_way_whether_it_runs() {
        for mode in [OperatingMode::Running, OperatingMode::Suspended] {
            for served in Served::KNOWN {
                let mut spec = SandboxSpec::default();
                spec.set_running(served, mode);
                assert_eq!(spec.running(), mode, "{served:?}");
                assert_eq!(spec.replicas.is_some(), served == Served::V1Alpha1);
                assert_eq!(spec.operating_mode.is_some(), served == Served::V1Beta1);
            }
        }
        assert_eq!(SandboxSpec::default().running(), OperatingMode::Running, "the API's default");
    }
}
