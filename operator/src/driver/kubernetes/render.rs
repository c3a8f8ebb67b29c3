//! From a blueprint to the `Sandbox` of `agents.x-k8s.io` that is applied. Pure.
//!
//! docs/ARCHITECTURE.md, "In a cluster", is the contract: what stands here the supervisor reads
//! there. The pod passes Pod Security `restricted`. Its root file system stays writable: what the
//! agent may write is for Landlock to say.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, HostAlias, ImageVolumeSource, KeyToPath,
    LocalObjectReference, ObjectFieldSelector, PersistentVolumeClaimSpec, PodSecurityContext, PodSpec, ProjectedVolumeSource,
    ResourceRequirements, SeccompProfile, SecurityContext, ServiceAccountTokenProjection, Toleration, Volume, VolumeMount,
    VolumeProjection, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource as _;
use kube::core::TypeMeta;
use openshell_crds::agents::{ClaimMetadata, ClaimTemplate, KIND, OperatingMode, PodMetadata, PodTemplate, Sandbox, SandboxSpec, Served};
use openshell_crds::pod::{ImagePullPolicy, Resources, SideloadMethod, Workspace};
use openshell_crds::{OpenShellSandbox, labels};

use crate::blueprint::SandboxBlueprint;
use crate::limits;

/// The container in which supervisor and agent run.
pub(super) const CONTAINER: &str = "agent";
/// The container that copies the supervisor.
pub(super) const INSTALLER: &str = "install-supervisor";
/// What a pod of ours is, in the label that says so.
pub(super) const NAME: &str = "openshell-sandbox";

/// User and group of the agent.
const USER: i64 = 1000;
const BINARY: &str = "openshell-sandbox";
const SUPERVISOR: Mounted = Mounted { volume: "openshell-supervisor", path: "/openshell" };
const IDENTITY: Mounted = Mounted { volume: "openshell-identity", path: "/var/run/secrets/openshell" };
const STATE: Mounted = Mounted { volume: "openshell-state", path: "/var/lib/openshell" };
const WORKSPACE: Mounted = Mounted { volume: "workspace", path: "/sandbox" };
/// Audience of the token by which a pod proves itself to its gateway.
const AUDIENCE: &str = "openshell-gateway";

/// A volume and where it is seen.
struct Mounted {
    volume: &'static str,
    path: &'static str,
}

impl Mounted {
    fn mount(&self, read_only: Option<bool>) -> VolumeMount {
        VolumeMount { name: self.volume.to_owned(), mount_path: self.path.to_owned(), read_only, ..VolumeMount::default() }
    }

    fn with(&self, volume: Volume) -> Volume {
        Volume { name: self.volume.to_owned(), ..volume }
    }
}

/// The gateway that a pod's supervisor calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gateway {
    /// Name of the `OpenShellGateway`.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

impl Gateway {
    /// Name by which its certificate is checked.
    pub fn server_name(&self) -> String {
        format!("{}-gateway.{}.svc", self.name, self.namespace)
    }

    /// Where it is reached.
    pub fn endpoint(&self) -> String {
        format!("https://{}:{}", self.server_name(), limits::GATEWAY_PORT)
    }

    /// ConfigMap in the sandboxes' namespace that has its CA.
    pub fn ca_config_map(&self) -> String {
        format!("{}-gateway-ca", self.name)
    }
}

/// What a pod is made with besides its blueprint.
#[derive(Clone, Debug)]
pub(super) struct Settings<'a> {
    pub(super) gateway: &'a Gateway,
    pub(super) image: &'a str,
    pub(super) supervisor_image: &'a str,
    pub(super) sideload: SideloadMethod,
    /// Why it is that one.
    pub(super) because: &'a str,
    /// Claims of a `Sandbox` that is there already: they cannot be changed.
    pub(super) claims: Option<&'a [ClaimTemplate]>,
    pub(super) served: Served,
}

/// The labels of a sandbox's `Sandbox` and pod.
pub(super) fn labels(gateway: &str, uid: &str) -> BTreeMap<String, String> {
    [(labels::SANDBOX_ID, uid), (labels::GATEWAY, gateway), (labels::NAME, NAME), (labels::MANAGED_BY, crate::FIELD_MANAGER)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// The whole `Sandbox`.
pub(super) fn sandbox(blueprint: &SandboxBlueprint, settings: &Settings<'_>) -> Sandbox {
    let labels = labels(&settings.gateway.name, &blueprint.uid);
    let claims = settings.claims.map_or_else(|| blueprint.pod.workspace.iter().map(claim).collect(), <[ClaimTemplate]>::to_vec);
    let has_claim = claims.iter().any(|claim| claim.metadata.name == WORKSPACE.volume);
    let mut spec = SandboxSpec {
        pod_template: PodTemplate {
            metadata: PodMetadata { labels: labels.clone(), annotations: BTreeMap::new() },
            spec: pod(blueprint, settings, has_claim),
        },
        volume_claim_templates: claims,
        // The field came after v1alpha1 had been released without it.
        service: (settings.served == Served::V1Beta1).then_some(false),
        ..SandboxSpec::default()
    };
    spec.set_running(settings.served, OperatingMode::Running);
    Sandbox {
        types: Some(TypeMeta { api_version: settings.served.api_version(), kind: KIND.to_owned() }),
        metadata: ObjectMeta {
            name: Some(blueprint.name.clone()),
            namespace: Some(blueprint.namespace.clone()),
            labels: Some(labels),
            annotations: Some(BTreeMap::from([
                (labels::SIDELOAD.to_owned(), settings.sideload.as_str().to_owned()),
                (labels::SIDELOAD_BECAUSE.to_owned(), settings.because.to_owned()),
            ])),
            owner_references: Some(vec![OwnerReference {
                api_version: OpenShellSandbox::api_version(&()).into_owned(),
                kind: OpenShellSandbox::kind(&()).into_owned(),
                name: blueprint.name.clone(),
                uid: blueprint.uid.clone(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

fn claim(workspace: &Workspace) -> ClaimTemplate {
    ClaimTemplate {
        metadata: ClaimMetadata { name: WORKSPACE.volume.to_owned(), labels: BTreeMap::new() },
        spec: PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: workspace.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(workspace.size.0.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        },
    }
}

fn pod(blueprint: &SandboxBlueprint, settings: &Settings<'_>, has_claim: bool) -> PodSpec {
    let asked = &blueprint.pod;
    let mut volumes = vec![supervisor_volume(settings, asked.image_pull_policy), identity_volume(settings.gateway), STATE.with(empty())];
    if !has_claim {
        volumes.push(WORKSPACE.with(empty()));
    }
    let pull_policy = asked.image_pull_policy.map(|policy| policy.as_str().to_owned());
    let resources = asked.resources.as_ref().map(requirements);
    // A GPU is for the agent alone: whoever copies a file needs none.
    let without_gpu = asked.resources.as_ref().map(|resources| requirements(&Resources { gpu: None, ..resources.clone() }));
    PodSpec {
        init_containers: (settings.sideload == SideloadMethod::InitContainer).then(|| {
            vec![Container {
                name: INSTALLER.to_owned(),
                image: Some(settings.supervisor_image.to_owned()),
                image_pull_policy: pull_policy.clone(),
                command: Some([&format!("/{BINARY}"), "install", SUPERVISOR.path].map(str::to_owned).to_vec()),
                // As much as the agent has, so that a quota that wants both is satisfied; a pod
                // needs the larger of the two, not their sum.
                resources: without_gpu,
                security_context: Some(confined()),
                volume_mounts: Some(vec![SUPERVISOR.mount(None)]),
                ..Container::default()
            }]
        }),
        containers: vec![Container {
            name: CONTAINER.to_owned(),
            image: Some(settings.image.to_owned()),
            image_pull_policy: pull_policy,
            command: Some(vec![format!("{}/{BINARY}", SUPERVISOR.path), "pod".to_owned()]),
            env: Some(environment(blueprint, settings.gateway)),
            resources,
            security_context: Some(confined()),
            termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
            volume_mounts: Some(vec![SUPERVISOR.mount(Some(true)), IDENTITY.mount(Some(true)), STATE.mount(None), WORKSPACE.mount(None)]),
            ..Container::default()
        }],
        volumes: Some(volumes),
        restart_policy: Some("Never".to_owned()),
        termination_grace_period_seconds: Some(limits::POD_GRACE.as_secs() as i64),
        dns_policy: Some("ClusterFirst".to_owned()),
        enable_service_links: Some(false),
        automount_service_account_token: Some(false),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            fs_group_change_policy: Some("OnRootMismatch".to_owned()),
            seccomp_profile: Some(runtime_default()),
            ..PodSecurityContext::default()
        }),
        runtime_class_name: asked.runtime_class_name.clone(),
        node_selector: (!asked.node_selector.is_empty()).then(|| asked.node_selector.clone()),
        tolerations: some(asked.tolerations.iter().map(toleration).collect()),
        image_pull_secrets: some(asked.image_pull_secrets.iter().map(|name| LocalObjectReference { name: name.clone() }).collect()),
        host_aliases: some(
            asked.host_aliases.iter().map(|a| HostAlias { ip: a.ip.clone(), hostnames: Some(a.hostnames.clone()) }).collect(),
        ),
        ..PodSpec::default()
    }
}

fn environment(blueprint: &SandboxBlueprint, gateway: &Gateway) -> Vec<EnvVar> {
    let text = |name: &str, value: &str| EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None };
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: Some("v1".to_owned()), field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
    };
    let (endpoint, server_name) = match &blueprint.pod.gateway_endpoint {
        None => (gateway.endpoint(), gateway.server_name()),
        Some(endpoint) => {
            let host = endpoint.trim_start_matches("https://").split(':').next().unwrap_or_default();
            (endpoint.clone(), host.to_owned())
        }
    };
    vec![
        text("OPENSHELL_SANDBOX_ID", &blueprint.uid),
        text("OPENSHELL_SANDBOX", &blueprint.name),
        text("OPENSHELL_GATEWAY_ENDPOINT", &endpoint),
        text("OPENSHELL_GATEWAY_SERVER_NAME", &server_name),
        field("OPENSHELL_INSTANCE_ID", "metadata.uid"),
    ]
}

fn supervisor_volume(settings: &Settings<'_>, policy: Option<ImagePullPolicy>) -> Volume {
    SUPERVISOR.with(match settings.sideload {
        SideloadMethod::ImageVolume => Volume {
            image: Some(ImageVolumeSource {
                reference: Some(settings.supervisor_image.to_owned()),
                pull_policy: policy.map(|policy| policy.as_str().to_owned()),
            }),
            ..Volume::default()
        },
        SideloadMethod::InitContainer => empty(),
    })
}

fn identity_volume(gateway: &Gateway) -> Volume {
    let sources = vec![
        VolumeProjection {
            service_account_token: Some(ServiceAccountTokenProjection {
                audience: Some(AUDIENCE.to_owned()),
                expiration_seconds: Some(limits::BOOTSTRAP_TOKEN.as_secs() as i64),
                path: "token".to_owned(),
            }),
            ..VolumeProjection::default()
        },
        VolumeProjection {
            config_map: Some(ConfigMapProjection {
                name: gateway.ca_config_map(),
                items: Some(vec![KeyToPath { key: "ca.crt".to_owned(), path: "ca.crt".to_owned(), mode: None }]),
                optional: None,
            }),
            ..VolumeProjection::default()
        },
    ];
    IDENTITY.with(Volume {
        projected: Some(ProjectedVolumeSource { sources: Some(sources), ..ProjectedVolumeSource::default() }),
        ..Volume::default()
    })
}

fn empty() -> Volume {
    Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// What Pod Security `restricted` asks of a container.
fn confined() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { add: None, drop: Some(vec!["ALL".to_owned()]) }),
        run_as_non_root: Some(true),
        seccomp_profile: Some(runtime_default()),
        ..SecurityContext::default()
    }
}

fn runtime_default() -> SeccompProfile {
    SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }
}

fn requirements(resources: &Resources) -> ResourceRequirements {
    let amounts = |amounts: &BTreeMap<String, openshell_crds::pod::Quantity>| {
        (!amounts.is_empty()).then(|| amounts.iter().map(|(name, amount)| (name.clone(), Quantity(amount.0.clone()))).collect())
    };
    let mut limits: Option<BTreeMap<_, _>> = amounts(&resources.limits);
    if let Some(gpu) = &resources.gpu {
        // The API server makes the request as large: of such a resource nobody has a part.
        limits.get_or_insert_default().insert(gpu.resource().to_owned(), Quantity(gpu.count.to_string()));
    }
    ResourceRequirements { requests: amounts(&resources.requests), limits, ..ResourceRequirements::default() }
}

fn toleration(toleration: &openshell_crds::pod::Toleration) -> Toleration {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Toleration {
        key: text(&toleration.key),
        operator: toleration.operator.map(|operator| operator.as_str().to_owned()),
        value: text(&toleration.value),
        effect: toleration.effect.map(|effect| effect.as_str().to_owned()),
        toleration_seconds: toleration.toleration_seconds,
    }
}

/// An absent list instead of an empty one.
fn some<T>(list: Vec<T>) -> Option<Vec<T>> {
    (!list.is_empty()).then_some(list)
}
