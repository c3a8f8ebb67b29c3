//! The operator dies between any two of its writes; the next one goes on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Secret, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{Api, ListParams};
use kube::client::Body;
use kube::runtime::watcher;
use kube::{Client, ResourceExt as _};
use openshell_crds::{OpenShellGateway, Policy};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tower::{ServiceExt as _, service_fn};

use crate::rig::{Operator, Rig, eventually, eventually_or};

/// On which side of a write it dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// The API server never sees it.
    Before,
    /// The API server has done it, and nobody has heard the answer.
    After,
}

/// Which writes count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Counted {
    /// All.
    #[default]
    All,
    /// Those that were not made before in the same words: an object that is applied again as it is does not change.
    New,
}

/// What an operator has written, and when it dies.
#[derive(Default)]
struct Fate {
    counted: Counted,
    seen: Mutex<HashSet<(String, Vec<u8>)>>,
    writes: AtomicUsize,
    end: Option<(usize, Side)>,
    dead: CancellationToken,
}

impl Fate {
    /// Which write this is, if it counts.
    fn count(&self, method: &Method, path: &str, body: &[u8]) -> Option<usize> {
        let new = self.seen.lock().unwrap().insert((format!("{method} {path}"), body.to_vec()));
        let counts = *method != Method::GET && (new || self.counted == Counted::All);
        counts.then(|| self.writes.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// A client through which nothing goes any more once its owner is dead.
fn mortal(client: Client, fate: &Arc<Fate>) -> Client {
    let namespace = client.default_namespace().to_owned();
    let fate = Arc::clone(fate);
    let service = service_fn(move |request: Request<Body>| {
        let (client, fate) = (client.clone(), Arc::clone(&fate));
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes();
            let write = fate.count(&head.method, head.uri.path(), &body);
            let request = Request::from_parts(head, Body::from(body.to_vec()));
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

/// What happens in a namespace under an operator with this fate, and under another one after it. With it, how many
/// writes the first one made.
async fn under<T>(rig: &mut Rig, fate: Fate, start: fn(Client, &str) -> Operator, life: impl AsyncFnOnce(&Rig) -> T) -> (T, usize) {
    let fate = Arc::new(fate);
    let first = start(mortal(rig.client.clone(), &fate), &rig.namespace);
    let over = CancellationToken::new();
    let heir = tokio::spawn({
        let (client, namespace, fate, over) = (rig.client.clone(), rig.namespace.clone(), Arc::clone(&fate), over.clone());
        async move {
            tokio::select! {
                () = fate.dead.cancelled() => {}
                () = over.cancelled() => return first,
            }
            first.kill();
            start(client, &namespace)
        }
    });
    let lived = life(rig).await;
    over.cancel();
    rig.operator = Some(heir.await.unwrap());
    (lived, fate.writes.load(Ordering::SeqCst))
}

/// The same on either side of every write.
async fn at_every(writes: usize, dies: impl AsyncFn(usize, Side)) {
    const AT_A_TIME: usize = 4;
    let ends = (1..=writes).flat_map(|nth| [(nth, Side::Before), (nth, Side::After)]);
    let one = async |(nth, side)| {
        eprintln!("it dies {side:?} write {nth}");
        dies(nth, side).await;
    };
    futures::stream::iter(ends).map(one).buffer_unordered(AT_A_TIME).for_each(async |()| {}).await;
}

/// A life of a sandbox, and how many writes the first operator made; `None` without a cluster.
async fn lived(end: Option<(usize, Side)>) -> Option<usize> {
    let mut rig = Rig::idle(json!({})).await?;
    let ((), writes) = under(&mut rig, Fate { end, ..Fate::default() }, Operator::start, life).await;
    rig.stop().await;
    Some(writes)
}

#[tokio::test(flavor = "multi_thread")]
async fn between_any_two_writes() {
    let Some(writes) = lived(None).await else { return };
    eprintln!("an undisturbed life has {writes} writes");
    assert!(writes >= 8, "the Policy and its revision, the Sandbox three times, four statuses: {writes}");
    at_every(writes, async |nth, side| {
        lived(Some((nth, side))).await;
    })
    .await;
}

/// What an operator makes of a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Deployed {
    /// Kind and name.
    objects: BTreeSet<String>,
    /// Type, status and reason.
    conditions: BTreeSet<String>,
    endpoint: Option<String>,
    certificates: bool,
}

async fn names<K>(rig: &Rig) -> Vec<String>
where
    K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let found = rig.api::<K>().list(&ListParams::default()).await.unwrap().items;
    found.iter().map(|object| format!("{} {}", K::kind(&()), object.name_any())).collect()
}

async fn deployed(rig: &Rig) -> Deployed {
    let lists = [
        names::<Secret>(rig).await,
        names::<ConfigMap>(rig).await,
        names::<ServiceAccount>(rig).await,
        names::<Service>(rig).await,
        names::<PersistentVolumeClaim>(rig).await,
        names::<Deployment>(rig).await,
        names::<NetworkPolicy>(rig).await,
    ];
    let of_the_cluster = ["ConfigMap kube-root-ca.crt", "ServiceAccount default"];
    let status = rig.api::<OpenShellGateway>().get("default").await.unwrap().status.unwrap_or_default();
    Deployed {
        objects: lists.into_iter().flatten().filter(|name| !of_the_cluster.contains(&name.as_str())).collect(),
        conditions: status.conditions.iter().map(|c| format!("{}={} {}", c.type_, c.status, c.reason)).collect(),
        endpoint: status.endpoint.map(|endpoint| endpoint.replace(&rig.namespace, "openshell")),
        certificates: status.certificates.is_some_and(|ends| ends.server_ends.is_some() && ends.authority_ends.is_some()),
    }
}

/// Every key that a Secret has ever had, by the Secret's name.
#[derive(Clone, Default)]
struct Keys(Arc<Mutex<BTreeMap<String, HashSet<Vec<u8>>>>>);

impl Keys {
    /// Sees them until it is dropped.
    fn watch(&self, secrets: Api<Secret>) -> AbortOnDropHandle<()> {
        let seen = Arc::clone(&self.0);
        AbortOnDropHandle::new(tokio::spawn(async move {
            let mut events = std::pin::pin!(watcher(secrets, watcher::Config::default()));
            while let Some(event) = events.next().await {
                let (watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) = event.unwrap() else { continue };
                let data = secret.data.clone().unwrap_or_default();
                let key = data.get("tls.key").or_else(|| data.get("signing.pem")).expect("a key");
                seen.lock().unwrap().entry(secret.name_any()).or_default().insert(key.0.clone());
            }
        }))
    }
}

/// A gateway under an operator with this fate; `like` is what an undisturbed operator makes of it.
async fn gateway(end: Option<(usize, Side)>, like: Option<&Deployed>) -> Option<(Deployed, usize)> {
    let mut rig = Rig::idle(json!({})).await?;
    rig.without_authority().await;
    // No node takes its pod, which is a state that lasts.
    let nowhere = json!({ "nodeSelector": { "example.com/there-is": "none" }, "storage": { "size": "16Mi" } });
    rig.patch_gateway(json!({ "deployment": nowhere })).await;
    let keys = Keys::default();
    let watching = keys.watch(rig.api());
    let (made, writes) = under(&mut rig, Fate { end, counted: Counted::New, ..Fate::default() }, Operator::deploying, async |rig| {
        let steady = |made: &Deployed| like.map_or_else(|| made.conditions.contains("Stalled=True Unschedulable"), |like| made == like);
        let last = Mutex::new(None);
        let reached = async || {
            let made = deployed(rig).await;
            let steady = steady(&made);
            *last.lock().unwrap() = Some(made);
            steady
        };
        eventually_or(reached, || format!("after {end:?}: {:#?} instead of {like:#?}", last.lock().unwrap())).await;
        // Whatever is still on its way: the NetworkPolicy waits a moment for the nodes, and the last Event is told.
        tokio::time::sleep(Duration::from_secs(3)).await;
        deployed(rig).await
    })
    .await;
    drop(watching);
    if let Some(like) = like {
        assert_eq!(&made, like, "after {end:?}");
    }
    for (name, keys) in keys.0.lock().unwrap().iter() {
        assert_eq!(keys.len(), 1, "after {end:?} the key of {name} was made again");
    }
    let deployment = rig.api::<Deployment>().get("default-gateway").await.unwrap();
    assert_eq!(deployment.metadata.generation, Some(1), "after {end:?} the Deployment was changed: its pod would be replaced");
    rig.stop().await;
    Some((made, writes))
}

#[tokio::test(flavor = "multi_thread")]
async fn between_any_two_writes_of_a_gateway() {
    let Some((made, writes)) = gateway(None, None).await else { return };
    eprintln!("an undisturbed gateway has {writes} writes: {made:#?}");
    assert!(writes >= 11, "four Secrets, five more objects, the NetworkPolicy and a status: {writes}");
    assert_eq!(made.objects.len(), 10, "{made:#?}");
    at_every(writes, async |nth, side| {
        gateway(Some((nth, side)), Some(&made)).await;
    })
    .await;
}
