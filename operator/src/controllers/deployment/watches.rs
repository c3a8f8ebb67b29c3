//! Notice of every change to what a gateway consists of.
//!
//! Each object is watched by its name and without its content, so that the operator needs no right to list what is not
//! its own. Pods have names of their own: they are watched by label.

use std::fmt::Debug;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;

use crate::watching;

/// Yields whenever something that belongs to the gateway `name` may have changed: in its namespace, and in that of its
/// sandboxes, whose pods do not start without the authority. `client_secrets` says under which name users find their
/// certificate, again whenever that may have changed.
pub(super) fn of(
    client: &Client,
    namespace: &str,
    sandboxes: &str,
    name: &str,
    client_secrets: BoxStream<'static, String>,
) -> BoxStream<'static, ()> {
    let part = |suffix: &str| named(&format!("{name}-gateway{suffix}"));
    let pods = watcher::Config::default().labels(&format!("app.kubernetes.io/name=openshell-gateway,app.kubernetes.io/instance={name}"));
    let elsewhere = if sandboxes == namespace { stream::empty().boxed() } else { changes::<ConfigMap>(client, sandboxes, part("-ca")) };
    stream::select_all([
        elsewhere,
        changes::<Deployment>(client, namespace, part("")),
        changes::<Service>(client, namespace, part("")),
        changes::<ServiceAccount>(client, namespace, part("")),
        changes::<ConfigMap>(client, namespace, part("-ca")),
        changes::<Secret>(client, namespace, part("-ca")),
        changes::<Secret>(client, namespace, part("-tls")),
        changes::<Secret>(client, namespace, part("-jwt")),
        renamed(client.clone(), namespace.to_owned(), client_secrets),
        changes::<Pod>(client, namespace, pods),
    ])
    .boxed()
}

fn named(name: &str) -> watcher::Config {
    watcher::Config::default().fields(&format!("metadata.name={name}"))
}

/// Changes of the Secret whose name was said last.
fn renamed(client: Client, namespace: String, names: BoxStream<'static, String>) -> BoxStream<'static, ()> {
    let nothing = stream::pending::<()>().boxed();
    stream::unfold((names, nothing, String::new()), move |(mut names, mut changed, mut watched)| {
        let (client, namespace) = (client.clone(), namespace.clone());
        async move {
            loop {
                tokio::select! {
                    name = names.next() => {
                        let name = name?;
                        if name != watched {
                            changed = changes::<Secret>(&client, &namespace, named(&name));
                            watched = name;
                        }
                    }
                    Some(()) = changed.next() => return Some(((), (names, changed, watched))),
                }
            }
        }
    })
    .boxed()
}

fn changes<K>(client: &Client, namespace: &str, config: watcher::Config) -> BoxStream<'static, ()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), namespace);
    watching::watch(api, config)
        .filter_map(|event| async move {
            match event {
                Ok(watcher::Event::Init) => None,
                Ok(_) => Some(()),
                Err(error) => {
                    tracing::warn!(kind = %K::kind(&()), %error, "a watch of the gateway's parts broke and is taken up again");
                    None
                }
            }
        })
        .boxed()
}
