//! Writes JSON schemas that kubeconform reads, one for each kind that the charts render:
//! `cargo run -p openshell-crds --example schemas -- DIRECTORY`.
//!
//! They are closed: what a schema does not name is refused.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use k8s_openapi::api::{apps::v1 as apps, coordination::v1 as coordination, core::v1 as core, policy::v1 as policy, rbac::v1 as rbac};
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Value, json};

fn main() {
    let directory = std::env::args().nth(1).expect("a directory");
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory).unwrap();
    write::<apps::Deployment>(directory, "deployment_v1");
    write::<coordination::Lease>(directory, "lease_v1");
    write::<core::ConfigMap>(directory, "configmap_v1");
    write::<core::Pod>(directory, "pod_v1");
    write::<core::Service>(directory, "service_v1");
    write::<core::ServiceAccount>(directory, "serviceaccount_v1");
    write::<policy::PodDisruptionBudget>(directory, "poddisruptionbudget_v1");
    write::<rbac::ClusterRole>(directory, "clusterrole_v1");
    write::<rbac::ClusterRoleBinding>(directory, "clusterrolebinding_v1");
    write::<rbac::Role>(directory, "role_v1");
    write::<rbac::RoleBinding>(directory, "rolebinding_v1");
    for definition in openshell_crds::all() {
        let value = serde_json::to_value(&definition).unwrap();
        let mut schema = value["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        for (name, kind) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            schema["properties"][name] = json!({ "type": kind });
        }
        save(directory, &format!("{}_v1alpha1", definition.spec.names.kind.to_lowercase()), schema);
    }
}

fn write<K: JsonSchema>(directory: &Path, name: &str) {
    save(directory, name, SchemaGenerator::default().into_root_schema_for::<K>().to_value());
}

fn save(directory: &Path, name: &str, mut schema: Value) {
    close(&mut schema);
    std::fs::write(directory.join(format!("{name}.json")), schema.to_string()).unwrap();
}

/// Refuses what an object's schema does not name, there and in every schema in it.
fn close(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else { return };
    let open = map.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true));
    if map.contains_key("properties") && !map.contains_key("additionalProperties") && !open {
        map.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
    if map.remove("x-kubernetes-int-or-string").is_some() {
        map.insert("type".to_owned(), json!(["integer", "string"]));
    }
    // The formats of OpenAPI are not those of JSON schema.
    map.remove("format");
    for (key, inner) in map {
        match (key.as_str(), inner) {
            ("properties" | "$defs" | "definitions", Value::Object(named)) => named.values_mut().for_each(close),
            ("anyOf" | "allOf" | "oneOf", Value::Array(list)) => list.iter_mut().for_each(close),
            ("items" | "additionalProperties" | "not", inner) => close(inner),
            _ => {}
        }
    }
}
