//! Watches, reflectors and controllers of kube-runtime, unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::Request;
use http_body_util::BodyExt as _;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use openshell_crds::OpenShellSandbox;
use openshell_operator::api::Options;
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::common::{Store, sandbox};

const PATH: &str = "/apis/openshell.ai/v1alpha1/namespaces/openshell/openshellsandboxes";

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future).await.expect("within ten seconds")
}

fn suspend(on: bool) -> Patch<Value> {
    Patch::Merge(json!({ "spec": { "suspend": on } }))
}

/// Events as kind and name.
async fn events(stream: impl Stream<Item = kube::Result<WatchEvent<OpenShellSandbox>>>, count: usize) -> Vec<String> {
    let stream = stream.map_ok(|event| match event {
        WatchEvent::Added(o) => format!("added {}", o.name_any()),
        WatchEvent::Modified(o) => format!("modified {}", o.name_any()),
        WatchEvent::Deleted(o) => format!("deleted {}", o.name_any()),
        WatchEvent::Bookmark(b) => format!("bookmark {}", b.metadata.annotations.len()),
        WatchEvent::Error(e) => format!("error {}", e.code),
    });
    within(stream.take(count).try_collect()).await.unwrap()
}

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
    within(async {
        loop {
            let all = api.list(&kube::api::ListParams::default()).await.unwrap();
            if all.items.iter().filter(|s| s.status.is_some()).count() == 5 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    running.abort();
}

#[tokio::test]
async fn a_watch_resumes_where_it_was_told() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let first = api.create(&PostParams::default(), &sandbox("a")).await.unwrap();
    api.create(&PostParams::default(), &sandbox("b")).await.unwrap();
    api.patch("a", &PatchParams::default(), &suspend(true)).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let stream = api.watch(&WatchParams::default(), &first.resource_version().unwrap()).await.unwrap();
    assert_eq!(events(stream.boxed(), 3).await, ["added b", "modified a", "deleted a"]);
    let stream = api.watch(&WatchParams::default(), "0").await.unwrap();
    assert_eq!(events(stream.boxed(), 1).await, ["added b"], "from the present");
    let stream = api.watch(&WatchParams::default().timeout(1), "0").await.unwrap();
    let all: Vec<_> = within(stream.try_collect()).await.unwrap();
    assert!(matches!(all.last(), Some(WatchEvent::Bookmark(_))), "a bookmark at the end");
}

#[tokio::test]
async fn selectors_turn_changes_into_additions_and_deletions() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let from = api.create(&PostParams::default(), &sandbox("a")).await.unwrap().resource_version().unwrap();
    let label = |value: Value| Patch::Merge(json!({ "metadata": { "labels": { "k": value } } }));
    for value in [json!("x"), json!("x"), json!("y"), json!("x")] {
        api.patch("a", &PatchParams::default(), &label(value)).await.unwrap();
    }
    api.patch("a", &PatchParams::default(), &suspend(true)).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let stream = api.watch(&WatchParams::default().labels("k=x"), &from).await.unwrap();
    assert_eq!(events(stream.boxed(), 5).await, ["added a", "deleted a", "added a", "modified a", "deleted a"]);
}

#[tokio::test]
async fn streaming_lists_end_with_their_bookmark() {
    let store = Store::new().await;
    let api = store.sandboxes();
    api.create(&PostParams::default(), &sandbox("a")).await.unwrap();
    let stream = api.watch(&WatchParams::default().initial_events(), "0").await.unwrap();
    assert_eq!(events(stream.boxed(), 2).await, ["added a", "bookmark 1"]);
    let mut stream = watcher(api.clone(), watcher::Config::default().streaming_lists()).boxed();
    let mut seen = Vec::new();
    within(async {
        while seen.len() < 3 {
            seen.push(format!("{:?}", std::mem::discriminant(&stream.try_next().await.unwrap().unwrap())));
        }
    })
    .await;
    api.create(&PostParams::default(), &sandbox("b")).await.unwrap();
    assert!(matches!(within(stream.try_next()).await.unwrap(), Some(watcher::Event::Apply(_))));
}

#[tokio::test]
async fn a_reflector_survives_compaction() {
    let store = Store::with(Options::default().events(8)).await;
    let api = store.sandboxes();
    let (reader, writer) = reflector::store();
    // A stream that is polled only after the ring has passed it by.
    let mut stream = Box::pin(reflector(writer, watcher(api.clone(), watcher::Config::default().page_size(3))));
    for index in 0..4 {
        api.create(&PostParams::default(), &sandbox(&format!("s{index}"))).await.unwrap();
    }
    within(async { while !matches!(stream.try_next().await.unwrap(), Some(watcher::Event::InitDone)) {} }).await;
    for round in 0..20 {
        api.patch("s0", &PatchParams::default(), &suspend(round % 2 == 0)).await.unwrap();
    }
    api.delete("s1", &DeleteParams::default()).await.unwrap();
    for round in 0..20 {
        api.patch("s2", &PatchParams::default(), &suspend(round % 2 == 0)).await.unwrap();
    }
    api.create(&PostParams::default(), &sandbox("last")).await.unwrap();
    let mut compacted = false;
    within(async {
        loop {
            match stream.next().await.unwrap() {
                Ok(_) => {}
                Err(watcher::Error::WatchError(status)) => compacted |= status.code == 410,
                Err(other) => panic!("{other}"),
            }
            let mut names: Vec<String> = reader.state().iter().map(|o| o.name_any()).collect();
            names.sort();
            if names == ["last", "s0", "s2", "s3"] {
                break;
            }
        }
    })
    .await;
    assert!(compacted, "the watch was told that history is gone");
    let expected = api.list(&kube::api::ListParams::default()).await.unwrap();
    for object in expected {
        let mirrored = reader.get(&reflector::ObjectRef::from_obj(&object));
        assert_eq!(mirrored.unwrap().resource_version(), object.resource_version());
    }
}

#[tokio::test]
async fn a_watch_from_before_a_restart_is_told_to_list_again() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let first = api.create(&PostParams::default(), &sandbox("a")).await.unwrap().resource_version().unwrap();
    let last = api.create(&PostParams::default(), &sandbox("b")).await.unwrap().resource_version().unwrap();
    let store = store.reopen().await;
    let api = store.sandboxes();
    let stream = api.watch(&WatchParams::default(), &first).await.unwrap();
    assert_eq!(events(stream.boxed(), 1).await, ["error 410"]);
    let stream = api.watch(&WatchParams::default(), "9999999").await.unwrap();
    assert_eq!(events(stream.boxed(), 1).await, ["error 410"], "a version from the future as well");
    let stream = api.watch(&WatchParams::default(), &last).await.unwrap();
    api.create(&PostParams::default(), &sandbox("c")).await.unwrap();
    assert_eq!(events(stream.boxed(), 1).await, ["added c"], "the newest version is still good");
}

#[tokio::test]
async fn a_slow_watcher_costs_no_memory_and_learns_of_it() {
    let store = Store::with(Options::default().events(16)).await;
    let api = store.sandboxes();
    api.create(&PostParams::default(), &sandbox("a")).await.unwrap();
    let request = Request::get(format!("{PATH}?watch=true&resourceVersion=1&allowWatchBookmarks=true")).body(String::new()).unwrap();
    let mut body = store.api.service().oneshot(request).await.unwrap().into_body();
    let first = within(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"{\"type\":\"ADDED\""));
    for round in 0..100 {
        api.patch("a", &PatchParams::default(), &suspend(round % 2 == 0)).await.unwrap();
    }
    let next = within(body.frame()).await.unwrap().unwrap().into_data().unwrap();
    let next: Value = serde_json::from_slice(&next).unwrap();
    assert_eq!((&next["type"], &next["object"]["code"]), (&json!("ERROR"), &json!(410)));
    assert!(within(body.frame()).await.is_none(), "and the watch ends");
}

#[tokio::test]
async fn closing_ends_every_watch() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let stream = api.watch(&WatchParams::default(), "0").await.unwrap();
    let Store { api: local, directory: _directory } = store;
    let closed = tokio::spawn(local.close());
    let rest: Vec<_> = within(stream.try_collect()).await.unwrap();
    assert!(rest.is_empty());
    within(closed).await.unwrap();
    let refusal = api.create(&PostParams::default(), &sandbox("a")).await.unwrap_err();
    assert!(refusal.to_string().contains("shutting down"), "{refusal}");
}

#[tokio::test]
async fn metadata_watches_show_metadata() {
    let store = Store::new().await;
    let api = store.sandboxes();
    let mut object = sandbox("a");
    object.metadata.labels = Some(BTreeMap::from([("k".to_owned(), "v".to_owned())]));
    api.create(&PostParams::default(), &object).await.unwrap();
    let metadata: kube::Api<kube::core::PartialObjectMeta<OpenShellSandbox>> = kube::Api::default_namespaced(store.client());
    let stream = watcher(metadata, watcher::Config::default()).applied_objects();
    let found = within(Box::pin(stream).try_next()).await.unwrap().unwrap();
    assert_eq!(found.labels()["k"], "v");
}
