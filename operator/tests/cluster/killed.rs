//! The operator dies between any two of its writes; the next one goes on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::StreamExt as _;
use http::{Method, Request};
use kube::Client;
use kube::client::Body;
use openshell_crds::Policy;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tower::{ServiceExt as _, service_fn};

use crate::rig::{Operator, Rig, eventually};

/// On which side of a write it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The API server never sees it.
    Before,
    /// The API server has done it, and nobody has heard the answer.
    After,
}

/// What an operator has written, and when it dies.
#[derive(Default)]
struct Fate {
    writes: AtomicUsize,
    end: Option<(usize, Side)>,
    dead: CancellationToken,
}

/// A client through which nothing goes any more once its owner is dead.
fn mortal(client: Client, fate: &Arc<Fate>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let fate = Arc::clone(fate);
    let service = service_fn(move |request: Request<Body>| {
        let (client, fate) = (client.clone(), Arc::clone(&fate));
        async move {
            let write = (*request.method() != Method::GET).then(|| fate.writes.fetch_add(1, Ordering::SeqCst) + 1);
            let side = fate.end.filter(|(nth, _)| write == Some(*nth)).map(|(_, side)| side);
            if side == Some(Side::Before) {
                fate.dead.cancel();
            }
            if fate.dead.is_cancelled() {
                return std::future::pending().await;
            }
            let answer = client.send(request).await?;
            if side == Some(Side::After) {
                fate.dead.cancel();
                return std::future::pending().await;
            }
            Ok::<_, tower::BoxError>(answer)
        }
    });
    Client::new(service.boxed_clone(), namespace)
}

/// A sandbox from its creation to its end, stopped and started on the way.
async fn life(rig: &Rig) {
    rig.make(Policy::new("web", serde_json::from_value(json!({ "policy": { "version": 1 } })).unwrap())).await;
    eventually("the policy is accepted", async || {
        let policy = rig.api::<Policy>().get("web").await.unwrap();
        policy.status.is_some_and(|status| status.revision == Some(1))
    })
    .await;
    let (uid, first) = rig.create_ready("demo", json!({ "policyRef": { "name": "web" } })).await;

    rig.halt("demo").await;
    assert!(rig.pods(&uid).await.is_empty(), "nothing is left running");

    rig.suspend("demo", false).await;
    rig.ready("demo", &uid, Some(&first)).await;
    assert_eq!(rig.pods(&uid).await.len(), 1, "nothing is made twice");
    let agents = rig.agents().list(&kube::api::ListParams::default()).await.unwrap();
    assert_eq!(agents.items.len(), 1, "nothing is made twice");

    rig.delete("demo").await;
    eventually("nothing is left", async || {
        rig.sandboxes().get_opt("demo").await.unwrap().is_none()
            && rig.agents().get_opt("demo").await.unwrap().is_none()
            && rig.pods(&uid).await.is_empty()
    })
    .await;
}

/// A life under an operator with this fate, and under another one after it. How many writes the first
/// one made; `None` without a cluster.
async fn lived(end: Option<(usize, Side)>) -> Option<usize> {
    let mut rig = Rig::idle(json!({})).await?;
    let fate = Arc::new(Fate { end, ..Fate::default() });
    let first = Operator::start(mortal(rig.client.clone(), &fate), &rig.namespace);
    let over = CancellationToken::new();
    let heir = tokio::spawn({
        let (client, namespace, fate, over) = (rig.client.clone(), rig.namespace.clone(), Arc::clone(&fate), over.clone());
        async move {
            tokio::select! {
                () = fate.dead.cancelled() => {}
                () = over.cancelled() => return first,
            }
            first.kill();
            Operator::start(client, &namespace)
        }
    });
    life(&rig).await;
    over.cancel();
    rig.operator = Some(heir.await.unwrap());
    rig.stop().await;
    Some(fate.writes.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread")]
async fn between_any_two_writes() {
    const AT_A_TIME: usize = 4;
    let Some(writes) = lived(None).await else { return };
    eprintln!("an undisturbed life has {writes} writes");
    assert!(writes >= 8, "the Policy and its revision, the Sandbox three times, four statuses: {writes}");
    let ends = (1..=writes).flat_map(|nth| [(nth, Side::Before), (nth, Side::After)]);
    futures::stream::iter(ends)
        .map(async |(nth, side)| {
            eprintln!("it dies {side:?} write {nth}");
            lived(Some((nth, side))).await;
        })
        .buffer_unordered(AT_A_TIME)
        .for_each(async |()| {})
        .await;
}
