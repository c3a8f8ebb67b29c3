//! A random sequence of operations gives what a simple model gives, restarts included.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::ResourceExt as _;
use kube::api::WatchEvent;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchParams};
use openshell_crds::OpenShellSandbox;
use proptest::prelude::*;
use serde_json::json;

use crate::common::{Store, sandbox};

#[derive(Clone, Debug)]
enum Operation {
    Create(u8),
    Suspend(u8, bool),
    Status(u8, u8),
    /// Replace under the newest or under an older version.
    Replace(u8, bool, bool),
    Label(u8, u8),
    Delete(u8),
    DeleteLabelled(u8),
    Reopen,
}

fn operation() -> impl Strategy<Value = Operation> {
    let name = 0_u8..5;
    prop_oneof![
        4 => name.clone().prop_map(Operation::Create),
        3 => (name.clone(), any::<bool>()).prop_map(|(n, s)| Operation::Suspend(n, s)),
        3 => (name.clone(), 0_u8..3).prop_map(|(n, d)| Operation::Status(n, d)),
        3 => (name.clone(), any::<bool>(), any::<bool>()).prop_map(|(n, s, f)| Operation::Replace(n, s, f)),
        2 => (name.clone(), 0_u8..2).prop_map(|(n, l)| Operation::Label(n, l)),
        2 => name.prop_map(Operation::Delete),
        1 => (0_u8..2).prop_map(Operation::DeleteLabelled),
        1 => Just(Operation::Reopen),
    ]
}

#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    suspend: bool,
    driver: Option<String>,
    label: Option<String>,
    generation: i64,
    version: u64,
}

fn seen(object: &OpenShellSandbox) -> Model {
    Model {
        suspend: object.spec.suspend,
        driver: object.status.as_ref().and_then(|s| s.driver.clone()),
        label: object.labels().get("l").cloned(),
        generation: object.metadata.generation.unwrap(),
        version: object.resource_version().unwrap().parse().unwrap(),
    }
}

async fn run(operations: Vec<Operation>) {
    let mut store = Store::new().await;
    let mut model: BTreeMap<String, Model> = BTreeMap::new();
    let mut version = 1_u64;
    let mut opened = (version, model.clone());
    for operation in operations {
        let api = store.sandboxes();
        match operation {
            Operation::Create(n) => {
                let name = format!("s{n}");
                let result = api.create(&PostParams::default(), &sandbox(&name)).await;
                match model.entry(name) {
                    Entry::Occupied(_) => assert_eq!(crate::common::refused(result).reason, "AlreadyExists"),
                    Entry::Vacant(place) => {
                        version += 1;
                        place.insert(Model { generation: 1, version, ..Model::default() });
                        result.unwrap();
                    }
                }
            }
            Operation::Suspend(n, suspend) => {
                let name = format!("s{n}");
                let patch = Patch::Merge(json!({ "spec": { "suspend": suspend } }));
                let result = api.patch(&name, &PatchParams::default(), &patch).await;
                match model.get_mut(&name) {
                    None => assert_eq!(crate::common::refused(result).code, 404),
                    Some(known) => {
                        // An absent and a false `suspend` are two spellings; the first is stored.
                        let stored = api.get(&name).await.unwrap();
                        let now = seen(&stored);
                        if now.version != known.version {
                            version += 1;
                            known.generation += 1;
                            known.version = version;
                        }
                        known.suspend = suspend;
                        result.unwrap();
                    }
                }
            }
            Operation::Status(n, driver) => {
                let name = format!("s{n}");
                let driver = format!("d{driver}");
                let patch = Patch::Merge(json!({ "status": { "driver": driver } }));
                let result = api.patch_status(&name, &PatchParams::default(), &patch).await;
                match model.get_mut(&name) {
                    None => assert_eq!(crate::common::refused(result).code, 404),
                    Some(known) => {
                        if known.driver.as_ref() != Some(&driver) {
                            version += 1;
                            known.version = version;
                            known.driver = Some(driver);
                        }
                        result.unwrap();
                    }
                }
            }
            Operation::Replace(n, suspend, fresh) => {
                let name = format!("s{n}");
                let Some(mut object) = api.get_opt(&name).await.unwrap() else {
                    assert!(!model.contains_key(&name));
                    continue;
                };
                object.spec.suspend = suspend;
                if !fresh {
                    object.metadata.resource_version = Some("1".into());
                }
                let result = api.replace(&name, &PostParams::default(), &object).await;
                if fresh {
                    let known = model.get_mut(&name).unwrap();
                    let now = seen(&result.unwrap());
                    if now.version != known.version {
                        version += 1;
                        known.generation += 1;
                        known.version = version;
                    }
                    known.suspend = suspend;
                } else {
                    assert_eq!(crate::common::refused(result).reason, "Conflict");
                }
            }
            Operation::Label(n, label) => {
                let name = format!("s{n}");
                let label = format!("v{label}");
                let patch = Patch::Merge(json!({ "metadata": { "labels": { "l": label } } }));
                let result = api.patch(&name, &PatchParams::default(), &patch).await;
                match model.get_mut(&name) {
                    None => assert_eq!(crate::common::refused(result).code, 404),
                    Some(known) => {
                        if known.label.as_ref() != Some(&label) {
                            version += 1;
                            known.version = version;
                            known.label = Some(label);
                        }
                        result.unwrap();
                    }
                }
            }
            Operation::Delete(n) => {
                let name = format!("s{n}");
                let result = api.delete(&name, &DeleteParams::default()).await;
                if model.remove(&name).is_some() {
                    version += 1;
                    result.unwrap();
                } else {
                    assert_eq!(crate::common::refused(result).code, 404);
                }
            }
            Operation::DeleteLabelled(label) => {
                let label = format!("v{label}");
                let selector = ListParams::default().labels(&format!("l={label}"));
                api.delete_collection(&DeleteParams::default(), &selector).await.unwrap();
                let count = model.len();
                model.retain(|_, known| known.label.as_ref() != Some(&label));
                version += (count - model.len()) as u64;
            }
            Operation::Reopen => {
                store = store.reopen().await;
                opened = (version, model.clone());
            }
        }
        let list = store.sandboxes().list(&ListParams::default().limit(2)).await.unwrap();
        assert_eq!(list.metadata.resource_version.as_deref(), Some(version.to_string().as_str()));
        let mut found: BTreeMap<String, Model> = BTreeMap::new();
        let mut page = list;
        loop {
            found.extend(page.items.iter().map(|o| (o.name_any(), seen(o))));
            let Some(token) = page.metadata.continue_.clone().filter(|t| !t.is_empty()) else { break };
            page = store.sandboxes().list(&ListParams::default().limit(2).continue_token(&token)).await.unwrap();
        }
        assert_eq!(found, model);
    }
    let (from, then) = opened;
    assert_eq!(replay(&store, from, then, version - from).await, model);
}

/// What a watch from a version on makes of the objects that were there then.
async fn replay(store: &Store, from: u64, mut objects: BTreeMap<String, Model>, changes: u64) -> BTreeMap<String, Model> {
    let stream = store.sandboxes().watch(&WatchParams::default(), &from.to_string()).await.unwrap();
    let events = stream.boxed().take(changes as usize).try_collect::<Vec<_>>();
    for event in tokio::time::timeout(std::time::Duration::from_secs(10), events).await.unwrap().unwrap() {
        match event {
            WatchEvent::Added(o) => assert!(objects.insert(o.name_any(), seen(&o)).is_none(), "added twice"),
            WatchEvent::Modified(o) => assert!(objects.insert(o.name_any(), seen(&o)).is_some(), "changed before it was there"),
            WatchEvent::Deleted(o) => assert!(objects.remove(&o.name_any()).is_some(), "deleted twice"),
            other => panic!("{other:?}"),
        }
    }
    objects
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn the_store_is_the_model(operations in proptest::collection::vec(operation(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(run(operations));
    }
}
