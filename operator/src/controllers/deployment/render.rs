//! The objects of a gateway, as they should be. Pure.
//!
//! The pod is one that Pod Security `restricted` admits. It is replaced, never doubled
//! (`Recreate`): the sessions of supervisors are in its memory, and its data has one writer.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMap, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource, HTTPGetAction, LocalObjectReference,
    ObjectFieldSelector, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, PodSecurityContext, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, SeccompProfile, SecretVolumeSource, SecurityContext, Service, ServiceAccount,
    ServicePort, ServiceSpec, Toleration, Volume, VolumeMount, VolumeResourceRequirements,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource as _, ResourceExt as _};
use openshell_crds::OpenShellGateway;
use openshell_crds::deployment::{SERVICE_PORT, ServiceType};
use openshell_crds::pod;

/// Annotation of the pod: another value starts another pod.
pub(super) const CHECKSUM: &str = "openshell.ai/keys-checksum";
/// User and group of the gateway; what images without a distribution call nonroot.
const USER: i64 = 65532;
/// Port of the gateway in its pod.
const PORT: i32 = 8080;
/// Port of `/healthz` and `/readyz` in its pod.
const HEALTH_PORT: i32 = 8081;
/// Where the gateway finds its certificate.
const TLS_DIRECTORY: &str = "/etc/openshell/tls";
/// Where the gateway finds the key of its tokens.
const JWT_DIRECTORY: &str = "/etc/openshell/jwt";
/// Where the gateway writes.
const DATA_DIRECTORY: &str = "/var/openshell";
/// Names and addresses of every gateway, beside those of its Service: a forwarded port is one of these.
const LOCAL_NAMES: [&str; 5] = ["localhost", "openshell.localhost", "*.openshell.localhost", "127.0.0.1", "::1"];

/// Whom the pod trusts and when it must be started anew, from the keys.
pub(super) struct Trust<'a> {
    /// Everybody to trust, PEM.
    pub(super) bundle: &'a str,
    pub(super) checksum: &'a str,
}

/// What is made for a gateway, but for the Secrets.
#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Objects {
    pub(super) service_account: ServiceAccount,
    pub(super) service: Service,
    pub(super) authority: ConfigMap,
    /// The same in the namespace of the sandboxes, if that is another one.
    pub(super) authority_for_sandboxes: Option<ConfigMap>,
    pub(super) claim: Option<PersistentVolumeClaim>,
    pub(super) deployment: Deployment,
}

/// Names and addresses under which clients reach the gateway.
pub(super) fn server_names(gateway: &OpenShellGateway) -> Vec<String> {
    let (service, namespace) = (gateway.deployment_name(), gateway.namespace().unwrap_or_default());
    let mut names: Vec<String> = LOCAL_NAMES.iter().map(|&n| n.to_owned()).collect();
    names.push(service.clone());
    for suffix in ["", ".svc", ".svc.cluster.local"] {
        names.push(format!("{service}.{namespace}{suffix}"));
    }
    for name in further_names(gateway) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Names that the object asks for.
fn further_names(gateway: &OpenShellGateway) -> Vec<String> {
    let mut names = gateway.spec.tls.server_names.clone();
    if let Some(host) = gateway.spec.endpoint.as_deref().and_then(|url| url.strip_prefix("https://")) {
        names.push(host.split(':').next().unwrap_or(host).to_owned());
    }
    names
}

/// Labels of everything that is made for a gateway.
pub(super) fn labels(gateway: &OpenShellGateway) -> BTreeMap<String, String> {
    let mut labels = selector(gateway);
    for (key, value) in [("app.kubernetes.io/managed-by", "openshell-operator"), ("app.kubernetes.io/part-of", "openshell")] {
        labels.insert(key.to_owned(), value.to_owned());
    }
    labels
}

/// Labels that tell its pod.
pub(super) fn selector(gateway: &OpenShellGateway) -> BTreeMap<String, String> {
    [("app.kubernetes.io/name", "openshell-gateway".to_owned()), ("app.kubernetes.io/instance", gateway.name_any())]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// What is made for a gateway goes with it.
pub(super) fn owner(gateway: &OpenShellGateway) -> Option<OwnerReference> {
    gateway.controller_owner_ref(&())
}

/// Image of the gateway.
pub(super) fn image<'a>(gateway: &'a OpenShellGateway, default: &'a str) -> &'a str {
    gateway.spec.deployment.image.as_deref().unwrap_or(default)
}

/// The objects of `gateway`.
pub(super) fn render(gateway: &OpenShellGateway, trust: &Trust<'_>, default_image: &str) -> Objects {
    let name = gateway.deployment_name();
    let sandboxes = gateway.sandbox_namespace();
    let elsewhere = gateway.namespace().as_deref() != Some(&sandboxes);
    let authority = |metadata: ObjectMeta| ConfigMap {
        metadata,
        data: Some(BTreeMap::from([("ca.crt".to_owned(), trust.bundle.to_owned())])),
        ..ConfigMap::default()
    };
    Objects {
        service_account: ServiceAccount {
            metadata: metadata(gateway, &name),
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        },
        service: service(gateway, &name),
        authority: authority(metadata(gateway, &gateway.authority_name())),
        // No owner: owners are of the same namespace. The chart makes it, and takes it away.
        authority_for_sandboxes: elsewhere
            .then(|| authority(ObjectMeta { name: Some(gateway.authority_name()), namespace: Some(sandboxes), ..ObjectMeta::default() })),
        claim: claim(gateway, &name),
        deployment: deployment(gateway, &name, trust, default_image),
    }
}

fn metadata(gateway: &OpenShellGateway, name: &str) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: gateway.namespace(),
        labels: Some(labels(gateway)),
        owner_references: owner(gateway).map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn service(gateway: &OpenShellGateway, name: &str) -> Service {
    let wanted = &gateway.spec.service;
    let mut metadata = metadata(gateway, name);
    metadata.annotations = (!wanted.annotations.is_empty()).then(|| wanted.annotations.clone());
    Service {
        metadata,
        spec: Some(ServiceSpec {
            type_: Some(wanted.type_.unwrap_or(ServiceType::ClusterIP).as_str().to_owned()),
            selector: Some(selector(gateway)),
            ports: Some(vec![ServicePort {
                name: Some("grpc".to_owned()),
                port: wanted.port.unwrap_or(SERVICE_PORT),
                target_port: Some(IntOrString::String("grpc".to_owned())),
                protocol: Some("TCP".to_owned()),
                ..ServicePort::default()
            }]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn claim(gateway: &OpenShellGateway, name: &str) -> Option<PersistentVolumeClaim> {
    let storage = gateway.spec.deployment.storage.as_ref()?;
    Some(PersistentVolumeClaim {
        metadata: metadata(gateway, name),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: storage.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), Quantity(storage.size.0.clone()))])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        ..PersistentVolumeClaim::default()
    })
}

fn deployment(gateway: &OpenShellGateway, name: &str, trust: &Trust<'_>, default_image: &str) -> Deployment {
    let wanted = &gateway.spec.deployment;
    let mut pod_labels = wanted.pod_labels.clone();
    pod_labels.extend(labels(gateway));
    let mut annotations = wanted.pod_annotations.clone();
    annotations.insert(CHECKSUM.to_owned(), trust.checksum.to_owned());
    Deployment {
        metadata: metadata(gateway, name),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            revision_history_limit: Some(3),
            progress_deadline_seconds: Some(120),
            strategy: Some(DeploymentStrategy { type_: Some("Recreate".to_owned()), ..DeploymentStrategy::default() }),
            selector: LabelSelector { match_labels: Some(selector(gateway)), ..LabelSelector::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(pod_labels), annotations: Some(annotations), ..ObjectMeta::default() }),
                spec: Some(pod_spec(gateway, name, default_image)),
            },
            ..DeploymentSpec::default()
        }),
        ..Deployment::default()
    }
}

fn pod_spec(gateway: &OpenShellGateway, name: &str, default_image: &str) -> PodSpec {
    let wanted = &gateway.spec.deployment;
    let secrets: Vec<_> = wanted.image_pull_secrets.iter().map(|s| LocalObjectReference { name: s.name.clone() }).collect();
    PodSpec {
        service_account_name: Some(name.to_owned()),
        automount_service_account_token: Some(true),
        enable_service_links: Some(false),
        priority_class_name: wanted.priority_class_name.clone(),
        termination_grace_period_seconds: Some(30),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(USER),
            run_as_group: Some(USER),
            fs_group: Some(USER),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        image_pull_secrets: (!secrets.is_empty()).then_some(secrets),
        node_selector: (!wanted.node_selector.is_empty()).then(|| wanted.node_selector.clone()),
        tolerations: tolerations(gateway),
        containers: vec![container(gateway, default_image)],
        volumes: Some(volumes(gateway, name)),
        ..PodSpec::default()
    }
}

fn tolerations(gateway: &OpenShellGateway) -> Option<Vec<Toleration>> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let one = |t: &pod::Toleration| Toleration {
        key: text(&t.key),
        operator: t.operator.map(|o| o.as_str().to_owned()),
        value: text(&t.value),
        effect: t.effect.map(|e| e.as_str().to_owned()),
        toleration_seconds: t.toleration_seconds,
    };
    let wanted = &gateway.spec.deployment.tolerations;
    (!wanted.is_empty()).then(|| wanted.iter().map(one).collect())
}

fn container(gateway: &OpenShellGateway, default_image: &str) -> Container {
    let wanted = &gateway.spec.deployment;
    let port = |name: &str, number: i32| ContainerPort {
        name: Some(name.to_owned()),
        container_port: number,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    };
    let mount = |name: &str, path: &str, read_only: Option<bool>| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only,
        ..VolumeMount::default()
    };
    let probe = |path: &str, period: i32, failures: i32| Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::String("health".to_owned()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        timeout_seconds: Some(2),
        failure_threshold: Some(failures),
        ..Probe::default()
    };
    Container {
        name: "gateway".to_owned(),
        image: Some(image(gateway, default_image).to_owned()),
        image_pull_policy: wanted.image_pull_policy.map(|p| p.as_str().to_owned()),
        command: Some(vec!["/openshell-gateway".to_owned(), "cluster".to_owned()]),
        env: Some(environment(gateway)),
        ports: Some(vec![port("grpc", PORT), port("health", HEALTH_PORT)]),
        resources: Some(resources(gateway)),
        startup_probe: Some(probe("/healthz", 1, 60)),
        liveness_probe: Some(probe("/healthz", 10, 3)),
        readiness_probe: Some(probe("/readyz", 2, 3)),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Capabilities::default() }),
            ..SecurityContext::default()
        }),
        volume_mounts: Some(vec![
            mount("tls", TLS_DIRECTORY, Some(true)),
            mount("jwt", JWT_DIRECTORY, Some(true)),
            mount("data", DATA_DIRECTORY, None),
            mount("tmp", "/tmp", None),
        ]),
        ..Container::default()
    }
}

fn resources(gateway: &OpenShellGateway) -> ResourceRequirements {
    let wanted = &gateway.spec.deployment.resources;
    let quantities = |map: &BTreeMap<String, pod::Quantity>| {
        (!map.is_empty()).then(|| map.iter().map(|(name, amount)| (name.clone(), Quantity(amount.0.clone()))).collect())
    };
    ResourceRequirements { requests: quantities(&wanted.requests), limits: quantities(&wanted.limits), ..ResourceRequirements::default() }
}

fn environment(gateway: &OpenShellGateway) -> Vec<EnvVar> {
    let value = |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), ..EnvVar::default() };
    let mut environment = vec![
        value("OPENSHELL_GATEWAY_NAME", gateway.name_any()),
        EnvVar {
            name: "OPENSHELL_GATEWAY_NAMESPACE".to_owned(),
            value_from: Some(EnvVarSource {
                field_ref: Some(ObjectFieldSelector { field_path: "metadata.namespace".to_owned(), ..ObjectFieldSelector::default() }),
                ..EnvVarSource::default()
            }),
            ..EnvVar::default()
        },
        value("OPENSHELL_SANDBOX_NAMESPACE", gateway.sandbox_namespace()),
        value("OPENSHELL_BIND_ADDRESS", "0.0.0.0".to_owned()),
        value("OPENSHELL_SERVER_PORT", PORT.to_string()),
        value("OPENSHELL_HEALTH_PORT", HEALTH_PORT.to_string()),
        value("OPENSHELL_LOG_LEVEL", gateway.spec.deployment.log_level.clone().unwrap_or_else(|| "info".to_owned())),
        value("OPENSHELL_TLS_DIRECTORY", TLS_DIRECTORY.to_owned()),
        value("OPENSHELL_JWT_DIRECTORY", JWT_DIRECTORY.to_owned()),
        value("OPENSHELL_DATA_DIRECTORY", DATA_DIRECTORY.to_owned()),
    ];
    let names: Vec<String> = server_names(gateway).into_iter().filter(|name| !LOCAL_NAMES.contains(&name.as_str())).collect();
    environment.push(value("OPENSHELL_SERVER_SAN", names.join(",")));
    environment
}

fn volumes(gateway: &OpenShellGateway, name: &str) -> Vec<Volume> {
    let secret = |volume: &str, secret: String| Volume {
        name: volume.to_owned(),
        // Readable for the pod's group: the kubelet owns the files.
        secret: Some(SecretVolumeSource { secret_name: Some(secret), default_mode: Some(0o440), ..SecretVolumeSource::default() }),
        ..Volume::default()
    };
    let scratch = |limit: &str| EmptyDirVolumeSource { size_limit: Some(Quantity(limit.to_owned())), ..EmptyDirVolumeSource::default() };
    let mut data = Volume { name: "data".to_owned(), ..Volume::default() };
    if gateway.spec.deployment.storage.is_some() {
        data.persistent_volume_claim =
            Some(PersistentVolumeClaimVolumeSource { claim_name: name.to_owned(), ..PersistentVolumeClaimVolumeSource::default() });
    } else {
        data.empty_dir = Some(scratch("2Gi"));
    }
    vec![
        secret("tls", gateway.tls_secret_name()),
        secret("jwt", gateway.jwt_secret_name()),
        data,
        Volume { name: "tmp".to_owned(), empty_dir: Some(scratch("64Mi")), ..Volume::default() },
    ]
}
