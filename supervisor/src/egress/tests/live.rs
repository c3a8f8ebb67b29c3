//! A new revision on live connections.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::*;

const NOTHING: &str = "version: 1\n";

#[tokio::test]
async fn what_a_revision_forbids_is_cut_at_once_and_the_rest_stays() {
    let (one, two) = (Server::echo().await, Server::echo().await);
    let both = format!(
        "{}  second:\n    endpoints:\n      - host: other.example\n        port: {}\n        allowed_ips: [\"{}\"]\n    binaries:\n      - path: /usr/bin/tool\n",
        policy(one.port(), ""),
        two.port(),
        machine()
    );
    let mut sandbox = Sandbox::with(&both);
    let mut kept = sandbox.connect(HOST, one.port()).await.unwrap();
    let mut doomed = sandbox.connect("other.example", two.port()).await.unwrap();
    for stream in [&mut kept, &mut doomed] {
        stream.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
    }
    assert_eq!(sandbox.install(&policy(one.port(), ""), Vec::new()), 1);
    let time = time_to_end(&mut doomed).await;
    assert!(time < Duration::from_millis(100), "{time:?}");
    kept.write_all(b"y").await.unwrap();
    assert_eq!(kept.read_u8().await.unwrap(), b'y');
    sandbox.recorded("NET:CLOSE [MED] BLOCKED").await;
    assert_eq!(sandbox.install(NOTHING, Vec::new()), 1);
    assert!(time_to_end(&mut kept).await < Duration::from_millis(100));
    assert_eq!(sandbox.install(NOTHING, Vec::new()), 0);
}

#[tokio::test]
async fn the_next_request_on_an_open_connection_is_decided_by_the_new_revision() {
    let (server, roots) = Server::tls().await;
    let port = server.address.port();
    let mut sandbox = Sandbox::with_roots(&policy(port, &rest(&[("GET", "/a")])), roots);
    let stream = sandbox.connect(HOST, port).await.unwrap();
    let mut stream = sandbox.tls(stream, HOST).await.unwrap();
    assert_eq!(ask(&mut stream, &get("/a", "")).await.unwrap().status, 200);
    assert_eq!(sandbox.install(&policy(port, &rest(&[("GET", "/b")])), Vec::new()), 0, "the host is still granted");
    assert_eq!(ask(&mut stream, &get("/b", "")).await.unwrap().status, 200);
    assert_eq!(ask(&mut stream, &get("/a", "")).await.unwrap().status, 403);
}

#[tokio::test]
async fn a_response_under_way_is_cut_with_what_allowed_it() {
    let server = Server::plain().await;
    let port = server.address.port();
    let allow = policy(port, &rest(&[("GET", "/stream"), ("GET", "/other")]));
    for (then, cut) in [(NOTHING.to_owned(), 1), (policy(port, &rest(&[("GET", "/other")])), 1), (allow.clone(), 0)] {
        let mut sandbox = Sandbox::with(&allow);
        let mut stream = sandbox.connect(HOST, port).await.unwrap();
        stream.write_all(get("/stream", "").as_bytes()).await.unwrap();
        let mut buffer = [0; 600];
        stream.read_exact(&mut buffer).await.unwrap();
        assert_eq!(sandbox.install(&then, Vec::new()), cut);
        if cut == 1 {
            let time = time_to_end(&mut stream).await;
            assert!(time < Duration::from_millis(100), "{time:?}");
        } else {
            stream.read_exact(&mut buffer).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_revision_that_cannot_be_used_changes_nothing() {
    let server = Server::echo().await;
    let sandbox = Sandbox::with(&policy(server.port(), ""));
    let policy = openshell_policy::from_yaml(NOTHING).unwrap();
    let broken = crate::egress::ActivePolicy {
        engine: openshell_policy::Engine::compile(&policy).unwrap(),
        revision: 9,
        credentials: Vec::new(),
        host_aliases: [("x".to_owned(), "not an address".to_owned())].into(),
        forbidden: Vec::new(),
    };
    assert!(sandbox.proxy.install(broken).unwrap_err().to_string().contains("host alias x"));
    assert!(sandbox.connect(HOST, server.port()).await.is_ok());
}

#[tokio::test]
async fn a_revoked_credential_is_not_used_by_the_next_request() {
    let (server, roots) = Server::tls().await;
    let port = server.address.port();
    let allow = policy(port, &rest(&[("GET", "/**")]));
    let mut sandbox = Sandbox::with_roots(&allow, roots);
    sandbox.install(&allow, vec![credential(port, "")]);
    let stream = sandbox.connect(HOST, port).await.unwrap();
    let mut stream = sandbox.tls(stream, HOST).await.unwrap();
    let bearer = format!("Authorization: Bearer {PLACEHOLDER}\r\n");
    assert_eq!(ask(&mut stream, &get("/a", &bearer)).await.unwrap().status, 200);
    sandbox.install(&allow, Vec::new());
    let denied = ask(&mut stream, &get("/a", &bearer)).await.unwrap();
    assert_eq!(denied.json()["error"], "credential_unavailable");
}
