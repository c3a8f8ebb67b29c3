use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use openshell_crds::conditions::{self, READY, RECONCILING, STALLED};
use openshell_crds::{OpenShellGateway, OpenShellGatewayStatus};
use serde_json::{Value, json};

use super::keys::{Data, Kept, KeyError, Slot, Wanted, keep};
use super::render::{self, Trust};
use super::verdict::{Progress, Verdict, judge};
use super::{Findings, Serving, conclude, tag};
use crate::pki::Validity;

fn start() -> Timestamp {
    "2026-03-01T12:00:00Z".parse().unwrap()
}

fn day(day: i64) -> Timestamp {
    start() + SignedDuration::from_hours(24 * day)
}

fn gateway(spec: &Value) -> OpenShellGateway {
    let object = json!({
        "apiVersion": "openshell.ai/v1alpha1", "kind": "OpenShellGateway",
        "metadata": { "name": "default", "namespace": "openshell", "uid": "2f1c", "generation": 3 },
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

fn wanted(names: &[&str]) -> Wanted {
    Wanted { names: names.iter().map(|&n| n.to_owned()).collect(), certificate_days: 90, authority_days: 900 }
}

fn kept(found: &BTreeMap<Slot, Data>, wanted: &Wanted, now: Timestamp) -> Kept {
    keep(found, wanted, now).unwrap()
}

/// What was made anew, by Secret.
fn made(kept: &Kept) -> Vec<Slot> {
    let mut slots: Vec<Slot> = kept.changes.iter().map(|(slot, _)| *slot).collect();
    slots.dedup();
    slots
}

fn count(bundle: &str) -> usize {
    bundle.matches("BEGIN CERTIFICATE").count()
}

#[test]
fn keys_are_made_once_and_kept() {
    let wanted = wanted(&["default-gateway", "127.0.0.1"]);
    let first = kept(&BTreeMap::new(), &wanted, start());
    assert_eq!(made(&first), Slot::ALL);
    let second = kept(&first.data, &wanted, day(1));
    assert!(second.changes.is_empty(), "{:?}", second.changes);
    assert_eq!(first.data, second.data);
    assert_eq!(first.checksum, second.checksum);
    assert_eq!(first.server_ends, day(90));
    assert_eq!(first.authority_ends, day(900));
}

#[test]
fn certificates_are_renewed_before_they_end_and_the_gateway_is_told() {
    let wanted = wanted(&["default-gateway"]);
    let first = kept(&BTreeMap::new(), &wanted, start());
    assert!(first.recheck > day(59) && first.recheck < day(61), "{}", first.recheck);
    assert!(kept(&first.data, &wanted, first.recheck - SignedDuration::from_secs(1)).changes.is_empty());
    let second = kept(&first.data, &wanted, first.recheck);
    assert_eq!(made(&second), [Slot::Server, Slot::Client]);
    assert_ne!(first.checksum, second.checksum);
    assert_eq!(first.bundle, second.bundle, "whoever trusts the authority still does");
    assert!(second.server_ends > first.server_ends);
}

#[test]
fn other_names_or_a_shorter_life_give_another_certificate() {
    let first = kept(&BTreeMap::new(), &wanted(&["a", "b"]), start());
    for names in [&["a", "b", "c"][..], &["a"]] {
        assert_eq!(made(&kept(&first.data, &wanted(names), day(1))), [Slot::Server], "{names:?}");
    }
    let shorter = Wanted { certificate_days: 30, ..wanted(&["a", "b"]) };
    assert_eq!(made(&kept(&first.data, &shorter, day(1))), [Slot::Server, Slot::Client]);
    let longer = Wanted { certificate_days: 300, ..wanted(&["a", "b"]) };
    assert!(kept(&first.data, &longer, day(1)).changes.is_empty());
}

/// Looked at every six hours for six years: at any time the certificate in use was issued by
/// somebody that has been trusted for a day, and nothing in use has ended.
#[test]
fn nobody_meets_an_authority_that_it_was_not_told_of() {
    let wanted = wanted(&["default-gateway"]);
    let mut data = BTreeMap::new();
    let mut bundles: Vec<(Timestamp, String)> = Vec::new();
    let (mut authorities, mut now) = (Vec::new(), start());
    while now < day(6 * 365) {
        let kept = kept(&data, &wanted, now);
        let issuer = std::str::from_utf8(&kept.data[&Slot::Authority]["tls.crt"]).unwrap().trim().to_owned();
        if authorities.last() != Some(&issuer) {
            authorities.push(issuer.clone());
        }
        let told = bundles.iter().rev().find(|(at, _)| now.duration_since(*at) >= SignedDuration::from_hours(24));
        if let Some((_, bundle)) = told {
            assert!(bundle.contains(&issuer), "at {now} an authority issues that was not announced");
        }
        let server = std::str::from_utf8(&kept.data[&Slot::Server]["tls.crt"]).unwrap().to_owned();
        assert!(Validity::of(&server).unwrap().ends > now && kept.authority_ends >= kept.server_ends);
        assert!(count(&kept.bundle) <= 3 && kept.recheck > now);
        bundles.push((now, kept.bundle.clone()));
        data = kept.data;
        now += SignedDuration::from_hours(6);
    }
    assert!(authorities.len() >= 4, "{}", authorities.len());
}

#[test]
fn an_authority_that_ended_unseen_is_replaced_at_once() {
    let wanted = wanted(&["default-gateway"]);
    let first = kept(&BTreeMap::new(), &wanted, start());
    let late = kept(&first.data, &wanted, day(1000));
    assert_eq!(count(&late.bundle), 1);
    assert_eq!(made(&late), [Slot::Authority, Slot::Server, Slot::Client]);
    assert_ne!(first.bundle, late.bundle);
    assert_eq!(first.data[&Slot::Token], late.data[&Slot::Token]);
}

#[test]
fn a_key_that_exists_and_cannot_be_used_is_never_replaced() {
    let wanted = wanted(&["default-gateway"]);
    let first = kept(&BTreeMap::new(), &wanted, start()).data;
    let other = kept(&BTreeMap::new(), &wanted, start()).data;
    let spoiled = |slot: Slot, key: &str, value: Option<&[u8]>| {
        let mut data = first.clone();
        let secret = data.get_mut(&slot).unwrap();
        match value {
            Some(value) => secret.insert(key.to_owned(), value.to_vec()),
            None => secret.remove(key),
        };
        keep(&data, &wanted, start()).err()
    };
    let authority = |key: &str, value: Option<&[u8]>| spoiled(Slot::Authority, key, value);
    let stranger = other[&Slot::Authority]["tls.key"].clone();
    for (key, value) in [
        ("tls.crt", None),
        ("tls.key", None),
        ("tls.key", Some(&b"garbage"[..])),
        ("tls.crt", Some(b"\xff\xfe")),
        ("tls.key", Some(&stranger)),
        ("next.crt", Some(b"alone")),
    ] {
        assert!(matches!(authority(key, value), Some(KeyError::Unusable { slot: Slot::Authority, .. })), "{key}");
    }
    let p256 = first[&Slot::Server]["tls.key"].clone();
    for value in [None, Some(&b""[..]), Some(&p256)] {
        assert!(matches!(spoiled(Slot::Token, "signing.pem", value), Some(KeyError::Unusable { slot: Slot::Token, .. })));
    }
    let mut data = first.clone();
    data.insert(Slot::Authority, Data::new());
    assert!(keep(&data, &wanted, start()).is_err(), "an empty Secret is not an absent one");
}

#[test]
fn errors_about_keys_hold_no_key() {
    let wanted = wanted(&["default-gateway"]);
    let mut data = kept(&BTreeMap::new(), &wanted, start()).data;
    data.get_mut(&Slot::Token).unwrap().insert("signing.pem".to_owned(), b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n".to_vec());
    let error = keep(&data, &wanted, start()).err().unwrap().to_string();
    assert!(!error.contains("c2VjcmV0"), "{error}");
}

#[test]
fn what_local_gateways_issue_is_what_is_issued_here() {
    let first = kept(&BTreeMap::new(), &wanted(&["default-gateway"]), start());
    let text = |slot: Slot, key: &str| String::from_utf8(first.data[&slot][key].clone()).unwrap();
    assert!(text(Slot::Token, "signing.pem").starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(text(Slot::Client, "ca.crt"), first.bundle);
    assert_eq!(text(Slot::Server, "ca.crt"), first.bundle);
}

/// Compares with `snapshots/<name>.yaml` beside this file; `UPDATE_SNAPSHOTS=1` writes it.
fn snapshot(name: &str, gateway: &OpenShellGateway) {
    let trust = Trust { bundle: "-----BEGIN CERTIFICATE-----\n", checksum: "0123456789abcdef" };
    let objects = render::render(gateway, &trust, "registry.example/openshell/gateway:0.1.0");
    let text = serde_saphyr::to_string(&serde_json::to_value(&objects).unwrap()).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/controllers/deployment/snapshots").join(format!("{name}.yaml"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, text, "{} is not current: run UPDATE_SNAPSHOTS=1 cargo test -p openshell-operator", path.display());
}

fn full() -> OpenShellGateway {
    gateway(&json!({
        "sandboxNamespace": "agents",
        "endpoint": "https://gateway.example:443",
        "deployment": {
            "image": "registry.example/gateway:2",
            "imagePullPolicy": "Never",
            "imagePullSecrets": [{ "name": "pull" }],
            "logLevel": "debug",
            "resources": { "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "256Mi" } },
            "nodeSelector": { "kubernetes.io/arch": "amd64" },
            "tolerations": [{ "key": "dedicated", "operator": "Equal", "value": "agents", "effect": "NoSchedule" }],
            "priorityClassName": "system-cluster-critical",
            "podAnnotations": { "example.com/note": "x" },
            "podLabels": { "team": "a" },
            "storage": { "size": "1Gi", "storageClassName": "local" },
        },
        "service": { "type": "LoadBalancer", "port": 443, "annotations": { "example.com/lb": "internal" } },
        "tls": { "clientTlsSecretName": "cli", "serverNames": ["agents.example"], "certificateDays": 30, "authorityDays": 300 },
    }))
}

#[test]
fn the_objects_of_a_gateway_that_says_nothing() {
    snapshot("minimal", &gateway(&json!({})));
}

#[test]
fn the_objects_of_a_gateway_that_says_everything() {
    snapshot("full", &full());
}

#[test]
fn names_of_a_certificate_are_the_services_the_local_ones_and_those_asked_for() {
    let names = render::server_names(&full());
    for name in ["localhost", "127.0.0.1", "default-gateway.openshell.svc", "agents.example", "gateway.example"] {
        assert!(names.iter().any(|n| n == name), "{name} in {names:?}");
    }
}

/// Each field that is read changes what is rendered: a field that is not does not belong in the definition.
#[test]
fn every_field_of_the_deployment_has_an_effect() {
    let full = serde_json::to_value(full().spec).unwrap();
    let rendered = |spec: &Value| {
        let gateway = gateway(spec);
        let trust = Trust { bundle: "", checksum: "" };
        let objects = serde_json::to_value(render::render(&gateway, &trust, "default")).unwrap();
        let days = (gateway.spec.tls.certificate_days(), gateway.spec.tls.authority_days());
        format!("{objects} {days:?} {} {}", gateway.client_secret_name(), gateway.callback_endpoint())
    };
    let all = rendered(&full);
    for part in ["", "deployment", "service", "tls"] {
        let fields = full.pointer(&if part.is_empty() { String::new() } else { format!("/{part}") }).unwrap().as_object().unwrap().clone();
        for field in fields.keys().filter(|f| !["sandboxDefaults", "quotas"].contains(&f.as_str())) {
            let mut without = full.clone();
            let map = if part.is_empty() { &mut without } else { &mut without[part] };
            map.as_object_mut().unwrap().remove(field);
            assert_ne!(rendered(&without), all, "{part}.{field}");
        }
    }
}

fn deployment(status: &Value) -> Deployment {
    serde_json::from_value(
        json!({ "metadata": { "name": "default-gateway", "namespace": "openshell", "generation": 2 }, "status": status }),
    )
    .unwrap()
}

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({ "metadata": { "name": "p", "namespace": "openshell" }, "status": status })).unwrap()
}

fn container(state: &Value) -> Pod {
    let status = json!({ "name": "gateway", "image": "img:1", "imageID": "", "ready": false, "restartCount": 0, "state": state });
    pod(&json!({ "containerStatuses": [status] }))
}

#[test]
fn what_a_deployment_and_its_pod_mean() {
    let rolling = json!({ "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "unavailableReplicas": 1 });
    let available = json!({ "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1, "availableReplicas": 1 });
    let mut old = available.clone();
    old["observedGeneration"] = json!(1);
    let failure = |message: &str| {
        let condition = json!({ "type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message });
        json!({ "observedGeneration": 2, "conditions": [condition] })
    };
    let late = json!({ "observedGeneration": 2, "replicas": 1, "updatedReplicas": 1,
        "conditions": [{ "type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "" }] });
    let waiting = |reason: &str| container(&json!({ "waiting": { "reason": reason, "message": "why" } }));
    let pending =
        pod(&json!({ "conditions": [{ "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes" }] }));
    let killed = container(&json!({ "terminated": { "exitCode": 137, "reason": "OOMKilled" } }));
    for (status, pods, reason, progress, part) in [
        (available, vec![], "Available", Progress::Settled, "serves"),
        (old, vec![], "RollingOut", Progress::Working, "replaced"),
        (rolling.clone(), vec![], "RollingOut", Progress::Working, "replaced"),
        (rolling.clone(), vec![waiting("ContainerCreating")], "RollingOut", Progress::Working, "replaced"),
        (rolling.clone(), vec![waiting("ErrImagePull")], "ImagePullFailed", Progress::Stuck, "img:1 cannot be had: why"),
        (rolling.clone(), vec![waiting("ErrImageNeverPull")], "ImagePullFailed", Progress::Stuck, "imagePullSecrets"),
        (rolling.clone(), vec![waiting("CreateContainerConfigError")], "ContainerFailed", Progress::Stuck, "why"),
        (rolling.clone(), vec![waiting("CrashLoopBackOff")], "Crashing", Progress::Stuck, "logs p --previous"),
        (rolling.clone(), vec![killed], "Crashing", Progress::Stuck, "more memory"),
        (rolling.clone(), vec![container(&json!({ "running": {} }))], "Starting", Progress::Working, "/readyz"),
        (rolling, vec![pending], "Unschedulable", Progress::Stuck, "0/1 nodes"),
        (late, vec![], "DeadlineExceeded", Progress::Stuck, "kubectl -n openshell"),
        (
            failure("pods \"x\" is forbidden: exceeded quota: q, requested: pods=1"),
            vec![],
            "QuotaExceeded",
            Progress::Stuck,
            "exceeded quota: q",
        ),
        (
            failure("pods \"x\" is forbidden: violates PodSecurity \"restricted:latest\""),
            vec![],
            "PodSecurityDenied",
            Progress::Stuck,
            "restricted",
        ),
        (failure("admission webhook denied"), vec![], "PodRefused", Progress::Stuck, "webhook"),
    ] {
        let verdict = judge(&deployment(&status), &pods);
        assert_eq!((verdict.reason, verdict.progress), (reason, progress), "{verdict:?}");
        assert!(verdict.message.contains(part), "{verdict:?}");
        assert_eq!(verdict.ready, reason == "Available");
    }
}

fn findings(serving: Option<Verdict>, obstacle: Option<Verdict>) -> Findings {
    let serving = serving.map_or(Serving::NotDeployed, Serving::Judged);
    Findings { serving, obstacle, certificates: None, recheck: None }
}

fn verdict(progress: Progress) -> Verdict {
    Verdict { ready: progress == Progress::Settled, progress, reason: "Because", message: "m".to_owned() }
}

/// kstatus (`sigs.k8s.io/cli-utils/pkg/kstatus`): Stalled is Failed, Reconciling is InProgress, Ready is Current.
#[test]
fn conditions_are_those_that_gitops_tools_read() {
    let object = gateway(&json!({}));
    let stuck = || Verdict::stuck("Why", "because");
    for (found, ready, reconciling, stalled, reason) in [
        (findings(Some(verdict(Progress::Settled)), None), true, false, false, "Because"),
        (findings(Some(verdict(Progress::Working)), None), false, true, false, "Because"),
        (findings(Some(verdict(Progress::Stuck)), None), false, false, true, "Because"),
        (findings(Some(verdict(Progress::Settled)), Some(stuck())), true, false, true, "Because"),
        (findings(Some(verdict(Progress::Working)), Some(stuck())), false, false, true, "Why"),
        (findings(None, Some(stuck())), false, false, true, "Why"),
    ] {
        let status = conclude(&object, OpenShellGatewayStatus::default(), found, "i:1", &Time(start()));
        let is = |kind| conditions::is_true(&status.conditions, kind);
        assert_eq!((is(READY), is(RECONCILING), is(STALLED)), (ready, reconciling, stalled));
        assert_eq!(conditions::find(&status.conditions, READY).unwrap().reason, reason);
        assert_eq!(status.observed_generation, Some(3));
        assert_eq!(status.endpoint.as_deref(), Some("https://default-gateway.openshell.svc:8080"));
        assert!(status.conditions.iter().all(|c| c.observed_generation == Some(3)));
    }
}

#[test]
fn what_cannot_be_read_is_unknown_and_not_false() {
    let before = conclude(
        &gateway(&json!({})),
        OpenShellGatewayStatus::default(),
        findings(Some(verdict(Progress::Settled)), None),
        "i:1",
        &Time(start()),
    );
    let unread = Findings { serving: Serving::Unknown, ..findings(None, Some(Verdict::stuck("Forbidden", "no"))) };
    let after = conclude(&gateway(&json!({})), before, unread, "i:1", &Time(day(1)));
    let ready = conditions::find(&after.conditions, READY).unwrap();
    assert_eq!((ready.status.as_str(), ready.reason.as_str(), after.ready_replicas), ("Unknown", "Forbidden", Some(1)));
    assert!(conditions::is_true(&after.conditions, STALLED));
}

#[test]
fn a_status_that_says_the_same_is_the_same() {
    let object = gateway(&json!({}));
    let once =
        conclude(&object, OpenShellGatewayStatus::default(), findings(Some(verdict(Progress::Settled)), None), "i:1", &Time(start()));
    let twice = conclude(&object, once.clone(), findings(Some(verdict(Progress::Settled)), None), "i:1", &Time(day(1)));
    assert_eq!(once, twice);
    assert_eq!(once.version.as_deref(), Some("1"));
}

#[test]
fn the_version_is_the_tag_or_the_digest() {
    for (image, version) in [
        ("gateway:1.2", "1.2"),
        ("registry.example:5000/gateway", "latest"),
        ("registry.example:5000/gateway:3", "3"),
        ("gateway:3@sha256:abcd", "sha256:abcd"),
    ] {
        assert_eq!(tag(image), version);
    }
}
