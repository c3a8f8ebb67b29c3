use proptest::prelude::*;

use super::{Destination, Head, absolute_destination, parse_head};

fn connect(host: &str, port: u16, length: usize) -> Head {
    Head::Connect { destination: Destination { host: host.into(), port }, length }
}

#[test]
fn connect_requests_are_read_and_nothing_after_them() {
    let head = b"CONNECT Api.Example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(parse_head(head), connect("api.example.com", 443, head.len()));
    let with_more = [&head[..], b"\x16\x03\x01"].concat();
    assert_eq!(parse_head(&with_more), connect("api.example.com", 443, head.len()));
    for end in 1..head.len() {
        assert_eq!(parse_head(&head[..end]), Head::Incomplete, "{end}");
    }
    assert_eq!(parse_head(b"CONNECT [fd00::2]:8443 HTTP/1.0\r\n\r\n"), connect("fd00::2", 8443, 35));
    assert_eq!(parse_head(b"CONNECT [::ffff:10.0.0.1]:80 HTTP/1.1\r\n\r\n"), connect("10.0.0.1", 80, 41));
    assert_eq!(parse_head(b"GET http://a/ HTTP/1.1\r\n"), Head::Request);
    assert_eq!(parse_head(b"C"), Head::Incomplete);
    assert_eq!(parse_head(b"CONNECTX"), Head::Request);
    assert_eq!(parse_head(&[b"CONNECT ", &[b'a'; 9000][..]].concat()), Head::TooLarge);
}

#[test]
fn what_is_no_connect_request_is_refused() {
    for line in [
        "CONNECT a HTTP/1.1",
        "CONNECT a: HTTP/1.1",
        "CONNECT a:0 HTTP/1.1",
        "CONNECT a:+1 HTTP/1.1",
        "CONNECT a:65536 HTTP/1.1",
        "CONNECT fd00::2:443 HTTP/1.1",
        "CONNECT :443 HTTP/1.1",
        "CONNECT a b:443 HTTP/1.1",
        "CONNECT a:443",
        "CONNECT a:443 HTTP/2",
        "CONNECT u@a:443 HTTP/1.1",
        "CONNECT a%2e:443 HTTP/1.1",
        "CONNECT a:443 HTTP/1.1\nX: y",
        "CONNECT a:443 HTTP/1.1\r\nX: \0",
        "CONNECT a:443 HTTP/1.1\rX: y",
        "CONNECT é:443 HTTP/1.1",
    ] {
        let head = format!("{line}\r\n\r\n");
        assert!(matches!(parse_head(head.as_bytes()), Head::Invalid(_)), "{line:?}: {:?}", parse_head(head.as_bytes()));
    }
}

#[test]
fn absolute_targets() {
    let read = |text: &str| absolute_destination(&text.parse().unwrap()).map(|d| (d.host, d.port)).map_err(|denial| denial.code);
    assert_eq!(read("http://A.example/x"), Ok(("a.example".into(), 80)));
    assert_eq!(read("http://a.example:8080/"), Ok(("a.example".into(), 8080)));
    assert_eq!(read("http://[fd00::2]:81/"), Ok(("fd00::2".into(), 81)));
    assert_eq!(read("https://a.example/"), Err("unsupported_proxy_scheme"));
    assert_eq!(read("ftp://a.example/"), Err("unsupported_proxy_scheme"));
    assert_eq!(read("http://u:p@a.example/"), Err("invalid_request_target"));
    assert_eq!(read("/x"), Err("invalid_request_target"));
}

proptest! {
    #[test]
    fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse_head(&bytes);
        let _ = parse_head(&[b"CONNECT ", &bytes[..], b"\r\n\r\n"].concat());
    }
}
