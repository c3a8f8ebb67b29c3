//! Requests that make no sense: refused with a status, never a panic, never a hang.

use http::{Method, Request, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::common::{Store, sandbox, send};

const PATH: &str = "/apis/openshell.ai/v1alpha1/namespaces/openshell/openshellsandboxes";

#[tokio::test]
async fn known_ways_to_be_wrong() {
    let store = Store::new().await;
    let body = serde_json::to_string(&sandbox("a")).unwrap();
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!(
        r#"{{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":{{"name":"d"}},"spec":{{"policy":{}1{}}}}}"#,
        r#"{"a":"#.repeat(120),
        "}".repeat(120)
    );
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: &g [*f,*f,*f,*f,*f,*f,*f,*f,*f]\nh: [*g,*g,*g,*g,*g,*g,*g,*g,*g]\n";
    let large = "x".repeat(3 * 1024 * 1024 + 1);
    let big_object = body.replace("\"name\":\"a\"", &format!("\"name\":\"a\",\"annotations\":{{\"k\":\"{}\"}}", "v".repeat(300_000)));
    let cases: Vec<(&str, &str, &str, &str, u16)> = vec![
        ("GET", "/", "", "", 404),
        ("GET", "/apis/openshell.ai/v1beta1/namespaces/x/openshellsandboxes", "", "", 404),
        ("GET", "/apis/openshell.ai/v1alpha1/namespaces/x/pods", "", "", 404),
        ("GET", "/api/v1/namespaces/x", "", "", 404),
        ("POST", "/apis/events.k8s.io/v1/namespaces/openshell/events", "", "{}", 404),
        ("GET", "/apis/openshell.ai/v1alpha1/namespaces/x/openshellsandboxes/a/scale", "", "", 404),
        ("GET", "/api/v1/namespaces/x/secrets/a/status", "", "", 404),
        ("GET", "/%zz", "", "", 400),
        ("GET", "/apis/%ff/v1", "", "", 400),
        ("DELETE", "/version", "", "", 405),
        ("POST", "/apis/openshell.ai/v1alpha1/openshellsandboxes", "", &body, 405),
        ("POST", "@/a", "", &body, 405),
        ("PUT", "@", "", &body, 405),
        ("GET", "@?limit=-1", "", "", 400),
        ("GET", "@?limit=99999999999999999999999", "", "", 400),
        ("GET", "@?resourceVersion=abc", "", "", 400),
        ("GET", "@?watch=maybe", "", "", 400),
        ("GET", "@?whatever=1", "", "", 400),
        ("GET", "@?continue=%00", "", "", 400),
        ("GET", "@?labelSelector=a+in+(", "", "", 400),
        ("GET", "@?watch=1&sendInitialEvents=true", "", "", 400),
        ("POST", "@", "", "", 400),
        ("POST", "@", "", "null", 400),
        ("POST", "@", "", "[]", 400),
        ("POST", "@", "", "{", 400),
        ("POST", "@", "", "\u{0}", 400),
        ("POST", "@", "", &deep, 400),
        ("POST", "@", "", &deep_object, 400),
        ("POST", "@", "", bomb, 400),
        ("POST", "@", "", &large, 413),
        ("POST", "@", "", &big_object, 422),
        ("POST", "@", "", "{}", 400),
        ("POST", "@", "", r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"a"}}"#, 400),
        ("POST", "@", "", r#"{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":[]}"#, 400),
        ("POST", "@", "", r#"{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":{"name":1}}"#, 422),
        (
            "POST",
            "@",
            "",
            r#"{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":{"name":"a","namespace":"other"},"spec":{}}"#,
            400,
        ),
        (
            "POST",
            "@",
            "",
            r#"{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":{"name":"a","resourceVersion":"7"},"spec":{}}"#,
            400,
        ),
        (
            "POST",
            "@",
            "",
            r#"{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":{"name":"a","labels":{"a":1}},"spec":{}}"#,
            422,
        ),
        (
            "POST",
            "@",
            "",
            r#"{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":{"name":"a","ownerReferences":[{}]},"spec":{}}"#,
            422,
        ),
        ("POST", "@", "", r#"{"apiVersion":"openshell.ai/v1alpha1","kind":"OpenShellSandbox","metadata":{"name":"../x"},"spec":{}}"#, 422),
        ("PUT", "@/a", "", &body, 404),
        ("PATCH", "@/a", "application/merge-patch+json", "{}", 404),
        ("PATCH", "@/a", "application/merge-patch+json", "[]", 400),
        ("PATCH", "@/a", "text/plain", "{}", 415),
        ("PATCH", "@/a", "", "{}", 415),
        ("PATCH", "@/a", "application/json-patch+json", "{}", 400),
        ("PATCH", "@/a", "application/apply-patch+yaml", "a: b", 400),
        ("PATCH", "@/a?fieldManager=m", "application/apply-patch+yaml", "- a", 400),
        (
            "PATCH",
            "@/a?fieldManager=m",
            "application/apply-patch+yaml",
            "apiVersion: openshell.ai/v1alpha1\nkind: OpenShellSandbox\nmetadata: {name: a, managedFields: [{}]}\nspec: {}",
            400,
        ),
        ("PATCH", "@/a?force=true", "application/merge-patch+json", "{}", 400),
        ("DELETE", "@/a", "", "", 404),
        ("DELETE", "@/a", "", r#"{"propagationPolicy":"Sideways"}"#, 400),
        ("DELETE", "@/a", "", r#"{"unknown":1}"#, 400),
        ("DELETE", "@/a/status", "", "", 405),
    ];
    for (method, path, content_type, body, expected) in cases {
        let path = path.replacen('@', PATH, 1);
        let request = Request::builder().method(method).uri(&path).header("content-type", content_type).body(body.to_owned()).unwrap();
        let (code, answer) = send(&store.api, request).await;
        let shown: String = body.chars().take(80).collect();
        assert_eq!(code.as_u16(), expected, "{method} {path} {shown}: {answer}");
        assert_eq!((&answer["kind"], &answer["code"]), (&json!("Status"), &json!(expected)), "{method} {path}: {answer}");
        assert!(!answer["message"].as_str().unwrap().is_empty());
    }
    let request = Request::get(PATH).header("accept", "application/vnd.kubernetes.protobuf").body(String::new()).unwrap();
    assert_eq!(send(&store.api, request).await.0, StatusCode::NOT_ACCEPTABLE);
}

fn path() -> impl Strategy<Value = String> {
    let segment = prop_oneof![
        Just("api".to_owned()),
        Just("apis".to_owned()),
        Just("openshell.ai".to_owned()),
        Just("v1alpha1".to_owned()),
        Just("v1".to_owned()),
        Just("namespaces".to_owned()),
        Just("openshell".to_owned()),
        Just("openshellsandboxes".to_owned()),
        Just("secrets".to_owned()),
        Just("a".to_owned()),
        Just("status".to_owned()),
        Just(String::new()),
        "[!-~&&[^#?/ ]]{0,6}".prop_map(|s| s.replace(['"', '<', '>', '\\', '^', '`', '{', '}', '|'], "%")),
    ];
    let parameter = prop_oneof![
        Just("watch=false".to_owned()),
        "(limit|continue|resourceVersion|labelSelector|fieldSelector|dryRun|fieldManager|force)=[a-z0-9=,!%()-]{0,8}",
    ];
    (proptest::collection::vec(segment, 0..9), proptest::collection::vec(parameter, 0..3))
        .prop_map(|(segments, query)| format!("/{}?{}", segments.join("/"), query.join("&")))
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        let key = prop_oneof![
            Just("apiVersion".to_owned()),
            Just("metadata".to_owned()),
            Just("name".to_owned()),
            Just("labels".to_owned()),
            Just("finalizers".to_owned()),
            Just("ownerReferences".to_owned()),
            Just("managedFields".to_owned()),
            Just("spec".to_owned()),
            Just("status".to_owned()),
            Just("env".to_owned()),
            Just("policy".to_owned()),
            Just("data".to_owned()),
            "[a-z]{1,4}",
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(key, inner, 0..5).prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// Anything at all, and objects that begin right.
fn body() -> impl Strategy<Value = Value> {
    prop_oneof![
        json_value(),
        (json_value(), json_value(), json_value()).prop_map(|(metadata, spec, status)| {
            let mut object = json!({ "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellSandbox", "metadata": { "name": "a" }, "spec": spec, "status": status });
            json_patch::merge(&mut object["metadata"], &metadata);
            object
        }),
    ]
}

#[test]
fn nothing_panics_and_every_answer_is_json() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = runtime.block_on(Store::new());
    runtime.block_on(async {
        let made = Request::post(PATH).body(serde_json::to_string(&sandbox("a")).unwrap()).unwrap();
        assert_eq!(send(&store.api, made).await.0, 201);
    });
    let methods = prop_oneof![Just("GET"), Just("POST"), Just("PUT"), Just("PATCH"), Just("DELETE"), Just("HEAD"), Just("BREW")];
    let types = prop_oneof![
        Just("application/merge-patch+json"),
        Just("application/json-patch+json"),
        Just("application/apply-patch+yaml"),
        Just("application/json")
    ];
    let paths = prop_oneof![
        path(),
        Just(format!("{PATH}/a")),
        Just(format!("{PATH}/a/status")),
        Just(format!("{PATH}/a?fieldManager=m&force=true")),
        Just(PATH.to_owned())
    ];
    proptest!(ProptestConfig::with_cases(600), |(method in methods, path in paths, kind in types, body in body())| {
        let Ok(request) = Request::builder().method(Method::from_bytes(method.as_bytes()).unwrap()).uri(&path).header("content-type", kind).body(body.to_string()) else { return Ok(()) };
        let (code, answer) = runtime.block_on(send(&store.api, request));
        let text = matches!(path.split('?').next(), Some("/livez" | "/healthz" | "/readyz"));
        prop_assert!(text || answer.is_object(), "{method} {path}: {code}");
        prop_assert!(code.as_u16() < 500 || code.as_u16() == 504, "{method} {path} {body}: {answer}");
    });
}
