//! Prints what the in-process API service costs: opening, creating, reading, and from a create
//! until a controller's status is there.
//!
//! `cargo run --release -p openshell-operator --example api_latency`
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::controller::Action;
use kube::runtime::{Controller, watcher};
use openshell_crds::{OpenShellSandbox, OpenShellSandboxSpec};
use openshell_operator::api::LocalApi;
use serde_json::json;

const COUNT: usize = 500;

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_micros();
    println!("{what:<36} p50 {:>6} us   p99 {:>6} us   n {}", at(50), at(99), times.len());
}

fn sandbox(name: &str) -> OpenShellSandbox {
    OpenShellSandbox::new(name, OpenShellSandboxSpec { command: vec!["true".into()], ..OpenShellSandboxSpec::default() })
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let local = LocalApi::open(&directory.path().join("openshell.db"), &directory.path().join("seal.key")).await.unwrap();
    println!("{:<36} {:>10} us", "open", start.elapsed().as_micros());
    let api: Api<OpenShellSandbox> = Api::default_namespaced(local.client());

    let mut creates = Vec::new();
    let mut gets = Vec::new();
    let mut patches = Vec::new();
    for index in 0..COUNT {
        let object = sandbox(&format!("plain-{index}"));
        let start = Instant::now();
        api.create(&PostParams::default(), &object).await.unwrap();
        creates.push(start.elapsed());
        let start = Instant::now();
        api.get(&format!("plain-{index}")).await.unwrap();
        gets.push(start.elapsed());
        let patch = Patch::Merge(json!({ "status": { "phase": "Ready", "driver": "process" } }));
        let start = Instant::now();
        api.patch_status(&format!("plain-{index}"), &PatchParams::default(), &patch).await.unwrap();
        patches.push(start.elapsed());
    }
    report("create", creates);
    report("get", gets);
    report("patch status", patches);
    let start = Instant::now();
    let listed = api.list(&ListParams::default()).await.unwrap().items.len();
    println!("{:<36} {:>10} us", format!("list {listed}"), start.elapsed().as_micros());

    let controller = Controller::new(api.clone(), watcher::Config::default()).run(
        |object: Arc<OpenShellSandbox>, api: Arc<Api<OpenShellSandbox>>| async move {
            if object.status.is_none() {
                let name = object.metadata.name.clone().unwrap_or_default();
                api.patch_status(&name, &PatchParams::default(), &Patch::Merge(json!({ "status": { "phase": "Ready" } }))).await?;
            }
            Ok::<_, kube::Error>(Action::await_change())
        },
        |_, error, _| {
            eprintln!("{error}");
            Action::requeue(Duration::from_secs(1))
        },
        Arc::new(api.clone()),
    );
    tokio::spawn(controller.for_each(|_| async {}));
    tokio::time::sleep(Duration::from_millis(200)).await;
    let mut times = Vec::new();
    for index in 0..COUNT {
        let name = format!("watched-{index}");
        let start = Instant::now();
        api.create(&PostParams::default(), &sandbox(&name)).await.unwrap();
        while api.get(&name).await.unwrap().status.is_none() {
            tokio::time::sleep(Duration::from_micros(50)).await;
        }
        times.push(start.elapsed());
    }
    report("create -> controller wrote status", times);
}
