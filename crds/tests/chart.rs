//! The templates of `charts/openshell-crds` are the manifests, with what Helm needs around them.
//!
//! `UPDATE_MANIFESTS=1 cargo test -p openshell-crds` writes them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

/// Tells Helm to leave a definition where it is when the chart goes.
const KEEP: &str = "\
metadata:
  {{- if .Values.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
";

fn template(manifest: &str) -> String {
    assert!(!manifest.contains("{{"), "Helm would read this as a template");
    assert_eq!(manifest.matches("\nmetadata:\n").count(), 1, "metadata of the definition is found by its line");
    manifest.replace("\nmetadata:\n", &format!("\n{KEEP}"))
}

#[test]
fn templates_are_current() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/openshell-crds/templates");
    let update = std::env::var_os("UPDATE_MANIFESTS").is_some();
    let manifests = openshell_crds::manifests::all();
    for (file, text) in &manifests {
        let (path, text) = (directory.join(file), template(text));
        if update {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(found == text, "{} is not current: run UPDATE_MANIFESTS=1 cargo test -p openshell-crds", path.display());
    }
    let yaml = std::fs::read_dir(&directory).unwrap().filter(|f| f.as_ref().unwrap().path().extension().is_some_and(|e| e == "yaml"));
    assert_eq!(yaml.count(), manifests.len(), "a template without a type");
}
