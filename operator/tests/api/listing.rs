//! Lists: selectors, pages, versions; and collections deleted.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, PostParams, VersionMatch};

use crate::common::{Store, refused, sandbox};
use openshell_operator::api::Options;

async fn filled(store: &Store, count: usize) {
    for index in 0..count {
        let mut object = sandbox(&format!("s{index:02}"));
        object.metadata.labels = Some(BTreeMap::from([("parity".to_owned(), if index % 2 == 0 { "even" } else { "odd" }.to_owned())]));
        store.sandboxes().create(&PostParams::default(), &object).await.unwrap();
    }
}

fn names(list: &kube::api::ObjectList<openshell_crds::OpenShellSandbox>) -> Vec<String> {
    list.items.iter().map(kube::ResourceExt::name_any).collect()
}

#[tokio::test]
async fn selectors_select() {
    let store = Store::new().await;
    filled(&store, 4).await;
    let api = store.sandboxes();
    for (labels, expected) in [
        ("parity=even", vec!["s00", "s02"]),
        ("parity==odd", vec!["s01", "s03"]),
        ("parity!=odd", vec!["s00", "s02"]),
        ("parity in (even, other)", vec!["s00", "s02"]),
        ("parity notin (even)", vec!["s01", "s03"]),
        ("parity,!absent", vec!["s00", "s01", "s02", "s03"]),
        ("!parity", vec![]),
        ("absent", vec![]),
    ] {
        let list = api.list(&ListParams::default().labels(labels)).await.unwrap();
        assert_eq!(names(&list), expected, "{labels}");
    }
    let one = api.list(&ListParams::default().fields("metadata.name=s01")).await.unwrap();
    assert_eq!(names(&one), ["s01"]);
    let none = api.list(&ListParams::default().fields("metadata.namespace!=openshell")).await.unwrap();
    assert!(none.items.is_empty());
    for bad in ["parity in even", "a=b=c", "-x", "a in (b"] {
        assert_eq!(refused(api.list(&ListParams::default().labels(bad)).await).code, 400, "{bad}");
    }
    assert_eq!(refused(api.list(&ListParams::default().fields("spec.tty=true")).await).code, 400);
}

#[tokio::test]
async fn pages_are_of_one_version() {
    let store = Store::new().await;
    filled(&store, 7).await;
    let api = store.sandboxes();
    let first = api.list(&ListParams::default().limit(3)).await.unwrap();
    assert_eq!(names(&first), ["s00", "s01", "s02"]);
    assert_eq!(first.metadata.remaining_item_count, Some(4));
    // What happens now is not on later pages.
    api.delete("s04", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &sandbox("s03a")).await.unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let second = api.list(&ListParams::default().limit(3).continue_token(&token)).await.unwrap();
    assert_eq!(names(&second), ["s03", "s04", "s05"]);
    assert_eq!(second.metadata.resource_version, first.metadata.resource_version);
    let token = second.metadata.continue_.clone().unwrap();
    let third = api.list(&ListParams::default().limit(3).continue_token(&token)).await.unwrap();
    assert_eq!(names(&third), ["s06"]);
    assert!(third.metadata.continue_.is_none());
    let exact = ListParams::default().at(first.metadata.resource_version.as_deref().unwrap()).matching(VersionMatch::Exact);
    assert_eq!(names(&api.list(&exact).await.unwrap()).len(), 7);
    assert_eq!(refused(api.list(&ListParams::default().limit(1).continue_token("nonsense")).await).code, 400);
}

#[tokio::test]
async fn a_page_of_compacted_history_is_gone() {
    let store = Store::with(Options::default().events(4)).await;
    filled(&store, 3).await;
    let api = store.sandboxes();
    let first = api.list(&ListParams::default().limit(1)).await.unwrap();
    filled_more(&store, 6).await;
    let token = first.metadata.continue_.unwrap();
    let gone = refused(api.list(&ListParams::default().limit(1).continue_token(&token)).await);
    assert_eq!((gone.code, gone.reason.as_str()), (410, "Expired"));
    let future = refused(api.list(&ListParams::default().at("999999")).await);
    assert_eq!(future.code, 504);
}

async fn filled_more(store: &Store, count: usize) {
    for index in 0..count {
        store.sandboxes().create(&PostParams::default(), &sandbox(&format!("t{index}"))).await.unwrap();
    }
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let store = Store::new().await;
    filled(&store, 4).await;
    let api = store.sandboxes();
    let deleted = api.delete_collection(&DeleteParams::default(), &ListParams::default().labels("parity=even")).await.unwrap();
    assert_eq!(names(&deleted.left().unwrap()), ["s00", "s02"]);
    assert_eq!(names(&api.list(&ListParams::default()).await.unwrap()), ["s01", "s03"]);
    assert!(api.get("s01").await.unwrap().resource_version().is_some());
}

#[tokio::test]
async fn metadata_alone_and_every_namespace() {
    let store = Store::new().await;
    filled(&store, 2).await;
    let other: kube::Api<openshell_crds::OpenShellSandbox> = kube::Api::namespaced(store.client(), "other");
    other.create(&PostParams::default(), &sandbox("s00")).await.unwrap();
    let all: kube::Api<openshell_crds::OpenShellSandbox> = kube::Api::all(store.client());
    assert_eq!(all.list(&ListParams::default()).await.unwrap().items.len(), 3);
    let metadata = store.sandboxes().list_metadata(&ListParams::default()).await.unwrap();
    assert_eq!(metadata.items.len(), 2);
    assert_eq!(store.sandboxes().get_metadata("s01").await.unwrap().labels()["parity"], "odd");
}

#[tokio::test]
async fn tables_have_the_columns_of_the_definition() {
    let store = Store::new().await;
    filled(&store, 1).await;
    let request = |path: &str, accept: &str| http::Request::get(path).header("accept", accept).body(String::new()).unwrap();
    let path = "/apis/openshell.ai/v1alpha1/namespaces/openshell/openshellsandboxes";
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json";
    for path in [path.to_owned(), format!("{path}/s00")] {
        let (code, table) = crate::common::send(&store.api, request(&path, accept)).await;
        assert_eq!((code.as_u16(), table["kind"].as_str()), (200, Some("Table")));
        let columns: Vec<_> = table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
        assert_eq!(columns, ["Name", "Phase", "Ready", "Reason", "Policy", "Enforcement", "Age"]);
        assert_eq!(table["rows"][0]["cells"][0], "s00");
        assert!(table["rows"][0]["cells"][6].as_str().unwrap().ends_with('s'), "{table}");
    }
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let store = Store::new().await;
    for aggregated in [false, true] {
        let discovery = kube::Discovery::new(store.client());
        let discovery = if aggregated { discovery.run_aggregated().await } else { discovery.run().await }.unwrap();
        for (group, kind) in
            [("openshell.ai", "OpenShellSandbox"), ("openshell.ai", "Policy"), ("", "Secret"), ("apps", "ControllerRevision")]
        {
            let group = discovery.get(group).unwrap_or_else(|| {
                panic!(
                    "{group}, aggregated: {aggregated}: {:?}",
                    discovery.groups().map(kube::discovery::ApiGroup::name).collect::<Vec<_>>()
                )
            });
            let (resource, capabilities) = group.recommended_kind(kind).unwrap_or_else(|| panic!("{kind}"));
            assert!(capabilities.supports_operation(kube::discovery::verbs::WATCH), "{resource:?}");
        }
    }
    assert_eq!(store.client().apiserver_version().await.unwrap().major, "1");
    for path in ["/openapi/v3", "/openapi/v3/apis/openshell.ai/v1alpha1", "/openapi/v3/api/v1"] {
        let (code, document) = crate::common::send(&store.api, http::Request::get(path).body(String::new()).unwrap()).await;
        assert_eq!(code, 200, "{path}");
        assert!(document["paths"].is_object(), "{path}");
    }
}
