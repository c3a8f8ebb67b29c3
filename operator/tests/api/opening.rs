//! Opening a store: what must work, and each way in which it must say no.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use openshell_operator::api::{LocalApi, OpenError, Options};
use serde_json::json;

use crate::common::{Store, sandbox};

#[tokio::test]
async fn files_are_for_the_owner_alone() {
    let store = Store::new().await;
    store.sandboxes().create(&PostParams::default(), &sandbox("a")).await.unwrap();
    for entry in fs::read_dir(store.directory.path()).unwrap() {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o077, 0, "{:?}", entry.path());
    }
}

#[tokio::test]
async fn one_store_has_one_owner() {
    let store = Store::new().await;
    let error = LocalApi::open(&store.database(), &store.key()).await.err().unwrap();
    assert!(matches!(error, OpenError::Locked(_)), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    drop(store.reopen().await);
}

#[tokio::test]
async fn a_newer_database_is_refused() {
    let store = Store::new().await;
    sqlx::query("UPDATE schema_versions SET version = 99").execute(&store.api.pool()).await.unwrap();
    let (database, key) = (store.database(), store.key());
    let Store { directory: _directory, api } = store;
    api.close().await;
    let error = LocalApi::open(&database, &key).await.err().unwrap();
    assert!(matches!(error, OpenError::Newer { found: 99, .. }), "{error}");
}

#[tokio::test]
async fn damage_and_lost_keys_are_named() {
    let store = Store::new().await;
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::default_namespaced(store.client());
    let secret = serde_json::from_value(json!({ "metadata": { "name": "s" }, "stringData": { "k": "v" } })).unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let (database, key) = (store.database(), store.key());
    let Store { directory: _directory, api } = store;
    api.close().await;

    let bytes = fs::read(&key).unwrap();
    fs::remove_file(&key).unwrap();
    let error = LocalApi::open(&database, &key).await.err().unwrap();
    assert!(error.to_string().contains("it is missing although the database holds sealed values"), "{error}");
    assert!(!key.exists(), "no new key is made over sealed values");
    fs::write(&key, &bytes).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let error = LocalApi::open(&database, &key).await.err().unwrap();
    assert!(error.to_string().contains("chmod 600"), "{error}");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&key, "short").unwrap();
    let error = LocalApi::open(&database, &key).await.err().unwrap();
    assert!(matches!(error, OpenError::SealKey { .. }), "{error}");
    fs::write(&key, [7; 32]).unwrap();
    let api = LocalApi::open(&database, &key).await.unwrap();
    let label = Patch::Merge(json!({ "metadata": { "labels": { "openshell.ai/credential": "true" } } }));
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::default_namespaced(api.client());
    secrets.patch("s", &PatchParams::default(), &label).await.unwrap();
    let error = api.secrets().read("openshell", "s").await.unwrap_err();
    assert!(error.to_string().contains("does not open with this key"), "{error}");
    drop(secrets);
    api.close().await;

    fs::write(&database, "not a database, not at all, but long enough to be looked at as one".repeat(100)).unwrap();
    let error = LocalApi::open(&database, &key).await.err().unwrap();
    assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
}

#[tokio::test]
async fn directories_that_cannot_be_used_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = LocalApi::open(&file.join("openshell.db"), &directory.path().join("k")).await.err().unwrap();
    assert!(matches!(error, OpenError::Access { .. }), "{error}");
    let error = LocalApi::open(directory.path(), &directory.path().join("k")).await.err().unwrap();
    assert!(matches!(error, OpenError::Access { .. }), "{error}");
    if rustix::process::getuid().is_root() {
        return; // root may write everywhere
    }
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).unwrap();
    let error = LocalApi::open(&directory.path().join("openshell.db"), &directory.path().join("k")).await.err().unwrap();
    assert!(matches!(error, OpenError::Access { .. }), "{error}");
}

#[tokio::test]
async fn a_full_store_refuses_the_write_and_nothing_is_half_written() {
    // SQLite's own bound on pages stands in for the disk's.
    let store = Store::with(Options::default().pages(24)).await;
    let api = store.sandboxes();
    let before = api.create(&PostParams::default(), &sandbox("a")).await.unwrap();
    let mut big = sandbox("big");
    big.metadata.annotations = Some([("x".to_owned(), "y".repeat(200_000))].into());
    let refusal = crate::common::refused(api.create(&PostParams::default(), &big).await);
    assert_eq!(refusal.code, 507, "{}", refusal.message);
    assert!(refusal.message.contains("the disk is full"), "{}", refusal.message);
    assert!(api.get_opt("big").await.unwrap().is_none());
    let after = api.create(&PostParams::default(), &sandbox("b")).await.unwrap();
    let version = |object: &openshell_crds::OpenShellSandbox| object.resource_version().unwrap().parse::<u64>().unwrap();
    assert_eq!(version(&after), version(&before) + 1, "the refused write used no version");
    let store = store.reopen().await;
    assert_eq!(store.sandboxes().list(&ListParams::default()).await.unwrap().items.len(), 2);
    assert!(store.sandboxes().create(&PostParams::default(), &big).await.is_ok());
}

/// What is acknowledged is there after a kill: this test starts itself as the victim.
#[tokio::test]
async fn acknowledged_writes_survive_a_kill() {
    const VICTIM: &str = "OPENSHELL_TEST_VICTIM";
    if let Some(directory) = std::env::var_os(VICTIM) {
        let directory = std::path::PathBuf::from(directory);
        let api = LocalApi::open(&directory.join("openshell.db"), &directory.join("seal.key")).await.unwrap();
        let sandboxes: kube::Api<openshell_crds::OpenShellSandbox> = kube::Api::default_namespaced(api.client());
        for index in 0.. {
            sandboxes.create(&PostParams::default(), &sandbox(&format!("s{index}"))).await.unwrap();
            fs::write(directory.join("acknowledged"), index.to_string()).unwrap();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut victim = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "opening::acknowledged_writes_survive_a_kill", "--nocapture"])
        .env(VICTIM, directory.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let acknowledged = || fs::read_to_string(directory.path().join("acknowledged")).ok().and_then(|t| t.parse::<usize>().ok());
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while acknowledged().is_none_or(|n| n < 50) {
        assert!(std::time::Instant::now() < deadline, "the victim does not write");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
    let acknowledged = acknowledged().unwrap();
    let api = LocalApi::open(&directory.path().join("openshell.db"), &directory.path().join("seal.key")).await.unwrap();
    let sandboxes: kube::Api<openshell_crds::OpenShellSandbox> = kube::Api::default_namespaced(api.client());
    let found = sandboxes.list(&ListParams::default()).await.unwrap();
    assert!(found.items.len() > acknowledged, "{} found, {} acknowledged", found.items.len(), acknowledged + 1);
    let newest = found.items.iter().map(|o| o.resource_version().unwrap().parse::<u64>().unwrap()).max().unwrap();
    let next = sandboxes.create(&PostParams::default(), &sandbox("next")).await.unwrap();
    assert_eq!(next.resource_version().unwrap().parse::<u64>().unwrap(), newest + 1);
}
