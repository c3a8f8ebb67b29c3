//! The table of manifests, against a real API server: the verdicts are those of the API service
//! (`operator/tests/api/cases.rs`), for the same bytes.

use std::path::Path;

use http::{Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use openshell_crds::cases;
use serde_json::Value;

use crate::rig::Rig;

async fn send(rig: &Rig, method: Method, path: &str, document: &Value) -> (u16, Value) {
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    let answer = rig.client.send(request.body(Body::from(document.to_string().into_bytes())).unwrap()).await.unwrap();
    let code = answer.status().as_u16();
    let bytes = answer.into_body().collect().await.unwrap().to_bytes();
    (code, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_case_has_its_verdict() {
    // Nobody works in it: what is stored stays as it was sent.
    let Some(rig) = Rig::idle(serde_json::json!({})).await else { return };
    let cases = cases::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/tests/cases")).unwrap();
    assert!(cases.len() > 40, "the table was not found");
    let mut wrong = Vec::new();
    for case in &cases {
        let collection = case.collection(&rig.namespace);
        let mut answer = (200, Value::Null);
        let mut stored: Option<String> = None;
        for (number, document) in case.documents.iter().enumerate() {
            let mut document = document.clone();
            let (method, path) = match &stored {
                None => (Method::POST, collection.clone()),
                Some(path) => {
                    document["metadata"]["resourceVersion"] = answer.1["metadata"]["resourceVersion"].clone();
                    (Method::PUT, path.clone())
                }
            };
            answer = send(&rig, method, &format!("{path}?fieldValidation=Strict"), &document).await;
            if (200..300).contains(&answer.0) {
                stored = Some(format!("{collection}/{}", document["metadata"]["name"].as_str().unwrap()));
            }
            let last = number + 1 == case.documents.len();
            assert!(last || stored.is_some(), "{}: {}", case.file, answer.1["message"]);
        }
        if let Err(instead) = case.expected.judge(answer.0, &answer.1) {
            wrong.push(format!("{} ({}): {instead}", case.file, case.what));
        }
        if let Some(path) = stored {
            let (code, _) = send(&rig, Method::DELETE, &path, &Value::Null).await;
            assert_eq!(code, 200, "{}", case.file);
        }
    }
    eprintln!("{} of {} verdicts agree", cases.len() - wrong.len(), cases.len());
    rig.stop().await;
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_api_server_takes_and_cannot_be_says_so() {
    let Some(rig) = Rig::start(serde_json::json!({})).await else { return };
    crate::said::every_object_says_it(&rig.client, &rig.namespace).await;
    rig.stop().await;
}
