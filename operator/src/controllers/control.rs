//! What every controller does: it takes objects from a queue, one at a time each, reconciles them,
//! and comes back to what failed after growing pauses.

use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::Arc;

use futures::{FutureExt as _, Stream, StreamExt as _};
use kube::ResourceExt as _;
use kube::runtime::applier;
use kube::runtime::controller::{Action as Next, Config};
use kube::runtime::reflector::ObjectRef;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use super::backoff::Backoff;
use super::watched::{Guarded, Watched};
use crate::limits;
use crate::metrics::Metrics;

/// Reconciles the objects of `queue` until shutdown.
pub(super) async fn control<K, R, W, E>(
    controller: &'static str,
    metrics: &Metrics,
    objects: &Watched<K>,
    queue: impl Stream<Item = ObjectRef<Guarded<K>>> + Send + 'static,
    shutdown: CancellationToken,
    reconcile: R,
) where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    R: Fn(Arc<Guarded<K>>) -> W,
    W: Future<Output = Result<Next, E>> + Send + 'static,
    E: std::error::Error + Send + 'static,
{
    applier(
        |object: Arc<Guarded<K>>, backoff: Arc<Backoff>| {
            let name = object.name_any();
            let work = metrics.timed(controller, reconcile(object));
            async move { work.await.inspect(|_| backoff.settled(&name)) }.boxed()
        },
        |object, error, backoff| {
            let pause = backoff.failed(&object.name_any());
            tracing::warn!(controller, object = object.name_any(), %error, ?pause, "an object could not be reconciled and is tried again");
            Next::requeue(pause)
        },
        Arc::new(Backoff::default()),
        objects.store().clone(),
        queue.map(Ok::<_, Infallible>).take_until(shutdown.cancelled_owned()).boxed(),
        Config::default().concurrency(limits::RECONCILE_CONCURRENCY),
    )
    .for_each(|_| std::future::ready(()))
    .await;
}
