//! Sandboxes.

use openshell_crds::OpenShellSandbox;
use openshell_crds::sandbox::{EnvVar, LocalRef, MainProcessState, OpenShellSandboxSpec, OpenShellSandboxStatus, Phase, PolicyInForce};
use openshell_proto::v1;

use super::template::{self, Pod};
use super::{meta, policy, time};

/// A sandbox as clients see it.
pub(crate) fn to_wire(object: &OpenShellSandbox) -> v1::Sandbox {
    v1::Sandbox {
        metadata: Some(meta::to_wire(&object.metadata)),
        spec: Some(spec_to_wire(&object.spec)),
        status: Some(status_to_wire(object)),
        ..v1::Sandbox::default()
    }
}

fn spec_to_wire(spec: &OpenShellSandboxSpec) -> v1::SandboxSpec {
    v1::SandboxSpec {
        environment: spec.env.iter().map(|v| (v.name.clone(), v.value.clone())).collect(),
        policy: spec.policy.as_ref().and_then(policy::to_wire),
        providers: spec.provider_refs.iter().map(|p| p.name.clone()).collect(),
        command: spec.command.clone(),
        tty: spec.tty,
        restart_policy: v1::SandboxRestartPolicy::Never.into(),
        template: template::to_wire(spec),
        resource_requirements: template::gpu_to_wire(spec),
        ..v1::SandboxSpec::default()
    }
}

/// The part of a wire spec that an object holds. Policy and template are validated by the caller, and
/// everything else in the message is refused there.
pub(crate) fn spec_from_wire(wire: &v1::SandboxSpec, policy: Option<&openshell_policy::Policy>, pod: Pod) -> OpenShellSandboxSpec {
    let mut env: Vec<EnvVar> = wire.environment.iter().map(|(k, v)| EnvVar { name: k.clone(), value: v.clone() }).collect();
    // A map has no order; objects that say the same shall be the same.
    env.sort_by(|a, b| a.name.cmp(&b.name));
    OpenShellSandboxSpec {
        command: wire.command.clone(),
        tty: wire.tty,
        env,
        policy: policy.map(policy::document),
        provider_refs: wire.providers.iter().map(|name| LocalRef { name: name.clone() }).collect(),
        image: pod.image,
        runtime_class_name: pod.runtime_class_name,
        resources: pod.resources,
        node_selector: pod.node_selector,
        tolerations: pod.tolerations,
        ..OpenShellSandboxSpec::default()
    }
}

fn status_to_wire(object: &OpenShellSandbox) -> v1::SandboxStatus {
    let default = OpenShellSandboxStatus::default();
    let status = object.status.as_ref().unwrap_or(&default);
    let main = status.main_process.as_ref();
    let instance = status.session.as_ref().map(|s| s.instance_id.clone()).unwrap_or_default();
    v1::SandboxStatus {
        agent_pod: status.workload.clone().unwrap_or_default(),
        conditions: status
            .conditions
            .iter()
            .map(|c| v1::SandboxCondition {
                r#type: c.type_.clone(),
                status: c.status.clone(),
                reason: c.reason.clone(),
                message: c.message.clone(),
                transition_time: Some(time::to_wire(&c.last_transition_time)),
            })
            .collect(),
        phase: phase(object).into(),
        current_policy_version: status.policy.as_ref().and_then(|p| p.acknowledged_revision).unwrap_or_default() as u32,
        configuration_admission: status.policy.as_ref().map(|p| admission(p, &instance)),
        configuration_activated: status.policy.as_ref().map(|p| p.acknowledged_revision == Some(p.revision)),
        main_process_instance_id: instance,
        exit_code: main.filter(|m| m.state == MainProcessState::Exited).and_then(|m| m.exit_code),
        main_process_started_time: main.and_then(|m| m.started_at.as_ref()).map(time::to_wire),
        ..v1::SandboxStatus::default()
    }
}

fn admission(policy: &PolicyInForce, instance: &str) -> v1::SandboxConfigurationAdmission {
    let state = match (&policy.error, policy.acknowledged_revision == Some(policy.revision)) {
        (Some(_), _) => v1::ConfigurationAdmissionState::Rejected,
        (None, true) => v1::ConfigurationAdmissionState::Accepted,
        (None, false) => v1::ConfigurationAdmissionState::Pending,
    };
    v1::SandboxConfigurationAdmission {
        instance_id: instance.to_owned(),
        state: state.into(),
        policy_version: policy.revision as u32,
        policy_hash: policy.hash.clone(),
        error: policy.error.clone().unwrap_or_default(),
        ..v1::SandboxConfigurationAdmission::default()
    }
}

/// The phase. The controllers write it a moment after the spec has changed; in that moment it
/// is what they are about to write, because a client that has just asked for a start must not
/// be told `Stopped`.
pub(crate) fn phase(object: &OpenShellSandbox) -> v1::SandboxPhase {
    if object.metadata.deletion_timestamp.is_some() {
        return v1::SandboxPhase::Deleting;
    }
    let status = object.status.as_ref();
    let Some(phase) = status.and_then(|s| s.phase) else { return v1::SandboxPhase::Provisioning };
    // Woken: somebody has started it since it was suspended for idleness.
    let last = status.and_then(|s| s.session.as_ref()?.last_activity.as_ref());
    let woken = status.and_then(|s| s.idle_since.as_ref()).zip(last).is_some_and(|(idle, last)| last > idle);
    let ahead = status.and_then(|s| s.observed_generation) < object.metadata.generation;
    match (object.spec.suspend, phase) {
        (true, Phase::Ready | Phase::Completed | Phase::Starting | Phase::Provisioning) if ahead => v1::SandboxPhase::Stopping,
        // One that was suspended for idleness stays so, whatever else changes in its spec.
        (false, Phase::Stopped | Phase::Stopping) if woken || (ahead && status.is_none_or(|s| s.idle_since.is_none())) => {
            v1::SandboxPhase::Starting
        }
        (_, Phase::Provisioning) => v1::SandboxPhase::Provisioning,
        (_, Phase::Ready) => v1::SandboxPhase::Ready,
        (_, Phase::Error) => v1::SandboxPhase::Error,
        (_, Phase::Deleting) => v1::SandboxPhase::Deleting,
        (_, Phase::Stopping) => v1::SandboxPhase::Stopping,
        (_, Phase::Stopped) => v1::SandboxPhase::Stopped,
        (_, Phase::Starting) => v1::SandboxPhase::Starting,
        (_, Phase::Completed) => v1::SandboxPhase::Completed,
    }
}
