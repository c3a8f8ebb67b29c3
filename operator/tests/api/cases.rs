//! The table of manifests, against the API service.

use std::path::Path;

use http::{Method, Request, StatusCode};
use openshell_crds::cases::{self, Expected};
use serde_json::{Value, json};

use crate::common::{Store, send};

fn plural(kind: &str) -> &'static str {
    match kind {
        "OpenShellSandbox" => "openshellsandboxes",
        "OpenShellGateway" => "openshellgateways",
        "Provider" => "providers",
        "Policy" => "policies",
        other => panic!("no plural for {other}"),
    }
}

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
            let plural = plural(document["kind"].as_str().unwrap());
            let collection = format!("/apis/openshell.ai/v1alpha1/namespaces/{namespace}/{plural}");
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
        let (code, body) = answer;
        let as_expected = match &case.expected {
            Expected::Accepted => code.is_success(),
            Expected::Refused { code: expected, reason, field, message } => {
                let causes = body["details"]["causes"].as_array().cloned().unwrap_or_default();
                code.as_u16() == *expected
                    && body["reason"] == json!(reason)
                    && (field.is_empty() || causes.iter().any(|c| c["field"] == json!(field)))
                    && body["message"].as_str().unwrap_or_default().contains(message)
            }
        };
        if !as_expected {
            wrong.push(format!("{} ({}): {code} {} {}", case.file, case.what, body["message"], body["details"]["causes"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
