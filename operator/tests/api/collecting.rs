//! Owner references: what goes when its owner goes.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Resource as _, ResourceExt as _};
use openshell_crds::OpenShellSandbox;
use serde_json::json;

use crate::common::{Store, sandbox};

async fn owned(store: &Store, name: &str, owners: &[&OpenShellSandbox], block: bool) -> OpenShellSandbox {
    let mut object = sandbox(name);
    let reference = |owner: &&OpenShellSandbox| {
        let mut reference = owner.owner_ref(&()).unwrap();
        reference.block_owner_deletion = Some(block);
        reference
    };
    object.metadata.owner_references = Some(owners.iter().map(reference).collect());
    store.sandboxes().create(&PostParams::default(), &object).await.unwrap()
}

async fn gone(store: &Store, name: &str) {
    let api = store.sandboxes();
    let wait = async {
        while api.get_opt(name).await.unwrap().is_some() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("{name} is still there"));
}

#[tokio::test]
async fn dependents_follow_their_owner_in_the_background() {
    let store = Store::new().await;
    let owner = store.sandboxes().create(&PostParams::default(), &sandbox("owner")).await.unwrap();
    let child = owned(&store, "child", &[&owner], false).await;
    owned(&store, "grandchild", &[&child], true).await;
    store.sandboxes().create(&PostParams::default(), &sandbox("bystander")).await.unwrap();
    store.sandboxes().delete("owner", &DeleteParams::default()).await.unwrap();
    gone(&store, "child").await;
    gone(&store, "grandchild").await;
    assert!(store.sandboxes().get_opt("bystander").await.unwrap().is_some());
}

#[tokio::test]
async fn an_object_lives_as_long_as_one_owner() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let one = api.create(&PostParams::default(), &sandbox("one")).await.unwrap();
    let two = api.create(&PostParams::default(), &sandbox("two")).await.unwrap();
    owned(&store, "child", &[&one, &two], false).await;
    api.delete("one", &DeleteParams::default()).await.unwrap();
    let wait = async {
        while api.get("child").await.unwrap().owner_references().len() != 1 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    api.delete("two", &DeleteParams::default()).await.unwrap();
    gone(&store, "child").await;
}

#[tokio::test]
async fn foreground_waits_and_orphan_lets_go() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let owner = api.create(&PostParams::default(), &sandbox("owner")).await.unwrap();
    let mut child = owned(&store, "child", &[&owner], true).await;
    child.metadata.finalizers = Some(vec!["example.com/hold".into()]);
    api.replace("child", &PostParams::default(), &child).await.unwrap();
    let foreground = DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    assert!(api.delete("owner", &foreground).await.unwrap().is_left());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(api.get("child").await.unwrap().metadata.deletion_timestamp.is_some());
    assert!(api.get_opt("owner").await.unwrap().is_some(), "it waits for its child");
    let none = Patch::Merge(json!({ "metadata": { "finalizers": null } }));
    api.patch("child", &PatchParams::default(), &none).await.unwrap();
    gone(&store, "owner").await;

    let owner = api.create(&PostParams::default(), &sandbox("owner")).await.unwrap();
    owned(&store, "kept", &[&owner], true).await;
    let orphan = DeleteParams { propagation_policy: Some(PropagationPolicy::Orphan), ..DeleteParams::default() };
    api.delete("owner", &orphan).await.unwrap();
    gone(&store, "owner").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(api.get("kept").await.unwrap().owner_references().is_empty());
}

#[tokio::test]
async fn what_was_left_behind_is_collected_at_the_start() {
    let store = Store::new().await;
    let mut object = sandbox("child");
    object.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u",
        }))
        .unwrap(),
    ]);
    store.sandboxes().create(&PostParams::default(), &object).await.unwrap();
    let mut lost = sandbox("lost");
    lost.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({
            "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "name": "never", "uid": "u",
        }))
        .unwrap(),
    ]);
    store.sandboxes().create(&PostParams::default(), &lost).await.unwrap();
    let store = store.reopen().await;
    gone(&store, "lost").await;
    assert!(store.sandboxes().get_opt("child").await.unwrap().is_some(), "owners of other kinds are not judged");
}
