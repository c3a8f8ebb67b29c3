//! Whose a service account token is: the API server's word, and the owners of the pod it names.
//!
//! ```text
//!   token ─TokenReview─▶ pod, by name and UID ─controller─▶ Sandbox ─controller─▶ OpenShellSandbox
//! ```
//!
//! Every step compares group, kind and UID: a name can be used again, and versions of the Sandbox come and
//! go. It compares names as well: whoever may make a pod or a Sandbox can write an owner into it, but of the
//! three that belong together there is one each of their name. A pod that somebody made by hand, or a Sandbox
//! that nobody of ours controls, gets nothing.

use std::collections::BTreeMap;

use futures::{FutureExt as _, future::BoxFuture};
use k8s_openapi::{
    api::{
        authentication::v1::{TokenReview, TokenReviewSpec, UserInfo},
        core::v1::Pod,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{
    Api, Client, Resource as _, ResourceExt as _,
    api::PostParams,
    core::{ApiResource, DynamicObject, GroupVersionKind},
};
use openshell_crds::OpenShellSandbox;

use crate::session::{Attest, AttestError, Attested};

/// Audience that the pods' tokens are for.
pub const AUDIENCE: &str = "openshell-gateway";
/// Group of the Sandbox.
const AGENTS: &str = "agents.x-k8s.io";
/// What the API server says of a bound token's pod.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// Asks the API server.
pub struct PodAttest {
    client: Client,
    namespace: String,
}

impl PodAttest {
    /// For the pods of this namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, namespace: namespace.to_owned() }
    }

    async fn attest(&self, token: &str) -> Result<Attested, AttestError> {
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![AUDIENCE.to_owned()]), token: token.to_owned() },
            ..TokenReview::default()
        };
        let review = Api::<TokenReview>::all(self.client.clone()).create(&PostParams::default(), &review).await.map_err(unavailable)?;
        let status = review.status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Err(AttestError::Unknown(status.error.unwrap_or_else(|| "it is not authenticated".to_owned())));
        }
        if !status.audiences.unwrap_or_default().iter().any(|audience| audience == AUDIENCE) {
            return Err(AttestError::Unknown(format!("it is not for the audience {AUDIENCE}")));
        }
        let (name, pod_uid) = pod_of(&status.user.unwrap_or_default(), &self.namespace)?;
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = pods.get_metadata_opt(&name).await.map_err(unavailable)?;
        let pod = pod.filter(|pod| pod.uid().as_deref() == Some(&pod_uid)).ok_or_else(|| foreign(format!("pod {name} is gone")))?;
        let owner = controller(pod.owner_references(), AGENTS, "Sandbox", &name);
        let owner = owner.ok_or_else(|| foreign(format!("no Sandbox of its name controls pod {name}")))?;
        let sandbox = self.sandbox(owner).await?;
        let ours = controller(sandbox.owner_references(), &OpenShellSandbox::group(&()), &OpenShellSandbox::kind(&()), &name);
        let ours = ours.ok_or_else(|| foreign(format!("no OpenShellSandbox of its name controls Sandbox {name}")))?;
        Ok(Attested { sandbox_id: ours.uid.clone(), pod_uid })
    }

    /// The very Sandbox that owns the pod. The version in an owner reference may not be served any
    /// more, so all that there were are asked for.
    async fn sandbox(&self, owner: &OwnerReference) -> Result<DynamicObject, AttestError> {
        for version in ["v1beta1", "v1alpha1"] {
            let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(AGENTS, version, "Sandbox"), "sandboxes");
            let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &kind);
            match api.get(&owner.name).await {
                Ok(found) if found.uid().as_deref() == Some(&owner.uid) => return Ok(found),
                Ok(_) => return Err(foreign(format!("Sandbox {} is another one than the pod's", owner.name))),
                // A version that is not served is 404 as well, without a reason.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(unavailable(error)),
            }
        }
        Err(foreign(format!("Sandbox {} is gone", owner.name)))
    }
}

impl Attest for PodAttest {
    fn attest<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Attested, AttestError>> {
        Self::attest(self, token).boxed()
    }
}

/// Name and UID of the pod that a token is bound to, if it is one of this namespace.
fn pod_of(user: &UserInfo, namespace: &str) -> Result<(String, String), AttestError> {
    let username = user.username.as_deref().unwrap_or_default();
    let ours = username.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')).is_some_and(|(ns, _)| ns == namespace);
    if !ours {
        return Err(foreign(format!("{username} is no service account of the namespace {namespace}")));
    }
    let none = BTreeMap::new();
    let extra = user.extra.as_ref().unwrap_or(&none);
    let one = |key: &str| match extra.get(key).map(Vec::as_slice) {
        Some([value]) if !value.is_empty() => Some(value.clone()),
        _ => None,
    };
    one(POD_NAME).zip(one(POD_UID)).ok_or_else(|| foreign("it is not bound to a pod".to_owned()))
}

/// The controller, if it is of this group and kind, and has this name.
fn controller<'a>(owners: &'a [OwnerReference], group: &str, kind: &str, name: &str) -> Option<&'a OwnerReference> {
    owners.iter().find(|owner| owner.controller == Some(true)).filter(|owner| {
        owner.kind == kind && owner.name == name && owner.api_version.split_once('/').is_some_and(|(found, _)| found == group)
    })
}

fn foreign(why: String) -> AttestError {
    AttestError::Foreign(why)
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unavailable(error: kube::Error) -> AttestError {
    AttestError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, extra: &[(&str, &[&str])]) -> UserInfo {
        let values = |list: &[&str]| list.iter().map(|&value| value.to_owned()).collect();
        UserInfo {
            username: Some(name.to_owned()),
            extra: Some(extra.iter().map(|(key, list)| ((*key).to_owned(), values(list))).collect()),
            ..UserInfo::default()
        }
    }

    #[test]
    fn only_tokens_that_are_bound_to_a_pod_of_the_namespace_count() {
        let bound: &[(&str, &[&str])] = &[(POD_NAME, &["demo"]), (POD_UID, &["u"])];
        assert_eq!(pod_of(&user("system:serviceaccount:boxes:default", bound), "boxes"), Ok(("demo".to_owned(), "u".to_owned())));
        for (name, extra) in [
            ("system:serviceaccount:other:default", bound),
            ("system:serviceaccount:boxes", bound),
            ("boxes:default", bound),
            ("", bound),
            ("system:serviceaccount:boxes:default", &[(POD_NAME, &["demo"])]),
            ("system:serviceaccount:boxes:default", &[(POD_NAME, &["demo"]), (POD_UID, &["u", "v"])]),
            ("system:serviceaccount:boxes:default", &[(POD_NAME, &[""]), (POD_UID, &["u"])]),
        ] {
            assert!(matches!(pod_of(&user(name, extra), "boxes"), Err(AttestError::Foreign(_))), "{name} {extra:?}");
        }
    }

    #[test]
    fn an_owner_counts_by_group_and_kind_whatever_its_version() {
        let owner = |api_version: &str, kind: &str, controller: bool| OwnerReference {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            name: "demo".to_owned(),
            controller: Some(controller),
            ..OwnerReference::default()
        };
        let found = |owners: &[OwnerReference]| controller(owners, AGENTS, "Sandbox", "demo").is_some();
        assert!(found(&[owner("agents.x-k8s.io/v1beta1", "Sandbox", true)]) && found(&[owner("agents.x-k8s.io/v1", "Sandbox", true)]));
        assert!(!found(&[owner("agents.x-k8s.io/v1beta1", "Sandbox", false)]), "an owner that does not control it");
        assert!(
            controller(&[owner("agents.x-k8s.io/v1beta1", "Sandbox", true)], AGENTS, "Sandbox", "other").is_none(),
            "another name than its own"
        );
        assert!(!found(&[owner("evil.agents.x-k8s.io/v1", "Sandbox", true)]) && !found(&[owner("v1", "Sandbox", true)]));
        assert!(!found(&[owner("apps/v1", "ReplicaSet", true), owner("agents.x-k8s.io/v1beta1", "Sandbox", false)]));
    }
}
