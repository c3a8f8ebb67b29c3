//! The definitions as files: what `kubectl apply -f crds/manifests` installs.

use serde_json::Value;

/// Name and text of every manifest, in the order in which they are applied.
pub fn all() -> Vec<(String, String)> {
    crate::all()
        .into_iter()
        .map(|definition| {
            let file = format!("{}_{}.yaml", definition.spec.group, definition.spec.names.plural);
            (file, render(&definition))
        })
        .collect()
}

fn render(definition: &impl serde::Serialize) -> String {
    let mut value = serde_json::to_value(definition).expect("a definition is plain data with string keys");
    sort(&mut value);
    let body = serde_saphyr::to_string(&value).expect("plain data with string keys is YAML");
    format!("# Generated from the types in crds/src by the tests of openshell-crds. Do not edit.\n---\n{body}")
}

/// Puts maps in order of their keys, so that a manifest changes only where its type does.
fn sort(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.sort_keys();
            map.values_mut().for_each(sort);
        }
        Value::Array(list) => list.iter_mut().for_each(sort),
        _ => {}
    }
}
