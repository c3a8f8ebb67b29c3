//! The hub alone, with a supervisor that is played by the test.

use std::time::Duration;

use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use openshell_crds::{OpenShellSandbox, Policy, PolicySpec, Provider, conditions};
use openshell_proto::supervisor::{
    Config, ConfigResult, EnforcementReport, FromGateway, FromSupervisor, Heartbeat, Hello, config_result::Outcome, enforcement_report,
    from_gateway, from_supervisor, supervisor_session_client::SupervisorSessionClient,
};
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig},
};

use super::{
    NAME, POLICY, Room,
    gateway::{self, Gateway, Ground},
};

struct Played {
    outgoing: mpsc::Sender<FromSupervisor>,
    inbound: Streaming<FromGateway>,
}

impl Played {
    async fn connect(ground: &Ground, token: &str, hello: Hello) -> Result<Self, Status> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&ground.ca_pem)).domain_name("localhost");
        let endpoint = Channel::from_shared(format!("https://{}", ground.address)).unwrap().tls_config(tls).unwrap();
        let mut client = SupervisorSessionClient::new(endpoint.connect().await.unwrap());
        let (outgoing, stream) = mpsc::channel(16);
        let _ = outgoing.send(FromSupervisor { payload: Some(from_supervisor::Payload::Hello(hello)) }).await;
        let mut request = Request::new(ReceiverStream::new(stream));
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        Ok(Self { outgoing, inbound: client.control(request).await?.into_inner() })
    }

    async fn hello(ground: &Ground, uid: &str, instance: &str) -> Self {
        Self::connect(ground, uid, Hello { sandbox_id: uid.into(), instance_id: instance.into(), ..Hello::default() }).await.unwrap()
    }

    async fn say(&self, payload: from_supervisor::Payload) {
        self.outgoing.send(FromSupervisor { payload: Some(payload) }).await.unwrap();
    }

    /// The next message that is no heartbeat; `None` at the end.
    async fn next(&mut self) -> Option<from_gateway::Payload> {
        loop {
            let message = timeout(Duration::from_secs(10), self.inbound.message()).await.expect("it answers in time").ok()??;
            if !matches!(message.payload, Some(from_gateway::Payload::Heartbeat(_))) {
                return message.payload;
            }
        }
    }

    async fn accepted(&mut self) -> Option<Config> {
        match self.next().await {
            Some(from_gateway::Payload::Accepted(accepted)) => accepted.config,
            other => panic!("{other:?}"),
        }
    }

    async fn config(&mut self) -> Config {
        match self.next().await {
            Some(from_gateway::Payload::Config(config)) => config,
            other => panic!("{other:?}"),
        }
    }

    async fn acknowledge(&self, config: &Config) {
        let result = ConfigResult {
            revision: config.revision,
            policy_hash: config.policy_hash.clone(),
            outcome: Outcome::Applied.into(),
            error: String::new(),
        };
        self.say(from_supervisor::Payload::ConfigResult(result)).await;
    }

    async fn enforce(&self, reasons: &[&str]) {
        let level = if reasons.is_empty() { enforcement_report::Level::Full } else { enforcement_report::Level::Reduced };
        let reasons = reasons.iter().map(|r| (*r).to_owned()).collect();
        let report = EnforcementReport { level: level.into(), reasons, landlock_abi: 7, walls: vec!["w".into()], kernel: "6".into() };
        self.say(from_supervisor::Payload::Enforcement(report)).await;
    }
}

async fn sandbox(gateway: &Gateway) -> String {
    gateway.create(NAME, gateway::spec(&[], POLICY)).await.metadata.uid.unwrap()
}

/// A sandbox with a provider whose secret has this value.
async fn with_credential(gateway: &Gateway, value: &str) -> String {
    let client = gateway.api.client();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "osprov-forge", "labels": { "openshell.ai/credential": "true" } },
        "stringData": { "FORGE_TOKEN": value }
    });
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::default_namespaced(client.clone());
    secrets.create(&PostParams::default(), &serde_json::from_value(secret).unwrap()).await.unwrap();
    let provider = json!({
        "apiVersion": "openshell.ai/v1alpha1", "kind": "Provider", "metadata": { "name": "forge" },
        "spec": {
            "type": "generic",
            "credentials": [{ "name": "FORGE_TOKEN", "secretKeyRef": { "name": "osprov-forge", "key": "FORGE_TOKEN" } }],
            "endpoints": [{ "host": "forge.example.com", "port": 443 }]
        }
    });
    let providers: kube::Api<Provider> = kube::Api::default_namespaced(client);
    providers.create(&PostParams::default(), &serde_json::from_value(provider).unwrap()).await.unwrap();
    let mut spec = gateway::spec(&[], POLICY);
    spec.provider_refs = vec![openshell_crds::sandbox::LocalRef { name: "forge".into() }];
    gateway.create(NAME, spec).await.metadata.uid.unwrap()
}

/// A supervisor that has all of its configuration, and that.
async fn holding(ground: &Ground, uid: &str) -> (Played, Config) {
    let mut played = Played::hello(ground, uid, "i").await;
    let first = played.accepted().await.expect("a configuration");
    played.acknowledge(&first).await;
    played.enforce(&[]).await;
    let held = played.config().await;
    played.acknowledge(&held).await;
    (played, held)
}

fn acknowledged_for(sandbox: &OpenShellSandbox, reason: &str) -> bool {
    let conditions = &sandbox.status.as_ref().unwrap().conditions;
    conditions::find(conditions, conditions::POLICY_ACKNOWLEDGED).is_some_and(|c| c.reason == reason)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_opens_only_its_own_sandbox() {
    let room = Room::new("hub-token");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = sandbox(&gateway).await;
    let hello = Hello { sandbox_id: uid, instance_id: "i".into(), ..Hello::default() };
    let mut other = Played::connect(&ground, "other", hello).await;
    let refused = match &mut other {
        Ok(played) => played.inbound.message().await.unwrap_err(),
        Err(status) => status.clone(),
    };
    assert_eq!(refused.code(), tonic::Code::PermissionDenied);
    let mut unknown = Played::hello(&ground, "no-such-uid", "i").await;
    match unknown.next().await {
        Some(from_gateway::Payload::Rejected(rejected)) => assert_eq!((rejected.code.as_str(), rejected.retry), ("SandboxNotFound", false)),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_wait_for_the_enforcement_report() {
    let room = Room::new("hub-credentials");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = with_credential(&gateway, "s3cret").await;
    let mut played = Played::hello(&ground, &uid, "i").await;
    let first = played.accepted().await.expect("a configuration");
    assert!(first.await_enforcement && first.credentials.is_empty());
    let placeholder = first.environment["FORGE_TOKEN"].clone();
    assert!(placeholder.starts_with("openshell:resolve:env:v") && placeholder.ends_with("_FORGE_TOKEN"), "{placeholder}");
    played.acknowledge(&first).await;
    played.enforce(&[]).await;
    let second = played.config().await;
    assert!(!second.await_enforcement && second.revision > first.revision);
    assert_eq!((second.credentials[0].value.as_str(), &second.credentials[0].placeholder), ("s3cret", &placeholder));
    assert_eq!(second.credentials[0].bindings[0].host, "forge.example.com");
    played.acknowledge(&second).await;

    // A new value reaches the session, under the placeholder that the agent has.
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::default_namespaced(gateway.api.client());
    let rotated = json!({ "stringData": { "FORGE_TOKEN": "r0tated" } });
    secrets.patch("osprov-forge", &PatchParams::default(), &Patch::Merge(rotated)).await.unwrap();
    let third = played.config().await;
    assert_eq!((third.credentials[0].value.as_str(), &third.credentials[0].placeholder), ("r0tated", &placeholder));
    // The object never shows a value.
    let object = gateway.sandboxes().get(NAME).await.unwrap();
    assert!(!serde_json::to_string(&object).unwrap().contains("r0tated"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_that_is_deleted_takes_its_credentials_along() {
    let room = Room::new("hub-deleted");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = with_credential(&gateway, "s3cret").await;
    let (mut played, held) = holding(&ground, &uid).await;
    assert_eq!(held.credentials.len(), 1);

    let providers: kube::Api<Provider> = kube::Api::default_namespaced(gateway.api.client());
    let provider = providers.get("forge").await.unwrap();
    providers.delete("forge", &DeleteParams::default()).await.unwrap();
    let without = played.config().await;
    assert!(without.credentials.is_empty() && !without.environment.contains_key("FORGE_TOKEN"), "{:?}", without.environment);
    assert_eq!(without.policy_hash, held.policy_hash);
    played.acknowledge(&without).await;
    gateway.until(NAME, "told", |s| acknowledged_for(s, "ProviderNotFound")).await;
    // A supervisor that comes anew is not given a part.
    let mut another = Played::hello(&ground, &uid, "j").await;
    assert_eq!(another.accepted().await, None);

    let again = Provider::new("forge", provider.spec);
    providers.create(&PostParams::default(), &again).await.unwrap();
    let whole = another.config().await;
    assert!(whole.await_enforcement && whole.environment == held.environment);
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_taken_away_although_the_policy_is_gone() {
    let room = Room::new("hub-gone");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = with_credential(&gateway, "s3cret").await;
    let policies: kube::Api<Policy> = kube::Api::default_namespaced(gateway.api.client());
    let own = gateway.sandboxes().get(NAME).await.unwrap().spec.policy.unwrap();
    let policy = Policy::new("own", PolicySpec { policy: own, selector: None });
    policies.create(&PostParams::default(), &policy).await.unwrap();
    let named = Patch::Merge(json!({ "spec": { "policy": null, "policyRef": { "name": "own" } } }));
    gateway.sandboxes().patch(NAME, &PatchParams::default(), &named).await.unwrap();

    let (mut played, held) = holding(&ground, &uid).await;
    policies.delete("own", &DeleteParams::default()).await.unwrap();
    gateway.until(NAME, "told", |s| acknowledged_for(s, "PolicyNotFound")).await;
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::default_namespaced(gateway.api.client());
    secrets.delete("osprov-forge", &DeleteParams::default()).await.unwrap();
    let without = played.config().await;
    assert!(without.credentials.is_empty() && held.credentials.len() == 1);
    assert_eq!((&without.policy_json, without.policy_version), (&held.policy_json, held.policy_version), "its policy stays");
    gateway.until(NAME, "told", |s| acknowledged_for(s, "PolicyNotFound")).await;
}

/// As a supervisor says that comes back.
fn back(uid: &str, held: &Config) -> Hello {
    let level = enforcement_report::Level::Full.into();
    Hello {
        sandbox_id: uid.into(),
        instance_id: "i".into(),
        config_revision: held.revision,
        policy_hash: held.policy_hash.clone(),
        enforcement: Some(EnforcementReport { level, ..EnforcementReport::default() }),
        ..Hello::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_takes_away_what_is_gone_meanwhile() {
    let room = Room::new("hub-meanwhile");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = with_credential(&gateway, "s3cret").await;
    let (played, held) = holding(&ground, &uid).await;
    gateway.until(NAME, "acknowledged", |s| acknowledged_for(s, "Acknowledged")).await;
    drop(played);
    gateway.kill().await;

    let gateway = ground.start().await;
    let providers: kube::Api<Provider> = kube::Api::default_namespaced(gateway.api.client());
    providers.delete("forge", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut played = Played::connect(&ground, &uid, back(&uid, &held)).await.unwrap();
    let without = played.accepted().await.expect("a configuration");
    assert!(without.credentials.is_empty() && without.revision > held.revision, "{without:?}");
    assert_eq!(without.policy_json, held.policy_json);
    gateway.until(NAME, "told", |s| acknowledged_for(s, "ProviderNotFound")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_held_back_begins_with_all_of_its_credentials() {
    let room = Room::new("hub-held-back");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = with_credential(&gateway, "s3cret").await;
    let mut played = Played::hello(&ground, &uid, "i").await;
    let first = played.accepted().await.expect("a configuration");
    assert!(first.await_enforcement);
    played.acknowledge(&first).await;
    drop(played);
    let secrets: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::default_namespaced(gateway.api.client());
    secrets.delete("osprov-forge", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut again = Played::connect(&ground, &uid, back(&uid, &first)).await.unwrap();
    assert_eq!(again.accepted().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_level_that_cannot_keep_secrets_gets_none() {
    let room = Room::new("hub-readable");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = with_credential(&gateway, "s3cret").await;
    let mut played = Played::hello(&ground, &uid, "i").await;
    assert!(played.accepted().await.unwrap().await_enforcement);
    played.enforce(&["secrets-readable"]).await;
    let config = played.config().await;
    assert!(!config.await_enforcement && config.credentials.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newer_supervisor_wins_and_the_older_cannot_come_back() {
    let room = Room::new("hub-supersede");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = sandbox(&gateway).await;
    let mut old = Played::hello(&ground, &uid, "old").await;
    old.accepted().await;
    let mut new = Played::hello(&ground, &uid, "new").await;
    assert!(new.accepted().await.is_some());
    for played in [&mut old, &mut Played::hello(&ground, &uid, "old").await] {
        match played.next().await {
            Some(from_gateway::Payload::Rejected(rejected)) => assert_eq!((rejected.code.as_str(), rejected.retry), ("Superseded", false)),
            other => panic!("{other:?}"),
        }
    }
    assert!(gateway.hub.connected(&uid));
    // The same instance on a new connection replaces its own session without ado.
    let mut again = Played::hello(&ground, &uid, "new").await;
    assert!(again.accepted().await.is_some());
    assert_eq!(new.next().await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_supervisor_is_disconnected_and_the_object_says_so() {
    let room = Room::new("hub-silent");
    let ground = room.ground();
    let gateway = ground.start_with_heartbeat(Duration::from_millis(100)).await;
    let uid = sandbox(&gateway).await;
    let mut played = Played::hello(&ground, &uid, "i").await;
    let config = played.accepted().await.unwrap();
    played.acknowledge(&config).await;
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        played.say(from_supervisor::Payload::Heartbeat(Heartbeat {})).await;
        assert!(gateway.hub.connected(&uid));
    }
    assert_eq!(played.next().await, None, "ended by the gateway");
    assert!(!gateway.hub.connected(&uid));
    let holds = |s: &OpenShellSandbox| {
        s.status.as_ref().is_some_and(|s| conditions::find(&s.conditions, conditions::CONNECTED).is_some_and(|c| c.status == "False"))
    };
    let lost = gateway.until(NAME, "disconnected", holds).await;
    assert!(!lost.status.unwrap().session.unwrap().connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_instance_starts_unacknowledged() {
    let room = Room::new("hub-instance");
    let ground = room.ground();
    let gateway = ground.start().await;
    let uid = sandbox(&gateway).await;
    let acknowledged = |s: &OpenShellSandbox| s.status.as_ref().and_then(|s| s.policy.as_ref()).and_then(|p| p.acknowledged_revision);
    let mut first = Played::hello(&ground, &uid, "first").await;
    let config = first.accepted().await.unwrap();
    first.acknowledge(&config).await;
    gateway.until(NAME, "acknowledged", |s| acknowledged(s) == Some(1)).await;
    let mut second = Played::hello(&ground, &uid, "second").await;
    let config = second.accepted().await.unwrap();
    let fresh = |s: &OpenShellSandbox| s.status.as_ref().and_then(|s| s.session.as_ref()).is_some_and(|s| s.instance_id == "second");
    let now = gateway.until(NAME, "second instance", fresh).await;
    assert_eq!(acknowledged(&now), None);
    second.acknowledge(&config).await;
    gateway.until(NAME, "acknowledged again", |s| acknowledged(s) == Some(1)).await;
}
