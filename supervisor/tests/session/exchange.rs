//! Tokens for supervisors in pods: who gets one, and until when it counts.

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, future::BoxFuture};
use openshell_gateway::{
    pki::SandboxTokens,
    session::{Attest, AttestError, Attested, Exchange},
};
use openshell_proto::supervisor::{
    ExchangeRequest, FromSupervisor, Hello, RenewRequest, SandboxToken, from_gateway, from_supervisor,
    supervisor_session_client::SupervisorSessionClient,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};

use super::{
    NAME, POLICY, Room,
    gateway::{self, Gateway, Ground},
};

/// An API server whose service account tokens name their sandbox.
struct Word;

impl Attest for Word {
    fn attest<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Attested, AttestError>> {
        async move {
            match token.split_once(' ') {
                Some(("pod-of", uid)) => Ok(Attested { sandbox_id: uid.to_owned(), pod_uid: "pod".to_owned() }),
                Some(_) => Err(AttestError::Foreign("no Sandbox controls it".to_owned())),
                None => Err(AttestError::Unknown("never heard of it".to_owned())),
            }
        }
        .boxed()
    }
}

struct Cluster {
    ground: Ground,
    exchange: Exchange,
    _room: Room,
}

impl Cluster {
    fn new(test: &str) -> Self {
        let room = Room::new(test);
        let tokens = Arc::new(SandboxTokens::open(&room.0, "default").unwrap());
        Self { ground: room.ground(), exchange: Exchange { tokens, attest: Arc::new(Word) }, _room: room }
    }

    async fn start(&self) -> Gateway {
        self.ground.start_as(Duration::from_secs(5), Some(self.exchange.clone())).await
    }

    async fn client(&self) -> SupervisorSessionClient<Channel> {
        let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&self.ground.ca_pem)).domain_name("localhost");
        let endpoint = Channel::from_shared(format!("https://{}", self.ground.address)).unwrap().tls_config(tls).unwrap();
        SupervisorSessionClient::new(endpoint.connect().await.unwrap())
    }

    async fn exchange(&self, uid: &str, proof: &str) -> Result<SandboxToken, Status> {
        let request = ExchangeRequest { sandbox_id: uid.to_owned(), service_account_token: proof.to_owned() };
        self.client().await.exchange(request).await.map(tonic::Response::into_inner)
    }

    async fn renew(&self, token: &str) -> Result<SandboxToken, Status> {
        self.client().await.renew(bearer(RenewRequest {}, token)).await.map(tonic::Response::into_inner)
    }

    /// Says hello; the session lives as long as what is returned.
    async fn session(&self, uid: &str, instance: &str, token: &str) -> Result<mpsc::Sender<FromSupervisor>, Status> {
        let (outgoing, stream) = mpsc::channel(16);
        let hello = Hello { sandbox_id: uid.to_owned(), instance_id: instance.to_owned(), ..Hello::default() };
        outgoing.send(FromSupervisor { payload: Some(from_supervisor::Payload::Hello(hello)) }).await.unwrap();
        let mut inbound = self.client().await.control(bearer(ReceiverStream::new(stream), token)).await?.into_inner();
        let first = inbound.message().await?.and_then(|message| message.payload);
        assert!(matches!(first, Some(from_gateway::Payload::Accepted(_))), "{first:?}");
        tokio::spawn(async move { while let Ok(Some(_)) = inbound.message().await {} });
        Ok(outgoing)
    }
}

fn bearer<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

fn code<T: std::fmt::Debug>(result: Result<T, Status>) -> Code {
    result.unwrap_err().code()
}

async fn disconnected(gateway: &Gateway, uid: &str) {
    for _ in 0..1000 {
        if !gateway.hub.connected(uid) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the session did not end");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_pod_of_a_sandbox_gets_its_token() {
    let cluster = Cluster::new("exchange-who");
    let gateway = cluster.start().await;
    let uid = gateway.create(NAME, gateway::spec(&["true"], POLICY)).await.metadata.uid.unwrap();
    let other = gateway.create("other", gateway::spec(&["true"], POLICY)).await.metadata.uid.unwrap();
    assert_eq!(code(cluster.exchange(&uid, "forged").await), Code::Unauthenticated);
    assert_eq!(code(cluster.exchange(&uid, "pod-without sandbox").await), Code::PermissionDenied);
    assert_eq!(code(cluster.exchange(&uid, &format!("pod-of {other}")).await), Code::PermissionDenied);
    assert_eq!(code(cluster.exchange("gone", "pod-of gone").await), Code::FailedPrecondition);
    let token = cluster.exchange(&uid, &format!("pod-of {uid}")).await.unwrap();
    assert_eq!(token.lifetime.unwrap().seconds, 3600);
    assert_eq!(code(cluster.session(&other, "i", &token.token).await), Code::PermissionDenied);
    cluster.session(&uid, "i", &token.token).await.unwrap();
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_newest_exchange_counts_and_none_is_made_beside_a_session() {
    let cluster = Cluster::new("exchange-newest");
    let gateway = cluster.start().await;
    let uid = gateway.create(NAME, gateway::spec(&["true"], POLICY)).await.metadata.uid.unwrap();
    let proof = format!("pod-of {uid}");
    let first = cluster.exchange(&uid, &proof).await.unwrap().token;
    let session = cluster.session(&uid, "one", &first).await.unwrap();
    assert_eq!(code(cluster.exchange(&uid, &proof).await), Code::FailedPrecondition);
    let renewed = cluster.renew(&first).await.unwrap().token;
    drop(session);
    disconnected(&gateway, &uid).await;
    // After a lost reply the same service account token works again.
    let second = cluster.exchange(&uid, &proof).await.unwrap().token;
    for revoked in [&first, &renewed] {
        assert_eq!(code(cluster.session(&uid, "one", revoked).await), Code::Unauthenticated);
        assert_eq!(code(cluster.renew(revoked).await), Code::Unauthenticated);
    }
    let _session = cluster.session(&uid, "two", &second).await.unwrap();
    cluster.renew(&second).await.unwrap();
    // And a gateway that was not there knows it from the object.
    let recorded = gateway.until(NAME, "the exchange is recorded", |s| {
        let session = s.status.as_ref().and_then(|status| status.session.as_ref());
        session.is_some_and(|session| session.connected && session.instance_id == "two")
    });
    assert!(recorded.await.status.unwrap().session.unwrap().exchange.is_some());
    gateway.kill().await;
    let gateway = cluster.start().await;
    assert_eq!(code(cluster.session(&uid, "one", &first).await), Code::Unauthenticated);
    cluster.session(&uid, "two", &second).await.unwrap();
    gateway.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_whose_driver_hands_tokens_over_exchanges_none() {
    let cluster = Cluster::new("exchange-none");
    let gateway = cluster.ground.start().await;
    assert_eq!(code(cluster.exchange("u", "pod-of u").await), Code::Unimplemented);
    gateway.kill().await;
}
