//! Secrets: values go in and never come out through the API.

use std::collections::BTreeMap;

use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchParams};
use kube::{Api, ResourceExt as _};
use openshell_operator::api::SecretError;
use serde_json::json;

use crate::common::{Store, refused, send};

const VALUE: &str = "sk-very-secret-value-1234567890";

fn secret(name: &str, labelled: bool) -> Secret {
    let labels = labelled.then(|| BTreeMap::from([("openshell.ai/credential".to_owned(), "true".to_owned())]));
    Secret {
        metadata: ObjectMeta { name: Some(name.into()), labels, ..ObjectMeta::default() },
        data: Some(BTreeMap::from([("token".into(), ByteString(VALUE.into()))])),
        string_data: Some(BTreeMap::from([("plain".into(), VALUE.into())])),
        ..Secret::default()
    }
}

fn assert_hidden(text: &str) {
    use base64::Engine as _;
    assert!(!text.contains(VALUE), "{text}");
    assert!(!text.contains(&base64::engine::general_purpose::STANDARD.encode(VALUE)), "{text}");
}

#[tokio::test]
async fn values_are_readable_only_through_secret_values() {
    let store = Store::new().await;
    let api: Api<Secret> = Api::default_namespaced(store.client());
    let made = api.create(&PostParams::default(), &secret("a", true)).await.unwrap();
    assert_eq!(made.type_.as_deref(), Some("Opaque"));
    assert_eq!(made.data.as_ref().unwrap().keys().collect::<Vec<_>>(), ["plain", "token"]);
    api.create(&PostParams::default(), &secret("other", false)).await.unwrap();

    let stream = api.watch(&WatchParams::default().timeout(1), "0").await.unwrap();
    let events: Vec<_> = stream.boxed().try_collect().await.unwrap();
    let mut shown = vec![format!("{:?}", serde_json::to_value(&made).unwrap())];
    shown.push(serde_json::to_string(&api.get("a").await.unwrap()).unwrap());
    shown.push(serde_json::to_string(&api.list(&ListParams::default()).await.unwrap()).unwrap());
    shown.push(serde_json::to_string(&events).unwrap());
    shown.push(
        serde_json::to_string(
            &api.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "metadata": { "annotations": { "x": "y" } } }))).await.unwrap(),
        )
        .unwrap(),
    );
    shown.push(serde_json::to_string(&api.delete("other", &DeleteParams::default()).await.unwrap().right().unwrap().details).unwrap());
    shown.iter().for_each(|text| assert_hidden(text));

    let values = store.api.secrets().read("openshell", "a").await.unwrap();
    assert_eq!(values["token"].expose(), VALUE.as_bytes());
    assert_eq!(values["plain"].expose_str(), Some(VALUE));
    assert_hidden(&format!("{values:?}"));

    let directory = store.directory.path().to_owned();
    let store = store.reopen().await;
    assert_eq!(store.api.secrets().read("openshell", "a").await.unwrap()["token"].expose(), VALUE.as_bytes());
    for entry in std::fs::read_dir(directory).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(VALUE.len()).any(|w| w == VALUE.as_bytes()), "the value is on disk");
    }
}

#[tokio::test]
async fn only_labelled_secrets_are_read() {
    let store = Store::new().await;
    let api: Api<Secret> = Api::default_namespaced(store.client());
    api.create(&PostParams::default(), &secret("a", false)).await.unwrap();
    let values = store.api.secrets();
    assert!(matches!(values.read("openshell", "a").await, Err(SecretError::NotLabelled { .. })));
    assert!(matches!(values.read("openshell", "b").await, Err(SecretError::NotFound { .. })));
    assert!(matches!(values.read("elsewhere", "a").await, Err(SecretError::NotFound { .. })));
    let label = json!({ "metadata": { "labels": { "openshell.ai/credential": "true" } } });
    api.patch("a", &PatchParams::default(), &Patch::Merge(label)).await.unwrap();
    assert!(values.read("openshell", "a").await.is_ok());
}

#[tokio::test]
async fn writing_back_what_was_read_keeps_the_values() {
    let store = Store::new().await;
    let api: Api<Secret> = Api::default_namespaced(store.client());
    api.create(&PostParams::default(), &secret("a", true)).await.unwrap();
    let mut read = api.get("a").await.unwrap();
    let version = read.resource_version();
    let same = api.replace("a", &PostParams::default(), &read).await.unwrap();
    assert_eq!(same.resource_version(), version, "nothing changed");
    read.data.as_mut().unwrap().remove("plain");
    read.data.as_mut().unwrap().insert("new".into(), ByteString("n".into()));
    let written = api.replace("a", &PostParams::default(), &read).await.unwrap();
    assert_ne!(written.resource_version(), version);
    let values = store.api.secrets().read("openshell", "a").await.unwrap();
    assert_eq!(values.keys().collect::<Vec<_>>(), ["new", "token"]);
    assert_eq!(values["token"].expose(), VALUE.as_bytes());
    // The same value again is no change.
    let version = written.resource_version();
    let again = api.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "stringData": { "new": "n" } }))).await.unwrap();
    assert_eq!(again.resource_version(), version);
    let rotated = api.patch("a", &PatchParams::default(), &Patch::Merge(json!({ "stringData": { "new": "m" } }))).await.unwrap();
    assert_ne!(rotated.resource_version(), version);
    assert_eq!(store.api.secrets().read("openshell", "a").await.unwrap()["new"].expose(), b"m");
}

#[tokio::test]
async fn applied_secrets_leave_no_copy_in_annotations() {
    let store = Store::new().await;
    let api: Api<Secret> = Api::default_namespaced(store.client());
    let mut object = secret("a", true);
    object.metadata.annotations =
        Some(BTreeMap::from([("kubectl.kubernetes.io/last-applied-configuration".to_owned(), serde_json::to_string(&object).unwrap())]));
    let made = api.create(&PostParams::default(), &object).await.unwrap();
    assert_hidden(&serde_json::to_string(&made).unwrap());
    let config = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "b" }, "stringData": { "k": VALUE } });
    let applied = api.patch("b", &PatchParams::apply("me"), &Patch::Apply(&config)).await.unwrap();
    assert_hidden(&serde_json::to_string(&applied).unwrap());
    let version = applied.resource_version();
    let again = api.patch("b", &PatchParams::apply("me"), &Patch::Apply(&config)).await.unwrap();
    assert_eq!(again.resource_version(), version, "the same apply changes nothing");
}

#[tokio::test]
async fn refusals_do_not_show_values() {
    let store = Store::new().await;
    let body = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" }, "data": { "k": VALUE } });
    let request = http::Request::post("/api/v1/namespaces/openshell/secrets").body(body.to_string()).unwrap();
    let (code, answer) = send(&store.api, request).await;
    assert_eq!(code, 422, "{VALUE} is no base64");
    assert_hidden(&answer.to_string());
    let body = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "a" }, "data": VALUE });
    let request = http::Request::post("/api/v1/namespaces/openshell/secrets").body(body.to_string()).unwrap();
    let (code, answer) = send(&store.api, request).await;
    assert_eq!(code, 422);
    assert_hidden(&answer.to_string());
}

#[tokio::test]
async fn immutable_secrets_and_types_stay() {
    let store = Store::new().await;
    let api: Api<Secret> = Api::default_namespaced(store.client());
    let mut object = secret("a", true);
    object.immutable = Some(true);
    api.create(&PostParams::default(), &object).await.unwrap();
    let change = Patch::Merge(json!({ "stringData": { "token": "x" } }));
    assert_eq!(refused(api.patch("a", &PatchParams::default(), &change).await).reason, "Invalid");
    let change = Patch::Merge(json!({ "type": "kubernetes.io/tls" }));
    assert_eq!(refused(api.patch("a", &PatchParams::default(), &change).await).reason, "Invalid");
    let label = Patch::Merge(json!({ "metadata": { "labels": { "a": "b" } } }));
    assert!(api.patch("a", &PatchParams::default(), &label).await.is_ok());
}

#[tokio::test]
async fn deleting_a_secret_deletes_its_values() {
    let store = Store::new().await;
    let api: Api<Secret> = Api::default_namespaced(store.client());
    api.create(&PostParams::default(), &secret("a", true)).await.unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM secret_values").fetch_one(&store.api.pool()).await.unwrap();
    assert_eq!(rows, 0);
}
