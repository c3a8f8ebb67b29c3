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
