//! What the state of a gateway's Deployment and pod means, in one reason and one sentence. Pure.
//!
//! | Reason | Ready | kstatus | What it means |
//! |---|---|---|---|
//! | `Available` | True | | the pod serves |
//! | `RollingOut` | False | Reconciling | the pod is made or replaced |
//! | `Starting` | False | Reconciling | the pod runs and does not answer `/readyz` yet |
//! | `ImagePullFailed` | False | Stalled | the image cannot be had |
//! | `Crashing` | False | Stalled | the gateway ends again and again |
//! | `ContainerFailed` | False | Stalled | the runtime cannot start the container |
//! | `Unschedulable` | False | Stalled | no node takes the pod |
//! | `PodSecurityDenied` | False | Stalled | Pod Security refuses the pod |
//! | `QuotaExceeded` | False | Stalled | a ResourceQuota leaves no room |
//! | `PodRefused` | False | Stalled | something else refuses the pod |
//! | `DeadlineExceeded` | False | Stalled | the pod did not become ready in time |
//! | `AuthorityUnusable`, `TokenKeyUnusable` | as it is | Stalled | a Secret holds something else; nothing is replaced |
//! | `SecretNotOurs` | as it is | Stalled | a Secret of that name belongs to somebody else |
//! | `Forbidden` | as it is | Stalled | the operator lacks a permission |
//! | `NamespaceMissing` | as it is | Stalled | the namespace of the sandboxes does not exist |
//! | `Refused` | as it is | Stalled | the API server refuses an object |
//! | `NotServed` | False | Stalled | this operator deploys a gateway of another name |

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};

/// Whether somebody must help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// All is as it should be.
    Settled,
    /// It goes on by itself.
    Working,
    /// It does not go on without help.
    Stuck,
}

/// Where a gateway is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) ready: bool,
    pub(super) progress: Progress,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Verdict {
    pub(super) fn stuck(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: false, progress: Progress::Stuck, reason, message: message.into() }
    }

    fn working(reason: &'static str, message: impl Into<String>) -> Self {
        Self { ready: false, progress: Progress::Working, reason, message: message.into() }
    }
}

/// The verdict on what the API has. `pods` are those of the gateway.
pub(super) fn judge(deployment: &Deployment, pods: &[Pod]) -> Verdict {
    let status = deployment.status.clone().unwrap_or_default();
    let current = status.observed_generation >= deployment.metadata.generation;
    let (updated, available) = (status.updated_replicas.unwrap_or(0), status.available_replicas.unwrap_or(0));
    if current && updated >= 1 && available >= 1 && status.replicas == Some(updated) {
        return Verdict { ready: true, progress: Progress::Settled, reason: "Available", message: "the gateway serves".to_owned() };
    }
    let condition = |kind: &str, is: &str| {
        let found = status.conditions.iter().flatten().find(|c| c.type_ == kind && c.status == is);
        found.filter(|_| current)
    };
    if let Some(refused) = condition("ReplicaFailure", "True") {
        return refusal(refused);
    }
    let live = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    if let Some(verdict) = live.max_by_key(|pod| pod.metadata.creation_timestamp.clone()).and_then(pod) {
        return verdict;
    }
    if condition("Progressing", "False").is_some_and(|c| c.reason.as_deref() == Some("ProgressDeadlineExceeded")) {
        return Verdict::stuck("DeadlineExceeded", format!("the pod did not become ready in time; {}", look(deployment, "describe pods")));
    }
    Verdict::working("RollingOut", "the pod is made or replaced; supervisors keep their policies meanwhile")
}

/// Why no pod could be made.
fn refusal(condition: &DeploymentCondition) -> Verdict {
    let why = condition.message.clone().unwrap_or_default();
    if why.contains("violates PodSecurity") {
        return Verdict::stuck(
            "PodSecurityDenied",
            format!("{why}. The pod of a gateway fits `restricted`: look for something that changes pods when they are made"),
        );
    }
    if why.contains("exceeded quota") || why.contains("failed quota") {
        return Verdict::stuck("QuotaExceeded", format!("{why}. Raise the ResourceQuota, or lower spec.deployment.resources"));
    }
    Verdict::stuck("PodRefused", why)
}

fn pod(pod: &Pod) -> Option<Verdict> {
    let status = pod.status.as_ref()?;
    let unschedulable = |c: &&k8s_openapi::api::core::v1::PodCondition| c.type_ == "PodScheduled" && c.status == "False";
    if let Some(condition) = status.conditions.iter().flatten().find(unschedulable) {
        let why = condition.message.clone().unwrap_or_default();
        return Some(Verdict::stuck("Unschedulable", format!("no node takes the pod: {why}")));
    }
    let container = status.container_statuses.iter().flatten().find(|c| c.name == "gateway")?;
    container_state(pod, container)
}

fn container_state(pod: &Pod, container: &ContainerStatus) -> Option<Verdict> {
    let state = container.state.clone().unwrap_or_default();
    if let Some(waiting) = state.waiting {
        let why = waiting.message.unwrap_or_default();
        return match waiting.reason.as_deref()? {
            "ErrImagePull"
            | "ImagePullBackOff"
            | "InvalidImageName"
            | "ErrImageNeverPull"
            | "ImageInspectError"
            | "RegistryUnavailable" => Some(Verdict::stuck(
                "ImagePullFailed",
                format!("the image {} cannot be had: {why}. Check spec.deployment.image and imagePullSecrets", container.image),
            )),
            "CrashLoopBackOff" => Some(crashing(pod, container)),
            reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" | "PreCreateHookError") => {
                Some(Verdict::stuck("ContainerFailed", format!("{reason}: {why}")))
            }
            _ => None,
        };
    }
    if state.terminated.is_some() {
        return Some(crashing(pod, container));
    }
    if state.running.is_some() && !container.ready {
        // Between two attempts it runs: that is no news, and would make the condition blink.
        if container.restart_count > 0 {
            return Some(crashing(pod, container));
        }
        return Some(Verdict::working("Starting", "the pod runs and does not answer /readyz yet"));
    }
    None
}

fn crashing(pod: &Pod, container: &ContainerStatus) -> Verdict {
    let of = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| state.clone().and_then(|s| s.terminated);
    let how = of(&container.state).or_else(|| of(&container.last_state)).map_or_else(
        || "it ended".to_owned(),
        |ended| match ended.reason.as_deref() {
            Some("OOMKilled") => "it needed more memory than spec.deployment.resources.limits allows".to_owned(),
            _ => format!("exit code {}", ended.exit_code),
        },
    );
    let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    Verdict::stuck("Crashing", format!("the gateway ends again and again: {how}. Read `kubectl -n {namespace} logs {name} --previous`"))
}

fn look(deployment: &Deployment, verb: &str) -> String {
    let namespace = deployment.metadata.namespace.as_deref().unwrap_or_default();
    format!("see `kubectl -n {namespace} {verb} -l app.kubernetes.io/name=openshell-gateway`")
}

/// Why an object could not be made.
pub(super) enum Obstacle {
    /// Trying again does not change it.
    Stuck(Verdict),
    /// It may go well the next time.
    Passing(kube::Error),
}

impl Obstacle {
    /// What an error means for `what` was tried.
    pub(super) fn of(error: kube::Error, what: &str) -> Self {
        refused(&error, what).map_or(Self::Passing(error), Self::Stuck)
    }
}

/// The verdict on an answer of the API server that trying again does not change.
fn refused(error: &kube::Error, what: &str) -> Option<Verdict> {
    let kube::Error::Api(status) = error else { return None };
    let why = &status.message;
    match status.code {
        403 if why.contains("exceeded quota") => Some(Verdict::stuck("QuotaExceeded", format!("{what}: {why}. Raise the ResourceQuota"))),
        403 => Some(Verdict::stuck(
            "Forbidden",
            format!("{what}: {why}. The chart grants what the operator needs for the gateway that it was installed with; install it again"),
        )),
        404 => Some(Verdict::stuck("NamespaceMissing", format!("{what}: {why}. Create the namespace of the sandboxes"))),
        400 | 422 => Some(Verdict::stuck("Refused", format!("{what}: {why}"))),
        _ => None,
    }
}
