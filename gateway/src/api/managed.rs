//! Who manages an object, and what this API may do to it then.
//!
//! An object that a GitOps tool keeps, or that somebody applies from files, is described elsewhere:
//! what is changed here is undone from there at some later moment, or stays and is a difference that
//! nobody wrote down. So the imperative API leaves such an object alone and says who has it, unless
//! it is told to go ahead ([`FORCE_METADATA`]). What it reads is what everybody writes: the labels and
//! annotations by which the tools find their objects, and the managers of the fields of `spec`.
//!
//! Stopping and starting are always possible: see [`super::lifecycle`].

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use openshell_crds::labels;
use openshell_proto::FORCE_METADATA;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

use super::{FIELD_MANAGER, SUSPEND_MANAGER};
use crate::errors;

/// Managers of fields that are this product. The last one is nobody: it has what was there before
/// managers were kept.
const OWN: [&str; 4] = [FIELD_MANAGER, SUSPEND_MANAGER, openshell_operator::FIELD_MANAGER, "before-first-apply"];

/// Characters of a foreign name that are shown.
const SHOWN: usize = 128;

/// Whether an object is changed that is managed elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    /// It is left alone.
    No,
    /// It is changed.
    Yes,
}

impl Force {
    /// What the request says.
    pub(super) fn of<T>(request: &Request<T>) -> Result<Self, Status> {
        match request.metadata().get(FORCE_METADATA).map(MetadataValue::as_bytes) {
            None | Some(b"false") => Ok(Self::No),
            Some(b"true") => Ok(Self::Yes),
            Some(_) => Err(errors::invalid(FORCE_METADATA, "this metadata is true or false")),
        }
    }
}

/// Who manages an object.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Manager {
    /// The tool, for programs.
    tool: &'static str,
    /// What of the tool: an application, a release, or the manager of fields.
    name: String,
    /// Both, in words.
    words: String,
}

/// Refuses what is managed elsewhere, unless it is forced.
pub(super) fn check(kind: &str, name: &str, meta: &ObjectMeta, force: Force) -> Result<(), Status> {
    let Some(manager) = manager(meta).filter(|_| force == Force::No) else { return Ok(()) };
    let message = format!(
        "{kind} '{name}' is managed by {}; change it there, or repeat with --force (request metadata {FORCE_METADATA}: true)",
        manager.words
    );
    Err(errors::managed_elsewhere(message, manager.tool, &manager.name))
}

/// Who manages the object, if somebody else does.
fn manager(meta: &ObjectMeta) -> Option<Manager> {
    tracked(meta).or_else(|| field_managers(meta))
}

/// By the marks with which tools find their objects.
fn tracked(meta: &ObjectMeta) -> Option<Manager> {
    let label = |key: &str| meta.labels.as_ref().and_then(|l| l.get(key)).map(|v| shown(v));
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key)).map(|v| shown(v));
    let named = |tool, what: &str, name: String, namespace: Option<String>| {
        let place = namespace.map(|n| format!(" in namespace '{n}'")).unwrap_or_default();
        Some(Manager { tool, words: format!("the {what} '{name}'{place}"), name })
    };

    // `application:group/kind:namespace/name`, in the mode of tracking that is the default.
    if let Some(id) = annotation("argocd.argoproj.io/tracking-id") {
        return named("argocd", "Argo CD application", id.split(':').next().unwrap_or_default().to_owned(), None);
    }
    // In the mode by label the label is one that everybody uses; who writes the object tells.
    let argo = || managers(meta).any(|(name, _)| name.starts_with("argocd"));
    let instance = label("argocd.argoproj.io/instance").or_else(|| label("app.kubernetes.io/instance").filter(|_| argo()));
    if let Some(application) = instance {
        return named("argocd", "Argo CD application", application, None);
    }
    // Before Helm: what a HelmRelease of Flux installs carries the marks of both.
    for (group, what) in [("kustomize.toolkit.fluxcd.io", "Flux Kustomization"), ("helm.toolkit.fluxcd.io", "Flux HelmRelease")] {
        if let Some(name) = label(&format!("{group}/name")) {
            return named("flux", what, name, label(&format!("{group}/namespace")));
        }
    }
    if let Some(release) = annotation("meta.helm.sh/release-name") {
        return named("helm", "Helm release", release, annotation("meta.helm.sh/release-namespace"));
    }
    let helm = label(labels::MANAGED_BY).is_some_and(|by| by == "Helm");
    helm.then(|| Manager { tool: "helm", name: String::new(), words: "Helm".to_owned() })
}

/// By who wrote something of its `spec`.
fn field_managers(meta: &ObjectMeta) -> Option<Manager> {
    let mut foreign: Vec<&str> = managers(meta).filter(|(name, spec)| *spec && !OWN.contains(name)).map(|(name, _)| name).collect();
    foreign.sort_unstable();
    foreign.dedup();
    let first = foreign.first()?;
    let tool = match *first {
        name if name.starts_with("argocd") => "argocd",
        "kustomize-controller" | "helm-controller" => "flux",
        "helm" => "helm",
        name if name.starts_with("kubectl") => "kubectl",
        "openshell-cli" => "openshell-apply",
        _ => "other",
    };
    let names: Vec<String> = foreign.iter().map(|name| format!("'{}'", shown(name))).collect();
    let fields = format!("field manager{} {}", if names.len() == 1 { "" } else { "s" }, names.join(", "));
    let words = match tool {
        "argocd" => format!("Argo CD ({fields})"),
        "flux" => format!("Flux ({fields})"),
        "helm" => format!("Helm ({fields})"),
        "kubectl" => format!("somebody with kubectl ({fields})"),
        "openshell-apply" => format!("files that are applied with `openshell apply` ({fields})"),
        _ => format!("somebody else ({fields})"),
    };
    Some(Manager { tool, name: shown(first), words })
}

/// Every manager of fields of the object, and whether it has one of `spec`.
fn managers(meta: &ObjectMeta) -> impl Iterator<Item = (&str, bool)> {
    meta.managed_fields.iter().flatten().map(|entry| {
        let spec = entry.fields_v1.as_ref().is_some_and(|fields| fields.0.get("f:spec").is_some());
        (entry.manager.as_deref().unwrap_or_default(), spec)
    })
}

/// A name that somebody else chose, fit for a message.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests;
