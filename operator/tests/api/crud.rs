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

#[tokio::test]
async fn a_write_that_changes_nothing_writes_nothing() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let made = api.create(&PostParams::default(), &sandbox("a")).await.unwrap();
    let same = api.replace("a", &PostParams::default(), &made).await.unwrap();
    assert_eq!(same.resource_version(), made.resource_version());
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "suspend": null } }))).await.unwrap();
    assert_eq!(patched.resource_version(), made.resource_version());
}

#[tokio::test]
async fn what_the_server_owns_cannot_be_changed() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let mut object = sandbox("a");
    object.metadata.uid = Some("mine".into());
    object.metadata.generation = Some(7);
    object.status = Some(openshell_crds::OpenShellSandboxStatus { driver: Some("x".into()), ..Default::default() });
    let made = api.create(&PostParams::default(), &object).await.unwrap();
    assert_ne!(made.uid().unwrap(), "mine");
    assert_eq!(made.metadata.generation, Some(1));
    assert_eq!(made.status.clone().unwrap().driver, None, "status is a subresource");
    let patch = json!({ "metadata": { "creationTimestamp": "2001-01-01T00:00:00Z", "generation": 9, "deletionTimestamp": "2001-01-01T00:00:00Z" }, "status": { "driver": "x" } });
    let patched = api.patch("a", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(patched.resource_version(), made.resource_version());
    let other = json!({ "metadata": { "uid": "11111111-1111-1111-1111-111111111111" } });
    assert_eq!(refused(api.patch("a", &PatchParams::default(), &Patch::Merge(other)).await).reason, "Conflict");
    let renamed = json!({ "metadata": { "name": "b" } });
    assert_eq!(refused(api.patch("a", &PatchParams::default(), &Patch::Merge(renamed)).await).code, 400);
}

#[tokio::test]
async fn versions_in_patches_and_deletions_are_preconditions() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let made = api.create(&PostParams::default(), &sandbox("a")).await.unwrap();
    api.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "spec": { "suspend": true } }))).await.unwrap();
    let stale = json!({ "metadata": { "resourceVersion": made.resource_version() }, "spec": { "suspend": false } });
    let refusal = refused(api.patch("a", &PatchParams::default(), &Patch::Merge(stale)).await);
    assert_eq!(refusal.code, 409);
    assert!(refusal.message.contains("the object has been modified"), "{}", refusal.message);
    let stale = kube::api::Preconditions { uid: None, resource_version: made.resource_version() };
    assert_eq!(refused(api.delete("a", &DeleteParams::default().preconditions(stale)).await).code, 409);
    let other = kube::api::Preconditions { uid: Some("x".into()), resource_version: None };
    assert_eq!(refused(api.delete("a", &DeleteParams::default().preconditions(other)).await).code, 409);
    let right = kube::api::Preconditions { uid: made.uid(), resource_version: None };
    api.delete("a", &DeleteParams::default().preconditions(right)).await.unwrap();
}

#[tokio::test]
async fn json_patches_apply_and_test() {
    let store = Store::new().await;
    let api = store.sandboxes();
    api.create(&PostParams::default(), &sandbox("a")).await.unwrap();
    let patch = |value: serde_json::Value| Patch::Json::<()>(serde_json::from_value(value).unwrap());
    let good = patch(
        json!([{ "op": "test", "path": "/spec/command/0", "value": "true" }, { "op": "add", "path": "/spec/suspend", "value": true }]),
    );
    assert!(api.patch("a", &PatchParams::default(), &good).await.unwrap().spec.suspend);
    let bad = patch(json!([{ "op": "test", "path": "/spec/command/0", "value": "false" }]));
    assert_eq!(refused(api.patch("a", &PatchParams::default(), &bad).await).code, 422);
    let strategic = Patch::Strategic(json!({ "spec": {} }));
    assert_eq!(refused(api.patch("a", &PatchParams::default(), &strategic).await).code, 415);
}

#[tokio::test]
async fn an_apply_creates_and_conflicts() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let config = |suspend: bool| json!({ "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "metadata": { "name": "a" }, "spec": { "suspend": suspend } });
    let made = api.patch("a", &PatchParams::apply("one"), &Patch::Apply(config(true))).await.unwrap();
    assert_eq!(made.managed_fields().len(), 1);
    let again = api.patch("a", &PatchParams::apply("one"), &Patch::Apply(config(true))).await.unwrap();
    assert_eq!(again.resource_version(), made.resource_version());
    let refusal = refused(api.patch("a", &PatchParams::apply("two"), &Patch::Apply(config(false))).await);
    assert_eq!((refusal.code, refusal.reason.as_str()), (409, "Conflict"));
    assert_eq!(refusal.details.unwrap().causes[0].field, ".spec.suspend");
    assert!(!api.patch("a", &PatchParams::apply("two").force(), &Patch::Apply(config(false))).await.unwrap().spec.suspend);
}

#[tokio::test]
async fn dry_runs_store_nothing_and_names_are_generated() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    assert!(api.create(&dry, &sandbox("a")).await.unwrap().uid().is_some());
    assert!(api.get_opt("a").await.unwrap().is_none());
    let mut object = sandbox("");
    object.metadata.name = None;
    assert!(refused(api.create(&PostParams::default(), &object).await).message.contains("name or generateName is required"));
    object.metadata.generate_name = Some("run-".into());
    let first = api.create(&PostParams::default(), &object).await.unwrap();
    let second = api.create(&PostParams::default(), &object).await.unwrap();
    assert!(first.name_any().starts_with("run-") && first.name_any() != second.name_any());
    api.delete(&first.name_any(), &DeleteParams::default().dry_run()).await.unwrap();
    assert!(api.get_opt(&first.name_any()).await.unwrap().is_some());
}

#[tokio::test]
async fn finalizers_hold_an_object() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let mut object = sandbox("a");
    object.metadata.finalizers = Some(vec!["openshell.ai/workload".into()]);
    api.create(&PostParams::default(), &object).await.unwrap();
    let held = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    assert_eq!(held.metadata.generation, Some(2));
    let again = api.delete("a", &DeleteParams::default()).await.unwrap().left().unwrap();
    assert_eq!(again.resource_version(), held.resource_version());
    let more = Patch::Merge(json!({ "metadata": { "finalizers": ["openshell.ai/workload", "example.com/more"] } }));
    assert!(refused(api.patch("a", &PatchParams::default(), &more).await).message.contains("no new finalizers can be added"));
    let status = Patch::Merge(json!({ "status": { "phase": "Deleting" } }));
    assert!(api.patch_status("a", &PatchParams::default(), &status).await.is_ok());
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("a", &PatchParams::default(), &none).await.unwrap();
    assert!(api.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn revisions_are_stored_and_never_change() {
    use k8s_openapi::api::apps::v1::ControllerRevision;
    let store = Store::new().await;
    let api: kube::Api<ControllerRevision> = kube::Api::default_namespaced(store.client());
    let revision: ControllerRevision = serde_json::from_value(json!({
        "apiVersion": "apps/v1", "kind": "ControllerRevision", "metadata": { "name": "a-p1" }, "revision": 1, "data": { "version": 1, "deep": { "x": [1] } },
    }))
    .unwrap();
    let made = api.create(&PostParams::default(), &revision).await.unwrap();
    assert_eq!(made.data.unwrap().0["deep"]["x"][0], 1);
    let change = Patch::Merge(json!({ "data": { "version": 2 } }));
    assert_eq!(refused(api.patch("a-p1", &PatchParams::default(), &change).await).reason, "Invalid");
    let renumber = Patch::Merge(json!({ "revision": 5 }));
    assert_eq!(api.patch("a-p1", &PatchParams::default(), &renumber).await.unwrap().revision, 5);
}
