//! The table of manifests, against the API service.

use std::path::Path;

use http::{Method, Request, StatusCode};
use openshell_crds::cases;
use serde_json::Value;

use crate::common::{Store, send};

#[tokio::test]
async fn every_case_has_its_verdict() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/tests/cases");
    let cases = cases::read(&directory).unwrap();
    assert!(cases.len() > 40, "the table was not found");
    let store = Store::new().await;
    let mut wrong = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let namespace = format!("case-{index}");
        let count = case.documents.len();
        let mut answer = (StatusCode::OK, Value::Null);
        for (number, document) in case.documents.iter().enumerate() {
            let collection = case.collection(&namespace);
            let mut document = document.clone();
            let (method, path) = if number == 0 {
                (Method::POST, collection)
            } else {
                document["metadata"]["resourceVersion"] = answer.1["metadata"]["resourceVersion"].clone();
                (Method::PUT, format!("{collection}/{}", document["metadata"]["name"].as_str().unwrap()))
            };
            let request =
                Request::builder().method(method).uri(format!("{path}?fieldValidation=Strict")).body(document.to_string()).unwrap();
            answer = send(&store.api, request).await;
            if number + 1 < count {
                assert!(answer.0.is_success(), "{}: {}", case.file, answer.1["message"]);
            }
        }
        if let Err(instead) = case.expected.judge(answer.0.as_u16(), &answer.1) {
            wrong.push(format!("{} ({}): {instead}", case.file, case.what));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_example_is_taken() {
    let store = Store::new().await;
    let examples = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")).unwrap();
    let mut taken = 0;
    for path in examples.map(|entry| entry.unwrap().path()) {
        for document in std::fs::read_to_string(&path).unwrap().split("\n---\n") {
            let document: Value = serde_saphyr::from_str(document).unwrap();
            let collection = match document["kind"].as_str().unwrap() {
                "Secret" => "api/v1/namespaces/examples/secrets",
                "Provider" => "apis/openshell.ai/v1alpha1/namespaces/examples/providers",
                "Policy" => "apis/openshell.ai/v1alpha1/namespaces/examples/policies",
                "OpenShellSandbox" => "apis/openshell.ai/v1alpha1/namespaces/examples/openshellsandboxes",
                other => panic!("{}: {other}", path.display()),
            };
            let uri = format!("/{collection}?fieldValidation=Strict");
            let request = Request::builder().method(Method::POST).uri(uri).body(document.to_string()).unwrap();
            let (status, answer) = send(&store.api, request).await;
            assert_eq!(status, StatusCode::CREATED, "{}: {}", path.display(), answer["message"]);
            if document["kind"] == "Policy" || document["spec"]["policy"].is_object() {
                let policy = openshell_policy::from_value(&document["spec"]["policy"]);
                assert!(policy.is_ok(), "{}: {:?}", path.display(), policy.err());
            }
            taken += 1;
        }
    }
    assert!(taken >= 7, "the examples were not found");
}
