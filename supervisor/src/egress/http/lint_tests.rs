use proptest::prelude::*;

use super::{Lint, Violation};

fn feed(text: &str) -> Result<bool, Violation> {
    let mut lint = Lint::default();
    lint.feed(text.as_bytes())?;
    Ok(lint.is_between_requests())
}

#[test]
fn what_clients_send_passes() {
    for text in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost:a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n0\r\nX-Checksum: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \u{fc}\tx\r\nConnection: keep-alive, Upgrade\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    ] {
        assert_eq!(feed(text), Ok(true), "{text:?}");
    }
}

#[test]
fn what_could_be_read_in_two_ways_is_refused() {
    let with = |fields: &str, body: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}");
    for (text, violation) in [
        (with("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n", ""), Violation::Both),
        (with("Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", ""), Violation::Both),
        (with("Transfer-Encoding: gzip, chunked\r\n", ""), Violation::Encoding),
        (with("Transfer-Encoding: chunked, identity\r\n", ""), Violation::Encoding),
        (with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", ""), Violation::Encoding),
        (with("Transfer-Encoding: \u{b}chunked\r\n", ""), Violation::Line),
        (with("Transfer-Encoding : chunked\r\n", ""), Violation::FieldName),
        (with("Content-Length: 3\r\nContent-Length: 3\r\n", ""), Violation::Length),
        (with("Content-Length: +3\r\n", ""), Violation::Length),
        (with("Content-Length: 3, 3\r\n", ""), Violation::Length),
        (with("Content-Length: 0x3\r\n", ""), Violation::Length),
        (with("Content-Length: \r\n", ""), Violation::Length),
        (with("Content-Length: 99999999999999999999\r\n", ""), Violation::Length),
        (with("X: a\r\n b\r\n", ""), Violation::Folded),
        (with("X: a\r\n\tb\r\n", ""), Violation::Folded),
        (with("X: a\nY: b\r\n", ""), Violation::Line),
        (with("X: a\rY: b\r\n", ""), Violation::Line),
        (with("X: a\0b\r\n", ""), Violation::Line),
        (with("X Y: a\r\n", ""), Violation::FieldName),
        (with(": a\r\n", ""), Violation::FieldName),
        (with("no colon\r\n", ""), Violation::FieldName),
        (with("Host: b\r\n", ""), Violation::Host),
        (with("Connection: close, Content-Length\r\n", ""), Violation::Connection),
        (with("Connection: host\r\n", ""), Violation::Connection),
        (with("Transfer-Encoding: chunked\r\n", "3;ext=1\r\nabc\r\n"), Violation::Chunk),
        (with("Transfer-Encoding: chunked\r\n", "3 \r\nabc\r\n"), Violation::Chunk),
        (with("Transfer-Encoding: chunked\r\n", "0x3\r\nabc\r\n"), Violation::Chunk),
        (with("Transfer-Encoding: chunked\r\n", "-1\r\n"), Violation::Chunk),
        (with("Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n"), Violation::Chunk),
        (with("Transfer-Encoding: chunked\r\n", "3\nabc\r\n"), Violation::Line),
        (with("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n"), Violation::Chunk),
        (with("Transfer-Encoding: chunked\r\n", "0\r\nContent-Length: 5\r\n\r\n"), Violation::Encoding),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".into(), Violation::Encoding),
        ("GET / HTTP/1.1\r\n\r\n".into(), Violation::Host),
        ("GET /\r\n".into(), Violation::RequestLine),
        ("GET  / HTTP/1.1\r\n".into(), Violation::RequestLine),
        ("GET / HTTP/1.1 \r\n".into(), Violation::RequestLine),
        ("GET /\u{e9} HTTP/1.1\r\n".into(), Violation::RequestLine),
        ("GET /#x HTTP/1.1\r\n".into(), Violation::RequestLine),
        ("GET / HTTP/1.2\r\n".into(), Violation::RequestLine),
        ("G\tET / HTTP/1.1\r\n".into(), Violation::RequestLine),
        ("\r\n\r\n".into(), Violation::RequestLine),
        ("PRI * HTTP/2.0\r\n".into(), Violation::Http2),
        (format!("GET /{} HTTP/1.1\r\n", "x".repeat(70_000)), Violation::TooLarge),
        (with(&"X: y\r\n".repeat(200), ""), Violation::TooLarge),
    ] {
        assert_eq!(feed(&text), Err(violation), "{text:?}");
        // However it arrives.
        let mut lint = Lint::default();
        let result = text.as_bytes().iter().try_for_each(|byte| lint.feed(&[*byte]));
        assert_eq!(result, Err(violation), "{text:?} byte by byte");
        assert!(lint.feed(b"GET").is_err(), "a connection that failed stays failed");
    }
}

proptest! {
    #[test]
    fn no_input_panics_and_pieces_do_not_matter(text in "[ -~\r\n\t]{0,300}", at in any::<prop::sample::Index>()) {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{text}");
        let mut whole = Lint::default();
        let one = whole.feed(text.as_bytes());
        let mut pieces = Lint::default();
        let (a, b) = text.as_bytes().split_at(at.index(text.len()));
        let two = pieces.feed(a).and_then(|()| pieces.feed(b));
        prop_assert_eq!(one, two);
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = Lint::default().feed(&bytes);
    }
}

#[test]
fn how_the_bytes_arrive_does_not_change_the_answer() {
    for bytes in [&b"PRI * HTTP/2==\0\0=\r\n"[..], b"PRI * HTTP/2.0\n", b"\r\nPRI * HTTP/2\r\n", b"GET / HTTP/1.1\0\r\n"] {
        let whole = Lint::default().feed(bytes);
        let mut single = Lint::default();
        assert_eq!(bytes.iter().try_for_each(|byte| single.feed(std::slice::from_ref(byte))), whole, "{}", bytes.escape_ascii());
    }
}
