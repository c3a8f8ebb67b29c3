//! Discovery: what is served, in the forms that `kubectl` and `kube::discovery` read.

use bytes::Bytes;
use serde_json::{Value, json};

use super::kinds::{Family, Kind, Kinds};
use super::service::document;

const JSON: &str = "application/json";
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// The document at a path outside the collections.
pub(crate) fn serve(path: &[&str], accept: &str, kinds: &Kinds) -> Option<(&'static str, Bytes)> {
    let aggregated = wants_aggregated(accept);
    let value = match path {
        ["version"] => version(),
        ["healthz" | "livez" | "readyz"] => return Some(("text/plain", Bytes::from_static(b"ok"))),
        ["api"] if aggregated => return Some((AGGREGATED, document(&discovery(kinds, Legacy::Core)))),
        ["apis"] if aggregated => return Some((AGGREGATED, document(&discovery(kinds, Legacy::Groups)))),
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ["apis"] => {
            let groups: Vec<Value> = groups(kinds).into_iter().filter(|g| !g.is_empty()).map(|g| group(&g, kinds)).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", name] if !name.is_empty() && groups(kinds).iter().any(|g| g == name) => group(name, kinds),
        ["api", "v1"] => resources("", "v1", kinds)?,
        ["apis", group, version] if !group.is_empty() => resources(group, version, kinds)?,
        ["openapi", "v3"] => {
            let paths: serde_json::Map<String, Value> = versions(kinds)
                .into_iter()
                .map(|(g, v)| if g.is_empty() { format!("api/{v}") } else { format!("apis/{g}/{v}") })
                .map(|path| (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}") })))
                .collect();
            json!({ "paths": paths })
        }
        ["openapi", "v3", "api", "v1"] => openapi("", "v1", kinds)?,
        ["openapi", "v3", "apis", group, version] => openapi(group, version, kinds)?,
        _ => return None,
    };
    Some((JSON, document(&value)))
}

/// Whether one of the accepted forms is the aggregated document, version 2.
fn wants_aggregated(accept: &str) -> bool {
    accept.split(',').any(|range| {
        let has = |wanted: &str| range.split(';').any(|part| part.trim() == wanted);
        has("as=APIGroupDiscoveryList") && has("g=apidiscovery.k8s.io") && has("v=v2")
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Legacy {
    Core,
    Groups,
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "gitVersion": format!("v1.36.0+openshell-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "none", "compiler": "rustc", "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

fn groups(kinds: &Kinds) -> Vec<String> {
    let mut groups: Vec<String> = kinds.iter().map(|k| k.group.clone()).collect();
    groups.dedup();
    groups
}

fn versions(kinds: &Kinds) -> Vec<(String, String)> {
    let mut versions: Vec<(String, String)> = kinds.iter().map(|k| (k.group.clone(), k.version.clone())).collect();
    versions.dedup();
    versions
}

fn group(name: &str, kinds: &Kinds) -> Value {
    let versions: Vec<Value> = versions(kinds)
        .into_iter()
        .filter(|(g, _)| g == name)
        .map(|(g, v)| json!({ "groupVersion": format!("{g}/{v}"), "version": v }))
        .collect();
    json!({ "kind": "APIGroup", "apiVersion": "v1", "name": name, "preferredVersion": versions.first(), "versions": versions })
}

const VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
const STATUS_VERBS: [&str; 3] = ["get", "patch", "update"];

fn resources(group: &str, version: &str, kinds: &Kinds) -> Option<Value> {
    let mut list = Vec::new();
    for kind in kinds.iter().filter(|k| k.group == group && k.version == version) {
        list.push(json!({
            "name": kind.plural, "singularName": kind.singular, "namespaced": true, "kind": kind.name,
            "verbs": VERBS, "shortNames": kind.short_names, "categories": kind.categories,
        }));
        if kind.has_status {
            list.push(json!({ "name": format!("{}/status", kind.plural), "singularName": "", "namespaced": true, "kind": kind.name, "verbs": STATUS_VERBS }));
        }
    }
    if list.is_empty() {
        return None;
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list }))
}

fn discovery(kinds: &Kinds, legacy: Legacy) -> Value {
    let wanted = |group: &str| group.is_empty() == (legacy == Legacy::Core);
    let items: Vec<Value> = groups(kinds)
        .into_iter()
        .filter(|g| wanted(g))
        .map(|name| {
            let versions: Vec<Value> = versions(kinds)
                .into_iter()
                .filter(|(g, _)| *g == name)
                .map(|(g, v)| {
                    let resources: Vec<Value> = kinds.iter().filter(|k| k.group == g && k.version == v).map(|k| discovered(k)).collect();
                    json!({ "version": v, "resources": resources, "freshness": "Current" })
                })
                .collect();
            let metadata =
                if name.is_empty() { json!({ "creationTimestamp": null }) } else { json!({ "name": name, "creationTimestamp": null }) };
            json!({ "metadata": metadata, "versions": versions })
        })
        .collect();
    json!({ "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items })
}

fn discovered(kind: &Kind) -> Value {
    let response = json!({ "group": kind.group, "version": kind.version, "kind": kind.name });
    let mut resource = json!({
        "resource": kind.plural, "responseKind": response, "scope": "Namespaced", "singularResource": kind.singular,
        "verbs": VERBS, "shortNames": kind.short_names, "categories": kind.categories,
    });
    if kind.has_status {
        resource["subresources"] = json!([{ "subresource": "status", "responseKind": response, "verbs": STATUS_VERBS }]);
    }
    resource
}

/// Enough of OpenAPI v3 for `kubectl explain` and for the client's validation.
fn openapi(group: &str, version: &str, kinds: &Kinds) -> Option<Value> {
    let mut schemas = serde_json::Map::new();
    let mut paths = serde_json::Map::new();
    for kind in kinds.iter().filter(|k| k.group == group && k.version == version) {
        let reversed: Vec<&str> = if group.is_empty() { vec!["io", "k8s", "api", "core"] } else { group.split('.').rev().collect() };
        let name = format!("{}.{}.{}", reversed.join("."), version, kind.name);
        let gvk = json!([{ "group": group, "version": version, "kind": kind.name }]);
        let mut schema = kind.rules.schema().clone();
        schema["x-kubernetes-group-version-kind"] = gvk.clone();
        schemas.insert(name.clone(), schema);
        let prefix = if group.is_empty() { "/api".to_owned() } else { format!("/apis/{group}") };
        let reference = json!({ "application/json": { "schema": { "$ref": format!("#/components/schemas/{name}") } } });
        let operation = |action: &str| {
            json!({
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": gvk[0],
                "parameters": [{ "name": "fieldValidation", "in": "query", "schema": { "type": "string" } }],
                "responses": { "200": { "description": "OK", "content": reference } },
            })
        };
        let collection = format!("{prefix}/{version}/namespaces/{{namespace}}/{}", kind.plural);
        let one = format!("{collection}/{{name}}");
        paths.insert(collection, json!({ "get": operation("list"), "post": operation("post") }));
        paths.insert(
            one,
            json!({ "get": operation("get"), "put": operation("put"), "patch": operation("patch"), "delete": operation("delete") }),
        );
    }
    if schemas.is_empty() || (group.is_empty() && kinds.iter().all(|k| k.family == Family::Custom)) {
        return None;
    }
    Some(json!({
        "openapi": "3.0.0", "info": { "title": "OpenShell", "version": env!("CARGO_PKG_VERSION") },
        "paths": paths, "components": { "schemas": schemas },
    }))
}
