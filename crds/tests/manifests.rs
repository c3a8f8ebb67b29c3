//! The manifests that are checked in are the ones that the types give.
//!
//! `UPDATE_MANIFESTS=1 cargo test -p openshell-crds` writes them.
#![allow(clippy::unwrap_used)]

use std::path::Path;

#[test]
fn manifests_are_current() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let update = std::env::var_os("UPDATE_MANIFESTS").is_some();
    for (file, text) in openshell_crds::manifests::all() {
        let path = directory.join(file);
        if update {
            std::fs::write(&path, &text).unwrap();
        }
        let found = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(found, text, "{} is not current: run UPDATE_MANIFESTS=1 cargo test -p openshell-crds", path.display());
    }
    let expected = openshell_crds::manifests::all().len();
    assert_eq!(std::fs::read_dir(&directory).unwrap().count(), expected, "a manifest without a type");
}
