//! Two operators, one lease.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use openshell_operator::lease::{Candidate, Times};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::rig::Rig;

fn candidate(rig: &Rig, identity: &str) -> Candidate {
    let times = Times { duration: Duration::from_secs(2), renew_deadline: Duration::from_millis(1500), retry: Duration::from_millis(200) };
    Candidate { leases: rig.api::<Lease>(), name: "openshell-operator-default".into(), identity: identity.into(), times }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_leads_and_the_other_follows() {
    let Some(rig) = Rig::idle(json!({})).await else { return };
    let (first, second) = (candidate(&rig, "first"), candidate(&rig, "second"));
    let never = CancellationToken::new();
    assert!(first.acquire(&never, || {}).await);
    let resigns = CancellationToken::new();
    let keeping = tokio::spawn({
        let (first, resigns) = (first.clone(), resigns.clone());
        async move { first.keep(&resigns).await }
    });
    let waited = tokio::time::timeout(Duration::from_secs(5), second.acquire(&never, || {})).await;
    assert!(waited.is_err(), "it is held as long as it is renewed");
    resigns.cancel();
    keeping.await.unwrap();
    first.release().await;
    let taken = tokio::time::timeout(Duration::from_secs(1), second.acquire(&never, || {})).await;
    assert_eq!(taken, Ok(true), "given back, it is free at once");

    // The second one dies without a word.
    let taken = tokio::time::timeout(Duration::from_secs(1), first.acquire(&never, || {})).await;
    assert!(taken.is_err(), "it is not free before it has run out");
    let taken = tokio::time::timeout(Duration::from_secs(4), first.acquire(&never, || {})).await;
    assert_eq!(taken, Ok(true));
    let lost = tokio::time::timeout(Duration::from_secs(3), second.keep(&never)).await;
    assert!(lost.is_ok(), "who comes back finds that it leads no more");
    let lease = rig.api::<Lease>().get("openshell-operator-default").await.unwrap().spec.unwrap();
    assert_eq!((lease.holder_identity.as_deref(), lease.lease_transitions), (Some("first"), Some(2)));
    rig.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_that_want_it_at_once_one_has_it() {
    let Some(rig) = Rig::idle(json!({})).await else { return };
    let enough = CancellationToken::new();
    let all: Vec<_> = (0..8)
        .map(|i| {
            let (candidate, enough) = (candidate(&rig, &format!("candidate-{i}")), enough.clone());
            tokio::spawn(async move { candidate.acquire(&enough, || {}).await })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    enough.cancel();
    let won = futures::future::join_all(all).await.into_iter().filter(|won| *won.as_ref().unwrap()).count();
    assert_eq!(won, 1);
    rig.stop().await;
}
