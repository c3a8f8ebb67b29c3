//! Who gets in, over the real listener: certificates, tokens, names, and the object API.

#![allow(clippy::unwrap_used)]

mod support;

use openshell_proto::supervisor::supervisor_session_client::SupervisorSessionClient;
use openshell_proto::supervisor::{FromSupervisor, Hello, from_supervisor};
use openshell_proto::v1::open_shell_client::OpenShellClient;
use openshell_proto::{sandbox as wire, v1};
use support::{Gateway, create, http};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_caller_gets_what_is_its_own() {
    let mut gateway = Gateway::start().await;
    let mut user = gateway.api().await;
    let mut nobody = OpenShellClient::new(gateway.anonymous().await);
    let uid = |name: &str| {
        let request = create(name, &[]);
        let mut api = user.clone();
        async move { api.create_sandbox(request).await.unwrap().into_inner().sandbox.unwrap().metadata.unwrap().id }
    };
    let (first, _second) = (uid("first").await, uid("second").await);

    // Anybody may ask for health, and nothing else.
    nobody.health(v1::HealthRequest {}).await.unwrap();
    let refused = nobody.list_sandboxes(v1::ListSandboxesRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    assert!(refused.message().contains("client certificate"), "{}", refused.message());
    let unknown: Result<tonic::Response<v1::HealthResponse>, _> = {
        let mut grpc = tonic::client::Grpc::new(gateway.anonymous().await);
        grpc.ready().await.unwrap();
        let codec = tonic_prost::ProstCodec::<v1::HealthRequest, v1::HealthResponse>::default();
        grpc.unary(Request::new(v1::HealthRequest {}), "/openshell.v1.OpenShell/Nothing".parse().unwrap(), codec).await
    };
    assert_eq!(unknown.unwrap_err().code(), Code::Unauthenticated);

    // The user is the user.
    let me = user.get_current_user(v1::GetCurrentUserRequest {}).await.unwrap().into_inner();
    assert_eq!((me.subject.as_str(), me.identity_provider.as_str()), ("openshell-client", "mtls"));
    assert!(me.roles.contains(&"openshell-admin".to_owned()));

    // A sandbox's token opens its own configuration, not another's, and no user's method.
    let token = gateway.token(&first);
    let config = |name: &str| wire::GetSandboxConfigRequest { name: name.to_owned(), workspace_scope: None };
    nobody.get_sandbox_config(with_token(config("first"), &token)).await.unwrap();
    let other = nobody.get_sandbox_config(with_token(config("second"), &token)).await.unwrap_err();
    assert_eq!(other.code(), Code::PermissionDenied);
    let users = nobody.list_sandboxes(with_token(v1::ListSandboxesRequest::default(), &token)).await.unwrap_err();
    assert_eq!(users.code(), Code::PermissionDenied);
    let update = v1::UpdateConfigRequest { sandbox: "first".into(), policy: Some(wire::SandboxPolicy::default()), ..Default::default() };
    assert_eq!(nobody.update_config(with_token(update, &token)).await.unwrap_err().code(), Code::PermissionDenied);
    // A bad token is refused even with a good certificate.
    let bad = user.list_sandboxes(with_token(v1::ListSandboxesRequest::default(), "x.y.z")).await.unwrap_err();
    assert_eq!((bad.code(), bad.get_error_details().error_info().unwrap().reason.as_str()), (Code::Unauthenticated, "UNAUTHENTICATED"));
    assert!(!bad.message().contains("x.y.z"));

    // Sessions are for supervisors, each for its own sandbox.
    let hello = |id: &str| FromSupervisor {
        payload: Some(from_supervisor::Payload::Hello(Hello { sandbox_id: id.to_owned(), instance_id: "i".into(), ..Default::default() })),
    };
    let mut session = SupervisorSessionClient::new(gateway.channel().await);
    let by_user = session.control(tokio_stream::iter([hello(&first)])).await.unwrap_err();
    assert_eq!(by_user.code(), Code::PermissionDenied);
    let mut session = SupervisorSessionClient::new(gateway.anonymous().await);
    assert_eq!(session.control(tokio_stream::iter([hello(&first)])).await.unwrap_err().code(), Code::Unauthenticated);
    let foreign = session.control(with_token(tokio_stream::iter([hello("another")]), &token)).await.unwrap_err();
    assert_eq!(foreign.code(), Code::PermissionDenied);
    gateway.clean().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_object_api_is_for_the_user_and_for_our_own_names() {
    let mut gateway = Gateway::start().await;
    let path = "/apis/openshell.ai/v1alpha1/namespaces/openshell/openshellgateways/local";
    let (code, body) = http::get(&gateway, path, &[]).await;
    assert!(code == 200 && body.contains("OpenShellGateway"), "{code} {body}");
    for headers in [&[("Host", "rebound.example")][..], &[("Origin", "https://evil.example")], &[("Origin", "null")]] {
        let (code, body) = http::get(&gateway, path, headers).await;
        assert!(code == 403 && body.contains("Forbidden"), "{headers:?}: {code} {body}");
    }
    assert_eq!(http::get(&gateway, path, &[("Origin", "https://localhost")]).await.0, 200);
    let token = format!("Bearer {}", gateway.token("some-sandbox"));
    assert_eq!(http::get(&gateway, path, &[("Authorization", &token)]).await.0, 403);
    assert_eq!(http::get(&gateway, path, &[("Authorization", "Basic eDp5")]).await.0, 401);
    assert_eq!(http::get(&gateway, "/elsewhere", &[]).await.0, 404);
    gateway.clean().await;
}
