use std::collections::HashMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use openshell_crds::sandbox::{OpenShellSandboxSpec, OpenShellSandboxStatus, Phase, SessionStatus};
use openshell_crds::{OpenShellSandbox, Provider};
use openshell_proto::v1::{self, SandboxPhase};
use openshell_proto::{datamodel, supervisor};
use proptest::prelude::*;

use super::*;

fn name() -> impl Strategy<Value = String> {
    "[A-Za-z_][A-Za-z0-9_]{0,12}"
}

prop_compose! {
    fn spec()(
        environment in prop::collection::hash_map(name(), ".{0,20}", 0..6),
        command in prop::collection::vec(".{1,12}", 0..5),
        providers in prop::collection::btree_set("[a-z][a-z0-9-]{0,8}", 0..4),
        tty in any::<bool>(),
        granted in prop::option::of(prop::collection::btree_set("/srv/[a-z]{1,8}", 0..4)),
    ) -> v1::SandboxSpec {
        let policy = granted.map(|paths| {
            let mut policy = openshell_policy::Policy::restrictive_default();
            policy.filesystem_policy.as_mut().unwrap().read_only.extend(paths);
            openshell_proto::policy::to_wire(&policy)
        });
        v1::SandboxSpec {
            environment,
            command,
            providers: providers.into_iter().collect(),
            tty,
            policy,
            restart_policy: v1::SandboxRestartPolicy::Never.into(),
            ..v1::SandboxSpec::default()
        }
    }
}

proptest! {
    #[test]
    fn a_sandbox_comes_back_as_it_was_sent(wire in spec()) {
        let policy = wire.policy.as_ref().map(|p| openshell_proto::policy::from_wire(p).unwrap());
        let object = OpenShellSandbox::new("s", sandbox::spec_from_wire(&wire, policy.as_ref(), template::Pod::default()));
        // As it comes from a store.
        let stored: OpenShellSandbox = serde_json::from_value(serde_json::to_value(&object).unwrap()).unwrap();
        prop_assert_eq!(sandbox::to_wire(&stored).spec.unwrap(), wire);
    }

    #[test]
    fn a_provider_comes_back_without_its_secrets(
        credentials in prop::collection::hash_map(name(), "[!-~]{1,20}", 0..5),
        config in prop::collection::hash_map("[A-Z]{3,8}", ".{0,20}", 0..5),
        port in 1..=u16::MAX,
        path in prop::option::of("/[a-z]{0,6}"),
    ) {
        let shown = if port == 443 { String::new() } else { format!(":{port}") };
        let path = path.unwrap_or_default();
        let endpoints = format!("api.example.com:{port}{path},*.example.org");
        let wire = datamodel::Provider { r#type: "generic".to_owned(), credentials: credentials.clone(), config: config.clone(), ..Default::default() };
        let object = Provider::new("p", provider::spec_from_wire(&wire, "p", provider::endpoints(&endpoints).unwrap()));
        prop_assert!(!serde_json::to_string(&object).unwrap().contains("REDACTED"));
        for credential in &object.spec.credentials {
            prop_assert_eq!(&credential.secret_key_ref.name, "osprov-p");
        }
        let back = provider::to_wire(&object);
        prop_assert!(back.credentials.values().all(|v| v == provider::REDACTED));
        prop_assert_eq!(back.credentials.len(), credentials.len());
        let mut expected = config;
        expected.insert(provider::ENDPOINTS.to_owned(), format!("api.example.com{shown}{path},*.example.org"));
        prop_assert_eq!(back.config, expected);
    }

    #[test]
    fn times_keep_their_order_and_their_nanoseconds(a in -2_000_000_000_i64..4_000_000_000, n in 0..1_000_000_000_i32) {
        let time = jiff::Timestamp::new(a, 0).unwrap() + jiff::SignedDuration::from_nanos(i64::from(n));
        let wire = time::to_wire(&Time(time));
        prop_assert_eq!((wire.seconds, wire.nanos), (a, n));
    }
}

#[test]
fn endpoints_are_read_strictly() {
    let one = |text: &str| provider::endpoints(text).map(|mut l| l.remove(0));
    let plain = one("API.github.com").unwrap();
    assert_eq!((plain.host.as_str(), plain.port, plain.path), ("api.github.com", 443, None));
    let full = one("127.0.0.1:8080/v1/x").unwrap();
    assert_eq!((full.host.as_str(), full.port, full.path.as_deref()), ("127.0.0.1", 8080, Some("/v1/x")));
    for bad in ["https://a.example", "a.example:0", "a.example:x", "a.example:70000", ":443"] {
        assert!(provider::endpoints(bad).is_err(), "{bad}");
    }
    for type_ in ["github", "gitlab", "anthropic", "claude-code", "openai", "codex", "copilot", "cursor", "nvidia", "deepinfra", "pypi"] {
        assert!(!provider::endpoints(&provider::built_in(type_).join(",")).unwrap().is_empty(), "{type_}");
    }
    assert!(provider::built_in("generic").is_empty());
}

#[test]
fn the_phase_runs_ahead_of_the_controllers() {
    let object = |suspend: bool, phase: Option<Phase>, generation: i64| {
        let mut object = OpenShellSandbox::new("s", OpenShellSandboxSpec { suspend, ..Default::default() });
        object.metadata.generation = Some(generation);
        object.status = Some(OpenShellSandboxStatus { phase, observed_generation: Some(1), ..Default::default() });
        object
    };
    for (suspend, phase, generation, expected) in [
        (false, None, 1, SandboxPhase::Provisioning),
        (false, Some(Phase::Ready), 1, SandboxPhase::Ready),
        (true, Some(Phase::Ready), 2, SandboxPhase::Stopping),
        (true, Some(Phase::Stopped), 2, SandboxPhase::Stopped),
        (false, Some(Phase::Stopped), 2, SandboxPhase::Starting),
        (false, Some(Phase::Stopped), 1, SandboxPhase::Stopped),
        (false, Some(Phase::Error), 2, SandboxPhase::Error),
        (false, Some(Phase::Completed), 1, SandboxPhase::Completed),
    ] {
        assert_eq!(sandbox::phase(&object(suspend, phase, generation)), expected, "{suspend} {phase:?} {generation}");
    }
    // Suspended for idleness: a change of the spec does not wake it, a later activity does.
    let at = |second: i64| Some(Time(jiff::Timestamp::from_second(second).unwrap()));
    let mut idle = object(false, Some(Phase::Stopped), 2);
    let status = idle.status.as_mut().unwrap();
    (status.idle_since, status.session) = (at(100), Some(SessionStatus { last_activity: at(100), ..Default::default() }));
    assert_eq!(sandbox::phase(&idle), SandboxPhase::Stopped);
    idle.status.as_mut().unwrap().session.as_mut().unwrap().last_activity = at(101);
    assert_eq!(sandbox::phase(&idle), SandboxPhase::Starting);
    let mut deleted = object(false, Some(Phase::Ready), 1);
    deleted.metadata.deletion_timestamp = Some(Time(jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(sandbox::phase(&deleted), SandboxPhase::Deleting);
}

#[test]
fn what_is_ours_in_the_metadata_is_not_shown() {
    let mut object = OpenShellSandbox::new("s", OpenShellSandboxSpec::default());
    let map = |key: &str| Some([(key.to_owned(), "x".to_owned()), ("team".to_owned(), "a".to_owned())].into());
    object.metadata.annotations = map(meta::REQUEST_ID);
    object.metadata.labels = map("openshell.ai/sandbox-id");
    let wire = meta::to_wire(&object.metadata);
    let shown: HashMap<String, String> = [("team".to_owned(), "a".to_owned())].into();
    assert_eq!((wire.annotations, wire.labels, wire.workspace.as_str()), (shown.clone(), shown, "default"));
}

#[test]
fn an_event_travels_in_the_fields_of_its_line() {
    let record = supervisor::LogRecord { level: "OCSF".into(), message: "DENIED".into(), ocsf: "{}".into(), gap: 3, ..Default::default() };
    let line = log::to_wire("uid", record);
    assert_eq!((line.fields["ocsf"].as_str(), line.fields["gap"].as_str()), ("{}", "3"));
    assert_eq!((line.source.as_str(), line.sandbox_id.as_str()), ("sandbox", "uid"));
}
