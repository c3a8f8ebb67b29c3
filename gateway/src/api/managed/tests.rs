use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use serde_json::{Value, json};
use tonic_types::StatusExt as _;

use super::*;

/// An object with these labels, annotations, and managers of fields.
fn meta(labels: &[(&str, &str)], annotations: &[(&str, &str)], managers: &[(&str, &str, Value)]) -> ObjectMeta {
    let map = |pairs: &[(&str, &str)]| Some(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect());
    let entry = |(manager, operation, fields): &(&str, &str, Value)| ManagedFieldsEntry {
        manager: Some((*manager).to_owned()),
        operation: Some((*operation).to_owned()),
        fields_v1: Some(FieldsV1(fields.clone())),
        subresource: fields.get("f:status").map(|_| "status".to_owned()),
        ..ManagedFieldsEntry::default()
    };
    ObjectMeta {
        labels: map(labels),
        annotations: map(annotations),
        managed_fields: Some(managers.iter().map(entry).collect()),
        ..ObjectMeta::default()
    }
}

#[test]
fn who_manages_an_object() {
    let spec = || json!({"f:spec": {"f:command": {}}});
    let labelled = || json!({"f:metadata": {"f:labels": {".": {}, "f:app.kubernetes.io/instance": {}}}});
    let own = || ("openshell-gateway", "Update", spec());
    for (what, object, tool, words) in [
        ("made here", meta(&[], &[], &[own()]), None, ""),
        ("without managers", ObjectMeta::default(), None, ""),
        (
            "made and stopped here, its status written by the operator",
            meta(
                &[("app.kubernetes.io/managed-by", "somebody"), ("app.kubernetes.io/instance", "x")],
                &[("kubectl.kubernetes.io/restartedAt", "now")],
                &[
                    own(),
                    ("openshell-suspend", "Update", json!({"f:spec": {"f:suspend": {}}})),
                    ("openshell-operator", "Update", json!({"f:status": {"f:phase": {}}})),
                ],
            ),
            None,
            "",
        ),
        ("labelled by a person", meta(&[], &[], &[own(), ("kubectl-label", "Update", labelled())]), None, ""),
        ("another's status", meta(&[], &[], &[own(), ("x", "Apply", json!({"f:status": {"f:spec": {}}}))]), None, ""),
        ("from before managers were kept", meta(&[], &[], &[("before-first-apply", "Update", spec())]), None, ""),
        (
            "applied by Argo CD",
            meta(&[], &[], &[("argocd-controller", "Apply", spec())]),
            Some("argocd"),
            "Argo CD (field manager 'argocd-controller')",
        ),
        ("applied by kubectl", meta(&[], &[], &[("kubectl", "Apply", spec())]), Some("kubectl"), "kubectl (field manager 'kubectl')"),
        (
            "applied by kubectl without the server",
            meta(&[], &[], &[("kubectl-client-side-apply", "Update", spec())]),
            Some("kubectl"),
            "'kubectl-client-side-apply'",
        ),
        ("an empty spec", meta(&[], &[], &[("kubectl-create", "Update", json!({"f:spec": {}}))]), Some("kubectl"), "'kubectl-create'"),
        (
            "edited by a person after it was made here",
            meta(&[], &[], &[own(), ("kubectl-edit", "Update", json!({"f:spec": {"f:suspend": {}}}))]),
            Some("kubectl"),
            "'kubectl-edit'",
        ),
        (
            "applied from files",
            meta(&[], &[], &[("openshell-cli", "Apply", spec())]),
            Some("openshell-apply"),
            "`openshell apply` (field manager 'openshell-cli')",
        ),
        ("Flux by its manager", meta(&[], &[], &[("kustomize-controller", "Apply", spec())]), Some("flux"), "Flux (field manager"),
        (
            "two others",
            meta(&[], &[], &[("zeta", "Apply", spec()), ("alpha", "Update", spec()), ("alpha", "Apply", spec())]),
            Some("other"),
            "(field managers 'alpha', 'zeta')",
        ),
        (
            "tracked by Argo CD",
            meta(&[], &[("argocd.argoproj.io/tracking-id", "shop:openshell.ai/OpenShellSandbox:agents/demo")], &[own()]),
            Some("argocd"),
            "the Argo CD application 'shop'",
        ),
        (
            "tracked by Argo CD by the label that everybody uses",
            meta(&[("app.kubernetes.io/instance", "shop")], &[], &[("argocd-controller", "Update", labelled())]),
            Some("argocd"),
            "the Argo CD application 'shop'",
        ),
        (
            "tracked by Argo CD by a label of its own",
            meta(&[("argocd.argoproj.io/instance", "shop")], &[], &[]),
            Some("argocd"),
            "the Argo CD application 'shop'",
        ),
        (
            "a Kustomization",
            meta(&[("kustomize.toolkit.fluxcd.io/name", "apps"), ("kustomize.toolkit.fluxcd.io/namespace", "flux-system")], &[], &[]),
            Some("flux"),
            "the Flux Kustomization 'apps' in namespace 'flux-system'",
        ),
        (
            "a HelmRelease, which has the marks of Helm as well",
            meta(
                &[("helm.toolkit.fluxcd.io/name", "agents"), ("app.kubernetes.io/managed-by", "Helm")],
                &[("meta.helm.sh/release-name", "agents")],
                &[("helm-controller", "Apply", spec())],
            ),
            Some("flux"),
            "the Flux HelmRelease 'agents'",
        ),
        (
            "a Helm release",
            meta(
                &[("app.kubernetes.io/managed-by", "Helm")],
                &[("meta.helm.sh/release-name", "agents"), ("meta.helm.sh/release-namespace", "team")],
                &[],
            ),
            Some("helm"),
            "the Helm release 'agents' in namespace 'team'",
        ),
        ("Helm without its release", meta(&[("app.kubernetes.io/managed-by", "Helm")], &[], &[]), Some("helm"), "Helm"),
    ] {
        let found = manager(&object);
        assert_eq!(found.as_ref().map(|m| m.tool), tool, "{what}: {found:?}");
        assert!(found.is_none_or(|m| m.words.ends_with(words) || m.words.contains(words)), "{what}: {words}");
    }
}

#[test]
fn a_refusal_says_who_and_what_to_do_and_force_goes_ahead() {
    let object = meta(&[], &[], &[("argocd-controller", "Apply", json!({"f:spec": {"f:policy": {}}}))]);
    let refused = check("sandbox", "demo", &object, Force::No).unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    let info = refused.get_error_details().error_info().unwrap().clone();
    assert_eq!(info.reason, "MANAGED_ELSEWHERE");
    assert_eq!((info.metadata["manager"].as_str(), info.metadata["name"].as_str()), ("argocd", "argocd-controller"));
    for part in ["sandbox 'demo'", "argocd-controller", "change it there", "--force", "x-openshell-force"] {
        assert!(refused.message().contains(part), "{part}: {}", refused.message());
    }
    assert!(check("sandbox", "demo", &object, Force::Yes).is_ok());
}

#[test]
fn a_foreign_name_cannot_fill_a_message() {
    let id = format!("{}\n\u{1b}[31m", "x".repeat(100_000));
    let words = manager(&meta(&[], &[("argocd.argoproj.io/tracking-id", &id)], &[])).unwrap().words;
    assert!(words.len() < 200 && !words.chars().any(char::is_control), "{words}");
}

#[test]
fn force_is_said_clearly() {
    let request = |value: Option<&'static str>| {
        let mut request = Request::new(());
        if let Some(value) = value {
            request.metadata_mut().insert(FORCE_METADATA, value.parse().unwrap());
        }
        Force::of(&request).ok()
    };
    for (value, expected) in
        [(None, Some(Force::No)), (Some("false"), Some(Force::No)), (Some("true"), Some(Force::Yes)), (Some("yes"), None), (Some(""), None)]
    {
        assert_eq!(request(value), expected, "{value:?}");
    }
}
