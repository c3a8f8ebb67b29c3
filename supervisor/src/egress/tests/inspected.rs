//! Requests that are looked into.

use std::time::Duration;

use rustls::RootCertStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::harness::*;

#[tokio::test]
async fn requests_are_decided_one_by_one_on_a_kept_connection() {
    let server = Server::plain().await;
    let sandbox = Sandbox::with(&policy(server.address.port(), &rest(&[("GET", "/repos/**"), ("POST", "/repos/**")])));
    let mut stream = sandbox.connect(HOST, server.address.port()).await.unwrap();
    assert_eq!(ask(&mut stream, &get("/repos/a?token=hidden", "")).await.unwrap().text(), "hello /repos/a");
    // What is decided is what is sent.
    assert_eq!(ask(&mut stream, &get("/x/../repos//%61;v=1?q=%20", "")).await.unwrap().text(), "hello /repos/a");
    assert_eq!(server.last().target, "/repos/a?q=%20");
    let post = format!("POST /repos/b HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(ask(&mut stream, &post).await.unwrap().status, 200);
    assert_eq!(server.last().body, 3);

    let denied = ask(&mut stream, &format!("DELETE /repos/a?token=hidden HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.unwrap();
    assert_eq!(denied.status, 403);
    assert!(denied.head.contains("x-openshell-policy: forge") && denied.head.contains("connection: close"), "{}", denied.head);
    let json = denied.json();
    for (key, value) in [
        ("error", "policy_denied"),
        ("layer", "l7"),
        ("method", "DELETE"),
        ("path", "/repos/a"),
        ("host", HOST),
        ("binary", "/usr/bin/tool"),
    ] {
        assert_eq!(json[key], value, "{key}: {json}");
    }
    assert!(json["next_steps"].as_array().is_some_and(|steps| !steps.is_empty()) && json["agent_guidance"].is_string(), "{json}");
    assert_eq!(server.count(), 3, "the server never saw it");
    let lines = sandbox.recorded("HTTP:DELETE [MED] DENIED").await;
    assert!(lines.iter().any(|line| line.starts_with("HTTP:GET [INFO] ALLOWED")), "{lines:?}");
    let everything = format!("{:?}", sandbox.records());
    assert!(!everything.contains("hidden"), "query strings are not recorded");
}

#[tokio::test]
async fn tls_is_terminated_and_the_server_verified() {
    let (server, roots) = Server::tls().await;
    let port = server.address.port();
    let sandbox = Sandbox::with_roots(&policy(port, &rest(&[("GET", "/**")])), roots);
    for _ in 0..2 {
        let stream = sandbox.connect(HOST, port).await.unwrap();
        let mut stream = sandbox.tls(stream, HOST).await.unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        assert_eq!(ask(&mut stream, &get("/a", "")).await.unwrap().text(), "hello /a");
        assert_eq!(ask(&mut stream, &get("/b", "")).await.unwrap().text(), "hello /b");
        assert_eq!(ask(&mut stream, &format!("PUT /b HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 0\r\n\r\n")).await.unwrap().status, 403);
    }
    let stream = sandbox.connect(HOST, port).await.unwrap();
    assert!(sandbox.tls(stream, "other.example").await.is_err(), "another server name on this connection");
    sandbox.recorded("the TLS server name is other.example").await;

    // The same server without its root: told over HTTP, not by a broken handshake.
    let distrusting = Sandbox::with_roots(&policy(port, &rest(&[("GET", "/**")])), RootCertStore::empty());
    let stream = distrusting.connect(HOST, port).await.unwrap();
    let mut stream = distrusting.tls(stream, HOST).await.unwrap();
    let answer = ask(&mut stream, &get("/a", "")).await.unwrap();
    assert_eq!((answer.status, answer.json()["error"].as_str()), (502, Some("upstream_unreachable")));
    assert!(answer.text().contains("UnknownIssuer"), "{}", answer.text());
}

#[tokio::test]
async fn a_credential_reaches_its_endpoint_and_no_other() {
    let (server, roots) = Server::tls().await;
    let port = server.address.port();
    for endpoint in [rest(&[("GET", "/**")]), String::new()] {
        let mut sandbox = Sandbox::with_roots(&policy(port, &endpoint), roots.clone());
        sandbox.install(&policy(port, &endpoint), vec![credential(port, "/v1/**")]);
        let stream = sandbox.connect(HOST, port).await.unwrap();
        let mut stream = sandbox.tls(stream, HOST).await.unwrap();
        let bearer = format!("Authorization: Bearer {PLACEHOLDER}\r\n");
        assert_eq!(ask(&mut stream, &get("/v1/user", &bearer)).await.unwrap().status, 200, "{endpoint:?}");
        assert_eq!(server.last().headers["authorization"], format!("Bearer {VALUE}"));
        let asked = server.count();
        let denied = ask(&mut stream, &get("/v2/user", &bearer)).await.unwrap();
        assert_eq!((denied.status, denied.json()["error"].as_str()), (403, Some("credential_endpoint_mismatch")));
        let stream = sandbox.connect(HOST, port).await.unwrap();
        let mut stream = sandbox.tls(stream, HOST).await.unwrap();
        let denied = ask(&mut stream, &get(&format!("/v1/user?key={PLACEHOLDER}"), "")).await.unwrap();
        assert_eq!(denied.json()["error"], "invalid_credential_placeholder");
        assert_eq!(server.count(), asked, "neither was sent");
        sandbox.recorded("openshell.provider_credential.endpoint_mismatch").await;
        let everything = format!("{:?}", sandbox.records());
        assert!(!everything.contains(VALUE) && !everything.contains(PLACEHOLDER), "never recorded");
        assert!(!format!("{}{}", denied.head, denied.text()).contains(VALUE));
    }
}

#[tokio::test]
async fn what_is_ambiguous_or_not_http_never_reaches_the_server() {
    let server = Server::plain().await;
    let port = server.address.port();
    let sandbox = Sandbox::with(&policy(port, &rest(&[("*", "/**")])));
    let host = format!("Host: {HOST}\r\n");
    for (request, status, code) in [
        (format!("POST / HTTP/1.1\r\n{host}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), 400, "invalid_request"),
        (format!("GET / HTTP/1.1\r\n{host}Host: evil.example\r\n\r\n"), 400, "invalid_request"),
        (format!("GET / HTTP/1.1\r\n{host}X: a\r\n b\r\n\r\n"), 400, "invalid_request"),
        (format!("GET / HTTP/1.1\n{host}\n"), 400, "invalid_request"),
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "unsupported_l7_protocol"),
        ("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(), 403, "request_authority_mismatch"),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}:1\r\n\r\n"), 403, "request_authority_mismatch"),
        (format!("GET http://evil.example/ HTTP/1.1\r\n{host}\r\n"), 403, "request_authority_mismatch"),
        (format!("GET http://u@{HOST}/ HTTP/1.1\r\n{host}\r\n"), 403, "request_authority_mismatch"),
        (format!("GET /a%2fb HTTP/1.1\r\n{host}\r\n"), 400, "invalid_request_target"),
        (format!("GET /%252e HTTP/1.1\r\n{host}\r\n"), 400, "invalid_request_target"),
        (format!("GET /a\\b HTTP/1.1\r\n{host}\r\n"), 400, "invalid_request_target"),
        (format!("GET * HTTP/1.1\r\n{host}\r\n"), 400, "invalid_request_target"),
        (format!("CONNECT {HOST}:{port} HTTP/1.1\r\n{host}\r\n"), 400, "invalid_request_target"),
        (format!("GET / HTTP/1.1\r\n{host}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"), 403, "unsupported_l7_protocol"),
    ] {
        let mut stream = sandbox.connect(HOST, port).await.unwrap();
        let answer = ask(&mut stream, &request).await.unwrap_or_else(|error| panic!("{request:?}: {error}"));
        assert_eq!((answer.status, answer.json()["error"].as_str()), (status, Some(code)), "{request:?}: {}", answer.text());
        time_to_end(&mut stream).await;
    }
    let mut stream = sandbox.connect(HOST, port).await.unwrap();
    stream.write_all(b"SSH-2.0-client\r\n").await.unwrap();
    time_to_end(&mut stream).await;
    sandbox.recorded("carries HTTP/1.1").await;
    assert_eq!(server.count(), 0);
    // A smuggled request behind a good one: the first may be answered, the second never arrives.
    let mut stream = sandbox.connect(HOST, port).await.unwrap();
    let both = format!("{}GET / HTTP/1.1\r\n{host}Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", get("/first", ""));
    let _ = ask(&mut stream, &both).await;
    time_to_end(&mut stream).await;
    assert!(server.seen.lock().unwrap().iter().all(|seen| seen.target == "/first"));
}

#[tokio::test]
async fn ordinary_http_goes_through_unharmed() {
    let server = Server::plain().await;
    let port = server.address.port();
    let sandbox = Sandbox::with(&policy(port, &rest(&[("*", "/**")])));
    let host = format!("Host: {HOST}:{port}\r\n");
    let mut stream = sandbox.connect(HOST, port).await.unwrap();
    // Pipelined.
    stream.write_all(format!("GET /1 HTTP/1.1\r\n{host}\r\nGET /2 HTTP/1.1\r\n{host}\r\n").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream, false).await.unwrap().text(), "hello /1");
    assert_eq!(read_answer(&mut stream, false).await.unwrap().text(), "hello /2");
    // A body with permission first.
    stream.write_all(format!("POST /e HTTP/1.1\r\n{host}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n").as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream, false).await.unwrap().status, 100);
    assert_eq!(ask(&mut stream, "body").await.unwrap().text(), "hello /e");
    // A body in chunks, of a method that rarely has one as well.
    for method in ["POST", "GET", "DELETE"] {
        let chunked = format!("{method} /c HTTP/1.1\r\n{host}Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n2\r\nfg\r\n0\r\n\r\n");
        assert_eq!(ask(&mut stream, &chunked).await.unwrap().status, 200);
        assert_eq!((server.last().body, server.last().method.as_str()), (7, method));
    }
    let head = ask(&mut stream, &format!("HEAD /x HTTP/1.1\r\n{host}\r\n")).await.unwrap();
    assert!(head.head.contains("content-length: 8"), "{}", head.head);
    assert_eq!(ask(&mut stream, &format!("GET /204 HTTP/1.1\r\n{host}\r\n")).await.unwrap().status, 204);
    assert_eq!(ask(&mut stream, &format!("GET /big HTTP/1.1\r\n{host}\r\n")).await.unwrap().body.len(), 8 << 20);
    // The server closes; the agent's connection goes on over a new one.
    assert_eq!(ask(&mut stream, &format!("GET /close HTTP/1.1\r\n{host}\r\n")).await.unwrap().text(), "bye");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(ask(&mut stream, &format!("GET /again HTTP/1.1\r\n{host}\r\n")).await.unwrap().text(), "hello /again");
    // A large upload.
    let length = 16 << 20;
    let request = format!("PUT /up HTTP/1.1\r\n{host}Content-Length: {length}\r\n\r\n{}", "y".repeat(length));
    assert_eq!(ask(&mut stream, &request).await.unwrap().status, 200);
    assert_eq!(server.last().body, length);
    // Hop-by-hop fields stay on their hop.
    let fields = "Connection: X-Hop\r\nX-Hop: 1\r\nProxy-Authorization: Basic eA==\r\nTE: trailers\r\nX-End: 1\r\n";
    ask(&mut stream, &format!("GET /h HTTP/1.1\r\n{host}{fields}\r\n")).await.unwrap();
    let seen = server.last().headers;
    assert!(
        seen.contains_key("x-end") && !seen.contains_key("x-hop") && !seen.contains_key("proxy-authorization") && !seen.contains_key("te"),
        "{seen:?}"
    );
    // A client of HTTP/1.0 days.
    let mut old = sandbox.connect(HOST, port).await.unwrap();
    assert_eq!(ask(&mut old, "GET /old HTTP/1.0\r\n\r\n").await.unwrap().text(), "hello /old");
    let mut rest = Vec::new();
    old.read_to_end(&mut rest).await.unwrap();
}

#[tokio::test]
async fn an_audited_endpoint_lets_pass_and_says_so() {
    let server = Server::plain().await;
    let port = server.address.port();
    let endpoint = rest(&[("GET", "/ok")]).replace("enforcement: enforce", "enforcement: audit");
    let sandbox = Sandbox::with(&policy(port, &endpoint));
    let mut stream = sandbox.connect(HOST, port).await.unwrap();
    assert_eq!(ask(&mut stream, &get("/other", "")).await.unwrap().status, 200);
    sandbox.recorded("audit:would-deny").await;
}
