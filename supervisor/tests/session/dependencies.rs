//! What the supervisor must never link.

use std::process::Command;

#[test]
fn no_kubernetes_client() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--offline", "--locked", "-p", "openshell-supervisor", "-e", "normal,build", "--prefix", "none", "--no-dedupe"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output();
    if tree.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        eprintln!("not run: this user cannot reach the toolchain; the tree is the same whoever asks");
        return;
    }
    let tree = tree.unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(tree.contains("openshell-policy "), "{tree}");
    for banned in ["kube", "k8s-openapi", "openshell-operator", "openshell-gateway", "openshell-crds", "sqlx"] {
        let found =
            tree.lines().find(|line| line.split(' ').next().is_some_and(|name| name == banned || name.starts_with(&format!("{banned}-"))));
        assert_eq!(found, None, "{banned}");
    }
}
