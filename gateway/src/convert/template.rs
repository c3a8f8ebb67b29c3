//! The template of a sandbox: what its pod is made of, where sandboxes are pods.
//!
//! Image, runtime class and resources stand in the template itself; nodes and taints in
//! `driver_config.kubernetes`, whose keys are those of the documented driver. A key that is not known
//! is refused with its path, as is a value that the objects do not take: nothing is dropped.

use std::collections::BTreeMap;

use openshell_crds::OpenShellSandboxSpec;
use openshell_crds::pod::{Gpu, Quantity, Resources, TaintEffect, Toleration, TolerationOperator};
use openshell_proto::v1;
use openshell_proto::value::{object_from_wire, object_to_wire};
use serde_json::{Map, Value, json};

use crate::errors::Violations;

/// The driver whose configuration this is, as requests name it.
const DRIVER: &str = "kubernetes";
const RESOURCES: &str = "spec.template.resources";
/// Where a request asks for GPUs.
pub(crate) const GPU: &str = "spec.resource_requirements.gpu";
const POD: &str = "spec.template.driver_config.kubernetes.pod";

/// What a request asks of the pod, as the object says it.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Pod {
    pub(crate) image: Option<String>,
    pub(crate) runtime_class_name: Option<String>,
    pub(crate) resources: Option<Resources>,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) tolerations: Vec<Toleration>,
}

/// What the template asks for; what is wrong with it is noted. What no object can say at all is for
/// the caller to refuse.
pub(crate) fn from_wire(template: &v1::SandboxTemplate, v: &mut Violations) -> Pod {
    let mut pod = Pod::default();
    if !template.image.is_empty() {
        if let Some(why) = wrong_image(&template.image) {
            v.add("spec.template.image", why);
        }
        pod.image = Some(template.image.clone());
    }
    if !template.runtime_class_name.is_empty() {
        pod.runtime_class_name = Some(class("spec.template.runtime_class_name", &template.runtime_class_name, v));
    }
    if let Some(given) = &template.resources {
        pod.resources = resources(RESOURCES, object_from_wire(given), v);
    }
    if let Some(given) = &template.driver_config {
        driver_config(object_from_wire(given), &mut pod, v);
    }
    pod
}

/// The GPUs that a request asks for, of the resource that is the usual one.
pub(crate) fn gpu_from_wire(asked: Option<&v1::ResourceRequirements>, pod: &mut Pod, v: &mut Violations) {
    let Some(gpu) = asked.and_then(|asked| asked.gpu.as_ref()) else { return };
    let count = gpu.count.unwrap_or(1);
    match i32::try_from(count).ok().filter(|count| (1..=Gpu::MOST).contains(count)) {
        Some(count) => pod.resources.get_or_insert_default().gpu = Some(Gpu { count, resource_name: None }),
        None => v.add(GPU, format!("{count} GPUs; ask for 1 to {}", Gpu::MOST)),
    }
}

/// The requirements that ask for it again.
pub(crate) fn gpu_to_wire(spec: &OpenShellSandboxSpec) -> Option<v1::ResourceRequirements> {
    let gpu = spec.resources.as_ref()?.gpu.as_ref()?;
    Some(v1::ResourceRequirements { gpu: Some(v1::GpuResourceRequirements { count: u32::try_from(gpu.count).ok() }) })
}

/// The template that asks for what the object says; none if it asks for nothing.
pub(crate) fn to_wire(spec: &OpenShellSandboxSpec) -> Option<v1::SandboxTemplate> {
    let mut pod = Map::new();
    if !spec.node_selector.is_empty() {
        pod.insert("node_selector".to_owned(), json!(spec.node_selector));
    }
    if !spec.tolerations.is_empty() {
        pod.insert("tolerations".to_owned(), spec.tolerations.iter().map(toleration_to_wire).collect());
    }
    let driver_config = (!pod.is_empty()).then(|| Map::from_iter([(DRIVER.to_owned(), json!({ "pod": pod }))]));
    // GPUs are asked for elsewhere.
    let amounts = spec.resources.as_ref().filter(|resources| !(resources.limits.is_empty() && resources.requests.is_empty()));
    let resources = amounts.map(|resources| {
        let lists = [("limits", &resources.limits), ("requests", &resources.requests)];
        lists.into_iter().filter(|(_, amounts)| !amounts.is_empty()).map(|(list, amounts)| (list.to_owned(), json!(amounts))).collect()
    });
    let template = v1::SandboxTemplate {
        image: spec.image.clone().unwrap_or_default(),
        runtime_class_name: spec.runtime_class_name.clone().unwrap_or_default(),
        resources: resources.map(object_to_wire),
        driver_config: driver_config.map(object_to_wire),
        ..v1::SandboxTemplate::default()
    };
    (template != v1::SandboxTemplate::default()).then_some(template)
}

/// What a request calls the field of an object, for refusals by whoever stores it.
pub(crate) fn field(path: &str) -> String {
    let names = [
        ("spec.image", "spec.template.image"),
        ("spec.runtimeClassName", "spec.template.runtime_class_name"),
        ("spec.resources.gpu", GPU),
        ("spec.resources", RESOURCES),
        ("spec.nodeSelector", "spec.template.driver_config.kubernetes.pod.node_selector"),
        ("spec.tolerations", "spec.template.driver_config.kubernetes.pod.tolerations"),
        ("spec.env", "spec.environment"),
        ("spec.providerRefs", "spec.providers"),
        ("metadata.name", "name"),
        ("metadata.labels", "labels"),
        ("metadata.annotations", "annotations"),
    ];
    let found = names.into_iter().find_map(|(object, request)| {
        let rest = path.strip_prefix(object)?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then(|| format!("{request}{rest}"))
    });
    found.unwrap_or_else(|| path.to_owned())
}

fn driver_config(mut given: Map<String, Value>, pod: &mut Pod, v: &mut Violations) {
    let root = "spec.template.driver_config";
    let own = given.remove(DRIVER);
    for other in given.keys() {
        v.add(format!("{root}.{other}"), format!("the sandboxes of this gateway are run by the {DRIVER} driver; leave it out"));
    }
    let Some(own) = own.and_then(|own| object(&format!("{root}.{DRIVER}"), own, v)) else { return };
    for (key, value) in own {
        let path = format!("{root}.{DRIVER}.{key}");
        match key.as_str() {
            "pod" => pod_config(value, pod, v),
            "containers" => containers(&path, value, pod, v),
            _ => unknown(path, v),
        }
    }
}

fn pod_config(given: Value, pod: &mut Pod, v: &mut Violations) {
    for (key, value) in object(POD, given, v).into_iter().flatten() {
        let path = format!("{POD}.{key}");
        match (key.as_str(), value) {
            ("node_selector", value) => {
                for (label, value) in object(&path, value, v).into_iter().flatten() {
                    if let Some(text) = text(&format!("{path}[{label:?}]"), value, v) {
                        pod.node_selector.insert(label, text);
                    }
                }
            }
            ("tolerations", Value::Array(list)) => {
                let read = list.into_iter().enumerate().filter_map(|(i, item)| toleration(&format!("{path}[{i}]"), item, v));
                pod.tolerations = read.collect();
            }
            ("tolerations", _) => v.add(path, "a list is expected"),
            ("runtime_class_name", value) => {
                let Some(name) = text(&path, value, v) else { continue };
                match &pod.runtime_class_name {
                    Some(other) if *other != name => v.add(path, format!("spec.template.runtime_class_name says {other:?}; name one")),
                    _ => pod.runtime_class_name = Some(class(&path, &name, v)),
                }
            }
            _ => unknown(path, v),
        }
    }
}

/// There is one container, `agent`, and of its settings only the resources are known.
fn containers(path: &str, given: Value, pod: &mut Pod, v: &mut Violations) {
    for (name, container) in object(path, given, v).into_iter().flatten() {
        let path = format!("{path}.{name}");
        if name != "agent" {
            unknown(path, v);
            continue;
        }
        for (key, value) in object(&path, container, v).into_iter().flatten() {
            let path = format!("{path}.{key}");
            match key.as_str() {
                "resources" if pod.resources.is_some() => v.add(path, format!("{RESOURCES} says them already; say them once")),
                "resources" => pod.resources = object(&path, value, v).and_then(|given| resources(&path, given, v)),
                _ => unknown(path, v),
            }
        }
    }
}

fn resources(path: &str, given: Map<String, Value>, v: &mut Violations) -> Option<Resources> {
    let mut resources = Resources::default();
    for (list, amounts) in given {
        let path = format!("{path}.{list}");
        let into = match list.as_str() {
            "limits" => &mut resources.limits,
            "requests" => &mut resources.requests,
            _ => {
                v.add(path, "resources have limits and requests; leave it out");
                continue;
            }
        };
        for (name, amount) in object(&path, amounts, v).into_iter().flatten() {
            let amount = match amount {
                Value::Number(number) => number.to_string(),
                Value::String(text) => text,
                _ => String::new(),
            };
            if is_quantity(&amount) {
                into.insert(name, Quantity(amount));
            } else {
                v.add(format!("{path}[{name:?}]"), format!("{amount:?} is no amount: write one such as 500m, 2 or 1Gi"));
            }
        }
    }
    (resources != Resources::default()).then_some(resources)
}

fn toleration(path: &str, given: Value, v: &mut Violations) -> Option<Toleration> {
    let mut toleration = Toleration::default();
    for (key, value) in object(path, given, v)? {
        let path = format!("{path}.{key}");
        match key.as_str() {
            "key" => toleration.key = text(&path, value, v).unwrap_or_default(),
            "value" => toleration.value = text(&path, value, v).unwrap_or_default(),
            "operator" => {
                let known = [TolerationOperator::Equal, TolerationOperator::Exists];
                toleration.operator = known.into_iter().find(|o| Some(o.as_str()) == value.as_str());
                if toleration.operator.is_none() {
                    v.add(path, "Equal or Exists is expected");
                }
            }
            "effect" => {
                let known = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule, TaintEffect::NoExecute];
                toleration.effect = known.into_iter().find(|e| Some(e.as_str()) == value.as_str());
                if toleration.effect.is_none() {
                    v.add(path, "NoSchedule, PreferNoSchedule or NoExecute is expected");
                }
            }
            "toleration_seconds" => {
                toleration.toleration_seconds = value.as_i64();
                if toleration.toleration_seconds.is_none() {
                    v.add(path, "a number of seconds is expected");
                }
            }
            _ => unknown(path, v),
        }
    }
    Some(toleration)
}

fn toleration_to_wire(toleration: &Toleration) -> Value {
    let texts = [
        ("key", toleration.key.as_str()),
        ("operator", toleration.operator.map_or("", TolerationOperator::as_str)),
        ("value", toleration.value.as_str()),
        ("effect", toleration.effect.map_or("", TaintEffect::as_str)),
    ];
    let mut map: Map<String, Value> = texts.into_iter().filter(|(_, t)| !t.is_empty()).map(|(k, t)| (k.to_owned(), json!(t))).collect();
    if let Some(seconds) = toleration.toleration_seconds {
        map.insert("toleration_seconds".to_owned(), json!(seconds));
    }
    Value::Object(map)
}

fn unknown(path: String, v: &mut Violations) {
    v.add(path, format!("the {DRIVER} driver has no such setting; leave it out"));
}

fn object(path: &str, given: Value, v: &mut Violations) -> Option<Map<String, Value>> {
    if let Value::Object(map) = given {
        return Some(map);
    }
    v.add(path, "an object is expected");
    None
}

fn text(path: &str, given: Value, v: &mut Violations) -> Option<String> {
    if let Value::String(text) = given {
        return Some(text);
    }
    v.add(path, "a text is expected");
    None
}

fn class(path: &str, name: &str, v: &mut Violations) -> String {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let label = |l: &str| {
        let b = l.as_bytes();
        edge(b.first()) && edge(b.last()) && b.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        v.add(path, "a RuntimeClass has a name of lower-case letters, digits, '-' and '.', at most 253 of them");
    }
    name.to_owned()
}

/// Why this names no image; the bounds of the object's field.
fn wrong_image(image: &str) -> Option<&'static str> {
    let begins = image.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let fits = image.len() <= 1024 && image.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:/@+-".contains(&b));
    (!begins || !fits).then_some("it is no image reference: write [registry/]name[:tag][@digest], at most 1024 characters")
}

/// Whether Kubernetes takes it as an amount of a resource (`k8s.io/apimachinery/pkg/api/resource`).
fn is_quantity(text: &str) -> bool {
    let number = text.strip_prefix('+').unwrap_or(text);
    let (digits, suffix) = number.split_at(number.bytes().position(|b| !b.is_ascii_digit() && b != b'.').unwrap_or(number.len()));
    let exponent = suffix.strip_prefix(['e', 'E']).map(|e| e.strip_prefix(['+', '-']).unwrap_or(e));
    let exponent = exponent.is_some_and(|e| matches!(e.len(), 1 | 2) && e.bytes().all(|b| b.is_ascii_digit()));
    let known = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "n", "u", "m", "k", "M", "G", "T", "P", "E"];
    text.len() <= 32
        && digits.bytes().any(|b| b.is_ascii_digit())
        && digits.matches('.').count() <= 1
        && (exponent || known.contains(&suffix))
}

#[cfg(test)]
mod tests;
