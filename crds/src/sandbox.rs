//! `OpenShellSandbox` (`ossb`): one agent, its policy, its providers.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::duration::{self, Duration};
use crate::pod::{HostAlias, Resources, SideloadMethod, Toleration, Workspace};

/// An agent to run under a policy.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "openshell.ai",
    version = "v1alpha1",
    kind = "OpenShellSandbox",
    plural = "openshellsandboxes",
    shortname = "ossb",
    category = "openshell",
    namespaced,
    status = "OpenShellSandboxStatus",
    derive = "PartialEq",
    doc = "An agent to run under a policy.",
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Policy", type_ = "integer", json_path = ".status.policy.acknowledgedRevision"),
    printcolumn(name = "Enforcement", type_ = "string", json_path = ".status.enforcement.level", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[schemars(extend("x-kubernetes-validations" = rules()))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OpenShellSandboxSpec {
    /// Program and arguments of the main process. Empty: none is started, and the sandbox
    /// waits for `exec` and `connect`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(max = 32768), regex(pattern = r"^[^\x00]*$")))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic", "x-kubernetes-validations" = [
        {"rule": "self.size() == 0 || self[0] != ''", "message": "the first entry names the program and must not be empty"},
    ]))]
    pub command: Vec<String>,
    /// Give the main process a terminal.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tty: bool,
    /// Environment of the main process and of every exec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 128))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub env: Vec<EnvVar>,
    /// A policy of this sandbox alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<crate::policy::PolicyDocument>,
    /// A `Policy` in the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy_ref: Option<LocalRef>,
    /// `Provider`s in the same namespace whose credentials the sandbox may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub provider_refs: Vec<LocalRef>,
    /// Stop the workload and keep its workspace.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub suspend: bool,
    /// Image whose files the agent sees. Its entry point is not run. Absent: the gateway's
    /// default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]*$"))]
    pub image: Option<String>,
    /// Compute resources. Absent: the gateway's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A volume for the workspace, which then outlives its pods. Absent: the gateway's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<Workspace>,
    /// Labels that a node must have.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32), transform = node_selector_values)]
    pub node_selector: BTreeMap<String, String>,
    /// Taints of nodes that the sandbox does not mind.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub tolerations: Vec<Toleration>,
    /// Secrets with which images are pulled, besides those of the gateway's default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub image_pull_secrets: Vec<LocalRef>,
    /// A `RuntimeClass`. Absent: the gateway's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub runtime_class_name: Option<String>,
    /// Names for addresses, in the sandbox's `/etc/hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["ip"]))]
    pub host_aliases: Vec<HostAlias>,
    /// How long the sandbox lives: counted from its creation, whatever it does in that time, a stop
    /// included. Then the object is deleted, and with it the workspace. It can be changed at any
    /// time; one that is over already deletes at once. From 1s to 8760h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = duration::bounds("1s", "8760h")))]
    pub ttl: Option<Duration>,
    /// How long nothing may happen in the sandbox until it is suspended, with its workspace kept.
    /// What happens: a main process that runs, an exec or attachment while it lasts, a start. Once
    /// suspended it stays so until someone starts it (`openshell sandbox start`). From 90s to 8760h.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = duration::bounds("90s", "8760h")))]
    pub idle_timeout: Option<Duration>,
}

impl OpenShellSandbox {
    /// Whether it is suspended: because its spec says so, or because nothing has happened in it for
    /// its idle timeout.
    pub fn is_suspended(&self) -> bool {
        self.spec.suspend || self.status.as_ref().is_some_and(|status| status.idle_since.is_some())
    }
}

/// Fields that a workload is started with and cannot change afterwards.
const FIXED: [&str; 11] = [
    "command",
    "tty",
    "env",
    "image",
    "resources",
    "workspace",
    "nodeSelector",
    "tolerations",
    "imagePullSecrets",
    "runtimeClassName",
    "hostAliases",
];

/// Rules over several fields of a spec, or over what it was before.
fn rules() -> Value {
    let unions = [json!({
        "rule": "!(has(self.policy) && has(self.policyRef))",
        "fieldPath": ".policyRef",
        "message": "set policy or policyRef, not both: an inline policy replaces a referenced one",
    })];
    let fixed = FIXED.map(|field| {
        let rule = match field {
            "tty" => "(has(self.tty) && self.tty) == (has(oldSelf.tty) && oldSelf.tty)".to_owned(),
            // Absent and empty are the same.
            "command" | "env" | "tolerations" | "imagePullSecrets" | "hostAliases" => {
                format!("(has(self.{field}) ? self.{field} : []) == (has(oldSelf.{field}) ? oldSelf.{field} : [])")
            }
            _ => format!("has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})"),
        };
        json!({
            "rule": rule,
            "fieldPath": format!(".{field}"),
            "message": format!("{field} is fixed when the sandbox is created; create another sandbox"),
        })
    });
    unions.into_iter().chain(fixed).collect()
}

/// Label values, as `k8s.io/apimachinery/pkg/util/validation` has them.
fn node_selector_values(schema: &mut Schema) {
    schema.insert(
        "additionalProperties".to_owned(),
        json!({ "type": "string", "maxLength": 63, "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$" }),
    );
}

/// The name of an object in the same namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LocalRef {
    /// A DNS subdomain, as every object's name.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub name: String,
}

/// One environment variable. Secrets come from providers, never from here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EnvVar {
    /// A shell identifier that does not begin with `OPENSHELL_`.
    #[schemars(length(min = 1, max = 256), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    #[schemars(extend("x-kubernetes-validations" = [{"rule": "!self.startsWith('OPENSHELL_')", "message": "names beginning with OPENSHELL_ are reserved"}]))]
    pub name: String,
    /// At most 8192 bytes.
    #[serde(default)]
    #[schemars(length(max = 8192), regex(pattern = r"^[^\x00]*$"))]
    pub value: String,
}

/// Where a sandbox is in its life, in one word, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Phase {
    /// On its way to `Ready`.
    #[default]
    Provisioning,
    /// The supervisor enforces the policy and the session is live.
    Ready,
    /// It will not become ready without someone's help.
    Error,
    /// Being deleted.
    Deleting,
    /// On its way to `Stopped`.
    Stopping,
    /// Suspended; the workspace is kept.
    Stopped,
    /// On its way from `Stopped` to `Ready`.
    Starting,
    /// The main process ended with exit code 0.
    Completed,
}

/// What is known of a sandbox. The operator owns `phase`, `driver`, `workload`, `sideloadMethod`,
/// `idleSince`, `stoppedInstance`, `observedGeneration` and its conditions; the gateway owns `session`, `policy`,
/// `mainProcess`, `enforcement` and its conditions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OpenShellSandboxStatus {
    /// Generation of the spec that the operator last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// For people; programs read the conditions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// Driver that runs the workload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
    /// The workload as the driver names it (process id, container, pod).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// How the supervisor got into the workload, where there was a choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sideload_method: Option<SideloadMethod>,
    /// The sandbox is suspended because nothing has happened in it since then (`spec.idleTimeout`).
    /// A later `session.lastActivity`, which `start` sets, ends that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_since: Option<Time>,
    /// Instance of the supervisor that was stopped last; empty if it had none. As long as `session` is
    /// still of that one, what is told of a main process is of the time before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_instance: Option<String>,
    /// For machines.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::conditions::schema")]
    pub conditions: Vec<Condition>,
    /// The supervisor's session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionStatus>,
    /// The policy, as desired and as acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyInForce>,
    /// The main process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main_process: Option<MainProcessStatus>,
    /// What the kernel holds for this sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<EnforcementStatus>,
}

/// The supervisor's session with the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// Identifies one supervisor process; the same over its reconnects.
    pub instance_id: String,
    /// Whether the session is live.
    pub connected: bool,
    /// Since when it has been so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
    /// When something was last done in it. Written at most once a minute, and only for a sandbox
    /// with an `idleTimeout`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_activity: Option<Time>,
    /// In a cluster: the token exchange that its sandbox token comes from. Tokens of earlier exchanges
    /// are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
}

/// The policy of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicyInForce {
    /// Newest revision accepted for this sandbox: 1, 2, ...
    pub revision: i64,
    /// Hash of that revision.
    pub hash: String,
    /// The policy itself as canonical JSON, while it is the only one that the sandbox has had. With a second
    /// one, both are recorded as `ControllerRevision`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<String>,
    /// Newest revision that the supervisor enforces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_revision: Option<i64>,
    /// Why `revision` is not in force, if the supervisor refused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// State of the main process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MainProcessState {
    /// Not started, or none wanted.
    #[default]
    None,
    /// Running.
    Running,
    /// Ended; `exitCode` says how.
    Exited,
    /// Could not be started; `reason` says why.
    Failed,
}

/// The main process.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct MainProcessStatus {
    /// Its state.
    pub state: MainProcessState,
    /// When it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Time>,
    /// 0 to 255, or 128 + signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 255))]
    pub exit_code: Option<i32>,
    /// Stable code when it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// How much of the promise the kernel can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EnforcementLevel {
    /// Every wall stands.
    Full,
    /// `reasons` says which wall is missing and what that means.
    Reduced,
}

/// What the kernel holds for this sandbox.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EnforcementStatus {
    /// `full` or `reduced`.
    pub level: EnforcementLevel,
    /// Stable reasons for `reduced`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// Landlock ABI in use; 0 without Landlock.
    #[schemars(range(min = 0, max = 1000))]
    pub landlock_abi: i32,
    /// The walls that stand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub walls: Vec<String>,
}
