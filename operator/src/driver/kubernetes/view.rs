//! What is kept of a `Sandbox` and of a pod, and what state they make together. Pure.
//!
//! | Sandbox | Pod | State |
//! |---|---|---|
//! | none, or going | any | `Stopping` while something is there, then `Absent` |
//! | suspended | none, and the controller says so | `Suspended` |
//! | suspended | otherwise | `Stopping` |
//! | running | none | `Starting`, with what the controller says against it |
//! | running | going | `Stopping`: the controller makes another one after it |
//! | running | pending | `Starting`, with what scheduler and kubelet say against it |
//! | running | runs | `Running` |
//! | running | ended by its node | `Lost` |
//! | running | ended | `Failed`, with what the container said last |

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ContainerStatus, Pod, PodStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use openshell_crds::agents::{self, ClaimTemplate, OperatingMode, Sandbox};
use openshell_crds::pod::SideloadMethod;
use openshell_crds::{OpenShellSandbox, conditions, labels};
use serde::Deserialize;

use super::render;
use crate::driver::{Waiting, WorkloadState};
use crate::limits;

/// Reasons of a waiting container that say that it will not start by itself
/// (`pkg/kubelet/kuberuntime`, `pkg/kubelet/images`).
const IMAGE_REASONS: [&str; 6] =
    ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError", "RegistryUnavailable"];
const START_REASONS: [&str; 5] =
    ["CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CreatePodSandboxError", "ConfigPodSandboxError"];
/// Reasons of a failed pod that its containers have nothing to do with (`pkg/kubelet/eviction`,
/// `nodeshutdown`, `lifecycle`; `pkg/controller/node`). What the kubelet did not admit never ran.
const NODE_REASONS: [&str; 8] = [
    "Evicted",
    "Preempting",
    "NodeShutdown",
    "Terminated",
    "NodeLost",
    "NodeAffinity",
    "UnexpectedAdmissionError",
    "TopologyAffinityError",
];

/// Exit codes of a supervisor that failed and has said why (docs/ARCHITECTURE.md).
const FAILED: [i32; 4] = [64, 69, 70, 75];

/// The reason of a pod that is not started and of which nobody says why.
pub(super) const NOT_STARTED: &str = "PodNotStarted";

/// What is kept of an object.
pub(super) trait View: Sized {
    type Object: Resource;

    /// The sandbox that it is for, and what is kept of it. `None` if it is not one of ours.
    fn of(object: &Self::Object, now: Timestamp) -> Option<(String, Self)>;

    /// What goes on from before has the time from which it does.
    fn after(self, before: &Self) -> Self;

    fn uid(&self) -> &str;
}

/// What is kept of a `Sandbox`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SandboxView {
    pub(super) uid: String,
    pub(super) name: String,
    generation: Option<i64>,
    /// Since when it has been seen in this generation.
    pub(super) since: Timestamp,
    pub(super) mode: OperatingMode,
    pub(super) deleting: bool,
    /// Reason and message of its `Ready`, if that is of this generation.
    pub(super) ready: Option<(String, String)>,
    pub(super) suspended: bool,
    pub(super) sideload: Option<SideloadMethod>,
    pub(super) claims: Vec<ClaimTemplate>,
}

impl View for SandboxView {
    type Object = Sandbox;

    /// Not ours is one whose controller is another one than its label says.
    fn of(sandbox: &Sandbox, now: Timestamp) -> Option<(String, Self)> {
        let owner = controller(&sandbox.metadata)?;
        let ours = group(owner) == openshell_crds::GROUP && owner.kind == OpenShellSandbox::kind(&());
        if !ours || labelled(&sandbox.metadata)? != owner.uid {
            return None;
        }
        let status = sandbox.status.clone().unwrap_or_default();
        let ready = conditions::find(&status.conditions, "Ready")
            .filter(|ready| ready.observed_generation.is_none_or(|seen| Some(seen) >= sandbox.metadata.generation))
            .map(|ready| (ready.reason.clone(), ready.message.clone()));
        let says_suspended = conditions::is_true(&status.conditions, "Suspended");
        let gone_quiet = ready.as_ref().is_some_and(|(reason, _)| reason == "SandboxSuspended");
        let view = Self {
            uid: sandbox.metadata.uid.clone()?,
            name: sandbox.metadata.name.clone()?,
            generation: sandbox.metadata.generation,
            since: now,
            mode: sandbox.spec.running(),
            deleting: sandbox.metadata.deletion_timestamp.is_some(),
            suspended: says_suspended || gone_quiet || status.replicas == Some(0),
            ready,
            sideload: sandbox
                .metadata
                .annotations
                .iter()
                .flatten()
                .find_map(|(key, value)| (key == labels::SIDELOAD).then(|| SideloadMethod::parse(value)).flatten()),
            claims: sandbox.spec.volume_claim_templates.clone(),
        };
        Some((owner.uid.clone(), view))
    }

    /// The same generation goes on.
    fn after(mut self, before: &Self) -> Self {
        if self.uid == before.uid && self.generation == before.generation {
            self.since = before.since;
        }
        self
    }

    fn uid(&self) -> &str {
        &self.uid
    }
}

/// Where a pod is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not running yet, and what speaks against it.
    Pending(Option<(String, String)>),
    /// The supervisor's container runs.
    Running,
    /// Its node ended it.
    Lost(String, String),
    /// It ended.
    Ended(String, String),
}

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PodView {
    pub(super) uid: String,
    pub(super) name: String,
    /// UID of the `Sandbox` that controls it.
    pub(super) sandbox: String,
    pub(super) deleting: bool,
    pub(super) stage: Stage,
    /// Since when it has been seen in that stage.
    pub(super) since: Timestamp,
}

impl View for PodView {
    type Object = Pod;

    /// The sandbox is that of its label.
    fn of(pod: &Pod, now: Timestamp) -> Option<(String, Self)> {
        let owner = controller(&pod.metadata).filter(|owner| group(owner) == agents::GROUP && owner.kind == agents::KIND)?;
        let view = Self {
            uid: pod.metadata.uid.clone()?,
            name: pod.metadata.name.clone()?,
            sandbox: owner.uid.clone(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            stage: stage(pod.status.as_ref()),
            since: now,
        };
        Some((labelled(&pod.metadata)?.to_owned(), view))
    }

    /// The same stage goes on.
    fn after(mut self, before: &Self) -> Self {
        if self.uid == before.uid && std::mem::discriminant(&self.stage) == std::mem::discriminant(&before.stage) {
            let same_cause = match (&self.stage, &before.stage) {
                (Stage::Pending(now), Stage::Pending(then)) => {
                    now.as_ref().map(|(reason, _)| reason) == then.as_ref().map(|(reason, _)| reason)
                }
                _ => true,
            };
            if same_cause {
                self.since = before.since;
            }
        }
        self
    }

    fn uid(&self) -> &str {
        &self.uid
    }
}

/// UIDs of what is there, as one state.
pub(super) fn state(sandbox: Option<&SandboxView>, pod: Option<&PodView>) -> WorkloadState {
    let Some(sandbox) = sandbox else {
        return if pod.is_some() { WorkloadState::Stopping } else { WorkloadState::Absent };
    };
    if sandbox.deleting {
        return WorkloadState::Stopping;
    }
    let pod = pod.filter(|pod| pod.sandbox == sandbox.uid);
    match (sandbox.mode, pod) {
        (OperatingMode::Suspended, None) if sandbox.suspended => WorkloadState::Suspended,
        (OperatingMode::Suspended, _) => WorkloadState::Stopping,
        (OperatingMode::Running, None) => WorkloadState::Starting { waiting: Some(without_pod(sandbox)) },
        (OperatingMode::Running, Some(pod)) if pod.deleting => WorkloadState::Stopping,
        (OperatingMode::Running, Some(pod)) => match &pod.stage {
            Stage::Pending(None) => WorkloadState::Starting { waiting: Some(silent(pod)) },
            Stage::Pending(Some((reason, message))) => WorkloadState::Starting {
                waiting: Some(Waiting { reason: reason.clone(), message: message.clone(), from: after(pod.since, limits::WAITING_MOMENT) }),
            },
            Stage::Running => WorkloadState::Running { id: pod.name.clone(), instance: Some(pod.uid.clone()), since: Some(pod.since) },
            Stage::Lost(code, message) => WorkloadState::Lost { code: code.clone(), message: message.clone(), at: pod.since },
            Stage::Ended(code, message) => WorkloadState::Failed { code: code.clone(), message: message.clone(), at: pod.since },
        },
    }
}

/// Nothing speaks against it.
fn on_its_way() -> Waiting {
    Waiting { reason: "Starting".to_owned(), message: "the workload is being started".to_owned(), from: Timestamp::UNIX_EPOCH }
}

/// Nothing speaks against it yet. What the kubelet cannot mount, it says in events alone.
fn silent(pod: &PodView) -> Waiting {
    Waiting {
        reason: NOT_STARTED.to_owned(),
        message: format!("the containers of pod \"{}\" have not been started; its events say why", pod.name),
        from: after(pod.since, limits::SILENT_START),
    }
}

/// Why there is no pod.
fn without_pod(sandbox: &SandboxView) -> Waiting {
    let from = after(sandbox.since, limits::WAITING_MOMENT);
    match &sandbox.ready {
        None => Waiting {
            reason: "AgentSandboxNotResponding".to_owned(),
            message: format!(
                "the Sandbox \"{}\" is there and nobody has taken it up; see whether the agent-sandbox controller runs (namespace agent-sandbox-system)",
                sandbox.name
            ),
            from: after(sandbox.since, limits::CONTROLLER_SILENCE),
        },
        Some((reason, message)) => {
            let (code, what) = match reason.as_str() {
                _ if message.contains("violates PodSecurity") => ("PodSecurityRefused", "Pod Security refuses the pod"),
                _ if message.contains("exceeded quota") => ("QuotaExceeded", "the namespace's quota refuses the pod"),
                "ReconcilerError" | "InvalidConfiguration" => ("PodRefused", "the pod cannot be made"),
                "MultiplePods" => ("MultiplePods", "more than one pod has this Sandbox as its controller"),
                _ => return on_its_way(),
            };
            Waiting { reason: code.to_owned(), message: format!("{what}: {message}"), from }
        }
    }
}

/// Where a pod is in its life.
fn stage(status: Option<&PodStatus>) -> Stage {
    let Some(status) = status else { return Stage::Pending(None) };
    let containers = || status.init_container_statuses.iter().flatten().chain(status.container_statuses.iter().flatten());
    let agent = status.container_statuses.iter().flatten().find(|container| container.name == render::CONTAINER);
    match status.phase.as_deref() {
        Some("Failed" | "Succeeded") => ended(status, agent, containers()),
        Some("Running") if agent.is_some_and(|agent| agent.state.as_ref().is_some_and(|state| state.running.is_some())) => Stage::Running,
        _ => Stage::Pending(unscheduled(status).or_else(|| containers().find_map(held_up))),
    }
}

/// What the scheduler says.
fn unscheduled(status: &PodStatus) -> Option<(String, String)> {
    let condition = status.conditions.iter().flatten().find(|c| c.type_ == "PodScheduled" && c.status == "False")?;
    let message = condition.message.clone().unwrap_or_default();
    Some(("Unschedulable".to_owned(), format!("no node takes the pod: {message}")))
}

/// What keeps a container, if it is nothing that passes by itself.
fn held_up(container: &ContainerStatus) -> Option<(String, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    if IMAGE_REASONS.contains(&reason) {
        // The kubelet says the same in two ways by turns; what differs would be another status
        // every few seconds.
        let cause = match message.split_once(": ") {
            Some((back_off, cause)) if back_off.starts_with("Back-off pulling image") => cause,
            _ => message,
        };
        let cause = cause.strip_prefix("ErrImagePull: ").unwrap_or(cause);
        let message = if message.starts_with("Back-off pulling image") && cause == message { "" } else { cause };
        return Some(("ImagePullFailed".to_owned(), format!("the image \"{}\" cannot be had: {}", container.image, or(message, reason))));
    }
    START_REASONS.contains(&reason).then(|| {
        ("ContainerNotStarted".to_owned(), format!("the container \"{}\" cannot be started: {}", container.name, or(message, reason)))
    })
}

fn or<'a>(text: &'a str, otherwise: &'a str) -> &'a str {
    if text.is_empty() { otherwise } else { text }
}

/// How it ended.
fn ended<'a>(status: &PodStatus, agent: Option<&ContainerStatus>, mut containers: impl Iterator<Item = &'a ContainerStatus>) -> Stage {
    let message = status.message.clone().unwrap_or_default();
    let disrupted = status.conditions.iter().flatten().any(|c| c.type_ == "DisruptionTarget" && c.status == "True");
    if let Some(reason) = status.reason.as_deref()
        && (disrupted || NODE_REASONS.contains(&reason) || reason.starts_with("OutOf"))
    {
        return Stage::Lost(reason.to_owned(), format!("the node ended the pod: {}", or(&message, reason)));
    }
    if disrupted {
        return Stage::Lost("Disrupted".to_owned(), format!("the node ended the pod: {}", or(&message, "it was disrupted")));
    }
    if status.reason.as_deref() == Some("DeadlineExceeded") {
        return Stage::Ended("DeadlineExceeded".to_owned(), message);
    }
    let terminated = |container: &ContainerStatus| container.state.as_ref().and_then(|state| state.terminated.clone());
    if let Some(end) = agent.and_then(terminated) {
        let said = end.message.unwrap_or_default();
        // A supervisor that fails writes them over whatever was there. One that was killed does not: then they could be an
        // agent's, if its policy lets it write below /dev.
        if FAILED.contains(&end.exit_code)
            && let Ok(Failure { code, message }) = serde_json::from_str(said.trim())
            && is_reason(&code)
        {
            return Stage::Ended(code, message);
        }
        let last = said.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
        let (code, what) = match (end.reason.as_deref(), end.exit_code) {
            // What it said last is not why.
            (Some("OOMKilled"), _) => {
                return Stage::Ended("OutOfMemory".to_owned(), "the sandbox used more memory than its limit".to_owned());
            }
            (Some("StartError" | "ContainerCannotRun"), _) => {
                ("SupervisorNotStarted", "the supervisor could not be started in the image".to_owned())
            }
            (_, 0) => ("SupervisorEnded", "the supervisor ended as it was asked to".to_owned()),
            (_, 64) => ("BadBootstrap", "the supervisor cannot use what it was given".to_owned()),
            (_, 69) => ("EnforcementUnavailable", "the supervisor cannot enforce the policy on this node".to_owned()),
            (_, code) => ("SupervisorDied", format!("the supervisor ended with exit code {code}")),
        };
        return Stage::Ended(code.to_owned(), if last.is_empty() { what } else { format!("{what}: {last}") });
    }
    let failed = containers.find_map(|container| terminated(container).filter(|end| end.exit_code != 0).map(|end| (container, end)));
    match failed {
        Some((container, end)) => Stage::Ended(
            "SupervisorSideloadFailed".to_owned(),
            format!(
                "the container \"{}\" ended with exit code {}: {}; see whether its image holds the supervisor",
                container.name,
                end.exit_code,
                or(end.message.as_deref().unwrap_or_default().trim(), end.reason.as_deref().unwrap_or("it says no reason"))
            ),
        ),
        None => Stage::Ended(
            "PodFailed".to_owned(),
            format!("the pod failed: {}", or(&message, status.reason.as_deref().unwrap_or("it says no reason"))),
        ),
    }
}

/// Whether it can be the reason of a condition.
fn is_reason(code: &str) -> bool {
    code.len() <= 64 && code.starts_with(|c: char| c.is_ascii_uppercase()) && code.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// What a supervisor leaves as its last message.
#[derive(Deserialize)]
struct Failure {
    code: String,
    message: String,
}

fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))
}

/// The group alone: versions come and go, and an owner keeps the one it was written with.
fn group(owner: &OwnerReference) -> &str {
    owner.api_version.split_once('/').map_or("", |(group, _)| group)
}

fn labelled(meta: &ObjectMeta) -> Option<&str> {
    meta.labels.as_ref()?.get(labels::SANDBOX_ID).map(String::as_str)
}

fn after(time: Timestamp, wait: Duration) -> Timestamp {
    SignedDuration::try_from(wait).ok().and_then(|wait| time.checked_add(wait).ok()).unwrap_or(Timestamp::MAX)
}
