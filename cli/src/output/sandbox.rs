//! Sandboxes as they are printed.

use std::collections::HashMap;

use openshell_proto::v1::{Sandbox, SandboxPhase};
use openshell_proto::value::object_from_wire;
use serde_json::{Map, Value, json};

use super::table::{Details, Table};
use super::{age, time, timestamp};
use crate::wait::phase;

/// The phase for people.
pub(crate) fn phase_word(phase: SandboxPhase) -> &'static str {
    match phase {
        SandboxPhase::Unspecified | SandboxPhase::Unknown => "Unknown",
        SandboxPhase::Provisioning => "Provisioning",
        SandboxPhase::Ready => "Ready",
        SandboxPhase::Error => "Error",
        SandboxPhase::Deleting => "Deleting",
        SandboxPhase::Stopping => "Stopping",
        SandboxPhase::Stopped => "Stopped",
        SandboxPhase::Starting => "Starting",
        SandboxPhase::Completed => "Completed",
    }
}

/// The keys of `sandbox list` and `create`.
pub(crate) fn value(sandbox: &Sandbox) -> Map<String, Value> {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    let mut map = Map::new();
    map.insert("id".into(), json!(metadata.id));
    map.insert("name".into(), json!(metadata.name));
    map.insert("workspace".into(), json!(metadata.workspace));
    map.insert("labels".into(), sorted(&metadata.labels));
    map.insert("annotations".into(), sorted(&metadata.annotations));
    map.insert("resource_version".into(), json!(metadata.resource_version));
    map.insert("created_at".into(), json!(time(metadata.created_time.as_ref())));
    map.insert("phase".into(), json!(phase_word(phase(sandbox))));
    map.insert("current_policy_version".into(), json!(sandbox.status.as_ref().map_or(0, |s| s.current_policy_version)));
    if let Some(code) = sandbox.status.as_ref().and_then(|s| s.exit_code) {
        map.insert("exit_code".into(), json!(code));
    }
    map
}

/// A map with its keys in order, so that equal objects print equally.
pub(crate) fn sorted(map: &HashMap<String, String>) -> Value {
    let ordered: std::collections::BTreeMap<_, _> = map.iter().collect();
    json!(ordered)
}

/// `sandbox list`.
pub(crate) fn table<'a>(sandboxes: impl IntoIterator<Item = &'a Sandbox>) -> String {
    let mut table = Table::new(["name", "phase", "policy", "labels", "age"]);
    for sandbox in sandboxes {
        let metadata = sandbox.metadata.clone().unwrap_or_default();
        let version = sandbox.status.as_ref().map_or(0, |s| s.current_policy_version);
        table.row([
            metadata.name.clone(),
            phase_word(phase(sandbox)).to_owned(),
            if version == 0 { String::new() } else { version.to_string() },
            labels(&metadata.labels),
            age(timestamp(metadata.created_time.as_ref())),
        ]);
    }
    table.render()
}

/// `key=value,…` in order.
pub(crate) fn labels(labels: &HashMap<String, String>) -> String {
    let mut pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.sort();
    pairs.join(",")
}

/// `sandbox get`.
pub(crate) fn details(sandbox: &Sandbox) -> String {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    let spec = sandbox.spec.clone().unwrap_or_default();
    let status = sandbox.status.clone().unwrap_or_default();
    let mut details = Details::default();
    details.add("Name", metadata.name.as_str());
    details.add("Id", metadata.id.as_str());
    details.add("Workspace", metadata.workspace.as_str());
    details.add("Phase", phase_word(phase(sandbox)));
    details.add("Exit code", status.exit_code.map(|c| c.to_string()).unwrap_or_default());
    details.add("Created", time(metadata.created_time.as_ref()).unwrap_or_default());
    details.add("Labels", labels(&metadata.labels));
    details.add("Command", shell_words(&spec.command));
    let template = spec.template.clone().unwrap_or_default();
    details.add("Image", template.image.as_str());
    details.add("Runtime class", template.runtime_class_name.as_str());
    details.add("Resources", template.resources.as_ref().map(|r| amounts(&object_from_wire(r))).unwrap_or_default());
    let mut environment: Vec<_> = spec.environment.iter().map(|(k, v)| format!("{k}={v}")).collect();
    environment.sort();
    details.add("Environment", environment.join("\n"));
    details.add("Providers", spec.providers.join(", "));
    if status.current_policy_version > 0 {
        details.add("Policy", format!("revision {}", status.current_policy_version));
    }
    let mut text = details.render();
    if !status.conditions.is_empty() {
        let mut table = Table::new(["condition", "status", "reason", "message"]);
        for condition in &status.conditions {
            table.row([&condition.r#type, &condition.status, &condition.reason, &condition.message]);
        }
        text.push('\n');
        text.push_str(&table.render());
    }
    text
}

/// `limits: cpu=2,memory=1Gi` and the same of requests, a line each.
fn amounts(resources: &Map<String, Value>) -> String {
    let line = |(list, amounts): (&String, &Value)| {
        let amounts = amounts.as_object().into_iter().flatten();
        let amounts = amounts.map(|(name, amount)| format!("{name}={}", amount.as_str().unwrap_or_default()));
        format!("{list}: {}", amounts.collect::<Vec<_>>().join(","))
    };
    resources.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A command as one would type it.
pub(crate) fn shell_words(command: &[String]) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c);
    let quote = |word: &String| {
        if !word.is_empty() && word.chars().all(plain) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) }
    };
    command.iter().map(quote).collect::<Vec<_>>().join(" ")
}
