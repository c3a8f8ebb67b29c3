//! The part of the table of manifests that an API server takes although they cannot be: what each
//! object comes to say of itself, with the controllers working. The same for local and cluster.

use std::path::Path;
use std::time::{Duration, Instant};

use http::{Method, Request};
use kube::Client;
use openshell_crds::cases;
use serde_json::Value;

pub(crate) async fn every_object_says_it(client: &Client, namespace: &str) {
    let cases = cases::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/tests/cases")).unwrap();
    let mut wrong = Vec::new();
    let mut told = 0;
    for (case, said) in cases.iter().filter_map(|case| Some((case, case.said.as_ref()?))) {
        let [document] = &case.documents[..] else { panic!("{}: one document", case.file) };
        let collection = case.collection(namespace);
        let path = format!("{collection}/{}", document["metadata"]["name"].as_str().unwrap());
        ask(client, Method::POST, &collection, document.to_string()).await;
        let end = Instant::now() + Duration::from_secs(20);
        let verdict = loop {
            let verdict = said.judge(&ask(client, Method::GET, &path, String::new()).await);
            if verdict.is_ok() || Instant::now() > end {
                break verdict;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        if let Err(instead) = verdict {
            wrong.push(format!("{} ({}): {instead}", case.file, case.what));
        }
        ask(client, Method::DELETE, &path, String::new()).await;
        while asked(client, Method::GET, &path, String::new()).await.is_ok() {
            assert!(Instant::now() < end + Duration::from_secs(20), "{}: it does not go", case.file);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        told += 1;
    }
    eprintln!("{} of {told} objects say what they must", told - wrong.len());
    assert!(told > 10, "the table was not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

async fn ask(client: &Client, method: Method, path: &str, body: String) -> Value {
    asked(client, method, path, body).await.unwrap()
}

async fn asked(client: &Client, method: Method, path: &str, body: String) -> kube::Result<Value> {
    let request = Request::builder().method(method).uri(path).header("Content-Type", "application/json");
    client.request(request.body(body.into_bytes()).unwrap()).await
}
