//! What is opened and what is not, and how it is carried without inspection.

use std::{net::SocketAddr, sync::Arc};

use rustls::RootCertStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::*;
use crate::{
    egress::identity::{Identity, Integrity},
    flow::{Errno, Refusal},
    limits::egress::CONNECTIONS,
};

fn refused<T>(result: Result<T, Refusal>) -> Refusal {
    result.err().expect("refused")
}

#[tokio::test]
async fn an_allowed_host_is_relayed_by_its_synthetic_address() {
    let server = Server::echo().await;
    let sandbox = Sandbox::with(&policy(server.port(), ""));
    let address = sandbox.lookup(HOST).await.unwrap();
    assert!(address.to_string().starts_with("198.18."), "{address}");
    let mut stream = sandbox.connect(HOST, server.port()).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    assert_eq!(answer, b"ping");
    let lines = sandbox.recorded("ALLOWED").await;
    let expected = format!("NET:OPEN [INFO] ALLOWED /usr/bin/tool(42) -> {HOST}:{} [policy:forge engine:opa]", server.port());
    assert!(lines.contains(&expected), "{lines:?}");
}

#[tokio::test]
async fn what_no_rule_grants_is_refused_and_recorded() {
    let server = Server::echo().await;
    let mut sandbox = Sandbox::with(&policy(server.port(), ""));
    // Another name does not exist, another port is not granted.
    assert_eq!(sandbox.lookup("secret.example").await, None);
    assert_eq!(refused(sandbox.connect(HOST, 1).await).errno, Errno::Denied);
    // Straight to the address, in each of its forms, and to addresses that stand for nothing.
    for address in [
        server.to_string(),
        format!("[::ffff:{}]:{}", server.ip(), server.port()),
        format!("198.18.200.1:{}", server.port()),
        "198.18.0.2:53".to_owned(),
        "1.1.1.1:443".to_owned(),
        "[::1]:80".to_owned(),
    ] {
        let destination: SocketAddr = address.parse().unwrap();
        assert_eq!(refused(sandbox.open(destination).await).errno, Errno::Denied, "{address}");
    }
    // Another executable.
    sandbox.identity = Arc::new(Identity { exe: "/usr/bin/other".into(), ..(*sandbox.identity).clone() });
    assert_eq!(refused(sandbox.connect(HOST, server.port()).await).errno, Errno::Denied);
    let lines = sandbox.recorded("/usr/bin/other").await;
    assert!(lines.iter().any(|line| line.contains("DENIED") && line.contains("secret.example")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("DENIED") && line.contains(&server.ip().to_string())), "{lines:?}");
}

#[tokio::test]
async fn without_a_policy_nothing_is_opened_or_resolved() {
    let sandbox = Sandbox::new(RootCertStore::empty());
    assert_eq!(sandbox.lookup(HOST).await, None);
    let refusal = sandbox.open("192.0.2.2:443".parse().unwrap()).await.err().unwrap();
    assert_eq!(refusal.errno, Errno::Denied);
}

#[tokio::test]
async fn errors_of_the_network_are_real() {
    let port = {
        let listener = tokio::net::TcpListener::bind((machine(), 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let sandbox = Sandbox::with(&policy(port, ""));
    let refusal = sandbox.connect(HOST, port).await.err().unwrap();
    assert_eq!(refusal.errno, Errno::Refused, "{}", refusal.reason);
    sandbox.recorded("FAILED").await;
}

#[tokio::test]
async fn a_granted_name_at_a_special_address_needs_allowed_ips() {
    let server = Server::echo().await;
    let with = policy(server.port(), "");
    let without = with.lines().filter(|line| !line.contains("allowed_ips")).collect::<Vec<_>>().join("\n");
    let refusal = Sandbox::with(&without).connect(HOST, server.port()).await.err().unwrap();
    assert!(refusal.reason.contains("blocked: declared endpoint check failed"), "{}", refusal.reason);
    let elsewhere = with.replace(&format!("[\"{}\"]", machine()), "[\"10.9.9.9/32\"]");
    let refusal = Sandbox::with(&elsewhere).connect(HOST, server.port()).await.err().unwrap();
    assert!(refusal.reason.contains("blocked: allowed_ips check failed"), "{}", refusal.reason);
    // The gateway, although the policy grants it.
    let refusal = Sandbox::with(&policy(17670, "")).connect(HOST, 17670).await.err().unwrap();
    assert!(refusal.reason.contains("a part of OpenShell itself"), "{}", refusal.reason);
}

#[tokio::test]
async fn a_changed_executable_is_refused_with_a_finding() {
    let server = Server::echo().await;
    let mut sandbox = Sandbox::with(&policy(server.port(), ""));
    let integrity = Integrity::Changed { path: "/usr/bin/tool".into() };
    sandbox.identity = Arc::new(Identity { integrity, ..(*sandbox.identity).clone() });
    assert_eq!(sandbox.connect(HOST, server.port()).await.err().unwrap().errno, Errno::Denied);
    sandbox.recorded("FINDING:CREATE [HIGH] openshell.binary.changed").await;
}

#[tokio::test]
async fn connections_are_bounded_and_places_are_given_back() {
    let server = Server::echo().await;
    let sandbox = Sandbox::with(&policy(server.port(), ""));
    let address = SocketAddr::new(sandbox.lookup(HOST).await.unwrap(), server.port());
    let mut flows = Vec::new();
    let refusal = loop {
        match sandbox.open(address).await {
            Ok(flow) => flows.push(flow),
            Err(refusal) => break refusal,
        }
    };
    // Descriptors may run out first; either way the agent is told to try again or that it failed.
    assert!(flows.len() <= CONNECTIONS);
    if flows.len() == CONNECTIONS {
        assert_eq!(refusal.errno, Errno::Exhausted);
    }
    flows.clear();
    assert!(sandbox.open(address).await.is_ok());
}

#[tokio::test]
async fn passed_through_tls_must_name_the_decided_host() {
    let (server, roots) = Server::tls().await;
    let sandbox = Sandbox::with(&policy(server.address.port(), "        tls: skip\n"));
    // The server's own certificate is seen: nothing is terminated.
    let stream = sandbox.connect(HOST, server.address.port()).await.unwrap();
    let mut stream = tls_with(roots.clone(), stream, HOST).await.unwrap();
    assert_eq!(ask(&mut stream, &get("/x", "")).await.unwrap().text(), "hello /x");
    let stream = sandbox.connect(HOST, server.address.port()).await.unwrap();
    assert!(tls_with(roots, stream, "evil.example").await.is_err());
    sandbox.recorded("the TLS server name is evil.example").await;
    let mut stream = sandbox.connect(HOST, server.address.port()).await.unwrap();
    assert!(ask(&mut stream, &get("/x", "")).await.is_err());
    sandbox.recorded("carries TLS only").await;
    assert_eq!(server.count(), 1);
}
