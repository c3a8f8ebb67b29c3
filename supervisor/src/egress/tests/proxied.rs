//! Clients that ask the explicit proxy.

use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use super::harness::*;
use crate::egress::proxy::PROXY_ADDRESS;

async fn proxy(sandbox: &Sandbox) -> TcpStream {
    sandbox.connect_to(PROXY_ADDRESS).await.unwrap()
}

#[tokio::test]
async fn a_tunnel_is_the_same_connection() {
    let (server, roots) = Server::tls().await;
    let port = server.address.port();
    let sandbox = Sandbox::with_roots(&policy(port, &rest(&[("GET", "/ok")])), roots);
    let synthetic = sandbox.lookup(HOST).await.unwrap();
    for target in [HOST.to_owned(), synthetic.to_string()] {
        let mut stream = proxy(&sandbox).await;
        assert_eq!(ask(&mut stream, &format!("CONNECT {target}:{port} HTTP/1.1\r\nHost: x\r\n\r\n")).await.unwrap().status, 200);
        let mut stream = sandbox.tls(stream, HOST).await.unwrap();
        assert_eq!(ask(&mut stream, &get("/ok", "")).await.unwrap().text(), "hello /ok");
        assert_eq!(ask(&mut stream, &get("/no", "")).await.unwrap().status, 403);
    }
}

#[tokio::test]
async fn a_tunnel_that_is_not_granted_is_told_so() {
    let server = Server::echo().await;
    let closed = {
        let listener = tokio::net::TcpListener::bind((machine(), 0)).await.unwrap();
        listener.local_addr().unwrap().port()
    };
    let sandbox = Sandbox::with(
        &policy(server.port(), "").replace(&format!("port: {}", server.port()), &format!("ports: [{}, {closed}]", server.port())),
    );
    for (target, status, code) in [
        ("secret.example:443".to_owned(), 403, "policy_denied"),
        (format!("{server}"), 403, "policy_denied"),
        (format!("[::ffff:{}]:{}", server.ip(), server.port()), 403, "policy_denied"),
        ("198.18.77.7:443".to_owned(), 403, "policy_denied"),
        (format!("{HOST}:{closed}"), 502, "upstream_unreachable"),
        ("nonsense".to_owned(), 400, "invalid_request_target"),
    ] {
        let mut stream = proxy(&sandbox).await;
        let answer = ask(&mut stream, &format!("CONNECT {target} HTTP/1.1\r\n\r\n")).await.unwrap();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(code)), "{target}: {}", answer.text());
    }
    sandbox.recorded("secret.example").await;
}

#[tokio::test]
async fn absolute_requests_are_decided_by_their_host() {
    let (one, two) = (Server::plain().await, Server::plain().await);
    let (first, second) = (one.address.port(), two.address.port());
    let text = format!(
        "{}  second:\n    endpoints:\n      - host: other.example\n        port: {second}\n        allowed_ips: [\"{}\"]\n    binaries:\n      - path: /usr/bin/tool\n",
        policy(first, &rest(&[("GET", "/ok")])),
        machine()
    );
    let sandbox = Sandbox::with(&text);
    let mut stream = proxy(&sandbox).await;
    for _ in 0..2 {
        let request = format!("GET http://{HOST}:{first}/ok HTTP/1.1\r\nHost: {HOST}:{first}\r\nProxy-Connection: keep-alive\r\n\r\n");
        assert_eq!(ask(&mut stream, &request).await.unwrap().text(), "hello /ok");
        let request = format!("GET http://other.example:{second}/any HTTP/1.1\r\nHost: other.example:{second}\r\n\r\n");
        assert_eq!(ask(&mut stream, &request).await.unwrap().text(), "hello /any");
    }
    assert!(!one.last().headers.contains_key("proxy-connection"));
    assert_eq!(one.last().target, "/ok");
    for (request, status, code) in [
        (format!("GET http://{HOST}:{first}/no HTTP/1.1\r\nHost: {HOST}:{first}\r\n\r\n"), 403, "policy_denied"),
        ("GET http://secret.example/ HTTP/1.1\r\nHost: secret.example\r\n\r\n".to_owned(), 403, "policy_denied"),
        (format!("GET http://{HOST}:{first}/ok HTTP/1.1\r\nHost: evil.example\r\n\r\n"), 403, "request_authority_mismatch"),
        ("GET https://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), 400, "unsupported_proxy_scheme"),
        ("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n".to_owned(), 400, "invalid_request_target"),
    ] {
        let mut stream = proxy(&sandbox).await;
        let answer = ask(&mut stream, &request).await.unwrap();
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(code)), "{request:?}: {}", answer.text());
    }
    assert_eq!((one.count(), two.count()), (2, 2));
}

#[tokio::test]
async fn bytes_sent_ahead_belong_to_the_tunnel() {
    let server = Server::echo().await;
    let sandbox = Sandbox::with(&policy(server.port(), ""));
    let mut stream = proxy(&sandbox).await;
    stream.write_all(format!("CONNECT {HOST}:{} HTTP/1.1\r\n\r\nearly", server.port()).as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut answer).await.unwrap();
    assert!(answer.ends_with(b"\r\n\r\nearly"), "{}", String::from_utf8_lossy(&answer));
}
