//! Create, read, update, delete, and what stays true about versions.

use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::common::{Store, refused, sandbox};

#[tokio::test]
async fn an_object_lives_and_survives_a_restart() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let made = api.create(&PostParams::default(), &sandbox("demo")).await.unwrap();
    assert_eq!(made.namespace().as_deref(), Some("openshell"));
    assert_eq!(made.metadata.generation, Some(1));
    let first = made.resource_version().unwrap();

    let patched = api.patch("demo", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "suspend": true } }))).await.unwrap();
    assert!(patched.spec.suspend);
    assert_eq!(patched.metadata.generation, Some(2));
    let status = json!({ "status": { "phase": "Ready" }, "spec": { "suspend": false } });
    let reported = api.patch_status("demo", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    assert_eq!(reported.metadata.generation, Some(2), "a status is no new generation");
    assert!(reported.spec.suspend, "a status write changes no spec");

    let mut stale = made.clone();
    stale.spec.tty = true;
    assert_eq!(refused(api.replace("demo", &PostParams::default(), &stale).await).reason, "Conflict");
    assert_eq!(refused(api.create(&PostParams::default(), &sandbox("demo")).await).reason, "AlreadyExists");

    let store = store.reopen().await;
    let api = store.sandboxes();
    let found = api.get("demo").await.unwrap();
    assert_eq!(found.resource_version(), reported.resource_version());
    assert_ne!(found.resource_version().unwrap(), first);
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);
    assert!(api.delete("demo", &DeleteParams::default()).await.unwrap().is_right());
    assert_eq!(refused(api.get("demo").await).reason, "NotFound");
}
