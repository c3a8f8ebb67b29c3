//! Watches, reflectors and controllers of kube-runtime, unchanged.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use openshell_crds::OpenShellSandbox;
use serde_json::json;

use crate::common::{Store, sandbox};

#[tokio::test]
async fn a_controller_writes_status() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let controller = Controller::new(api.clone(), watcher::Config::default()).run(
        |object: Arc<OpenShellSandbox>, api: Arc<kube::Api<OpenShellSandbox>>| async move {
            if object.status.is_none() {
                let name = object.metadata.name.clone().unwrap_or_default();
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({ "status": { "phase": "Ready" } }))).await?;
            }
            Ok::<_, kube::Error>(Action::await_change())
        },
        |_, error, _| panic!("{error}"),
        Arc::new(api.clone()),
    );
    let running = tokio::spawn(controller.for_each(|_| async {}));
    for index in 0..5 {
        api.create(&PostParams::default(), &sandbox(&format!("s{index}"))).await.unwrap();
    }
    tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let all = api.list(&kube::api::ListParams::default()).await.unwrap();
            if all.items.iter().filter(|s| s.status.is_some()).count() == 5 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    running.abort();
}
