use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use jiff::Timestamp;

use super::*;
use crate::session::SandboxPrincipal;

fn open(directory: &Path, names: &[&str]) -> Pki {
    Pki::open(directory, &names.iter().map(|&n| n.to_owned()).collect::<Vec<_>>()).unwrap()
}

#[test]
fn a_second_start_finds_what_the_first_made() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), &[]), open(dir.path(), &[]));
    assert_eq!(a.ca_pem, b.ca_pem);
    assert_eq!(a.server.certificate, b.server.certificate);
    assert_eq!(a.client.certificate, b.client.certificate);
    for file in ["ca.crt", "ca.key", "server/tls.crt", "server/tls.key", "client/tls.key", "jwt/signing.pem", "jwt/public.pem", "jwt/kid"] {
        let mode = fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, 0o600, "{file}");
    }
    assert_eq!(fs::read_to_string(dir.path().join("jwt/kid")).unwrap().len(), 32);
}

#[test]
fn a_missing_name_gets_a_new_server_certificate_from_the_same_authority() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (open(dir.path(), &[]), open(dir.path(), &["agents.example", "192.0.2.7"]));
    assert_eq!(a.ca_pem, b.ca_pem);
    assert_eq!(a.client.certificate, b.client.certificate);
    assert_ne!(a.server.certificate, b.server.certificate);
    // Once issued, it is kept; a subset of its names needs no other.
    assert_eq!(open(dir.path(), &["agents.example"]).server.certificate, b.server.certificate);
}

#[test]
fn a_pair_that_was_half_replaced_is_issued_again() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), &[]);
    let other = tempfile::tempdir().unwrap();
    let stranger = open(other.path(), &[]);
    fs::write(dir.path().join("server/tls.key"), &stranger.server.key).unwrap();
    fs::write(dir.path().join("client/tls.key"), &stranger.client.key).unwrap();
    fs::write(dir.path().join("client/tls.crt"), &stranger.client.certificate).unwrap();
    let b = open(dir.path(), &[]);
    assert_eq!(a.ca_pem, b.ca_pem);
    assert!(b.server.wanting(&b.ca_pem, &Purpose::Server { names: vec!["localhost".to_owned()] }, Timestamp::now()).is_none());
    assert!(b.client.wanting(&b.ca_pem, &Purpose::User, Timestamp::now()).is_none(), "issued by this authority");
    assert_eq!(stranger.client.wanting(&b.ca_pem, &Purpose::User, Timestamp::now()), Some("another authority issued it"));
}

#[test]
fn an_authority_without_its_key_is_an_error_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let a = open(dir.path(), &[]);
    fs::remove_file(dir.path().join("ca.key")).unwrap();
    let error = Pki::open(dir.path(), &[]).err().unwrap().to_string();
    assert!(error.contains("ca.key is missing"), "{error}");
    assert_eq!(fs::read_to_string(dir.path().join("ca.crt")).unwrap(), a.ca_pem);
}

#[test]
fn a_key_that_has_no_certificate_yet_is_started_over() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), &[]);
    fs::remove_file(dir.path().join("ca.crt")).unwrap();
    let b = open(dir.path(), &[]);
    assert!(b.server.wanting(&b.ca_pem, &Purpose::Server { names: Vec::new() }, Timestamp::now()).is_none());
}

#[test]
fn tokens_are_for_one_sandbox_of_one_gateway() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tokens = SandboxTokens::open(a.path(), "openshell").unwrap();
    let token = tokens.mint("6f1e").unwrap();
    assert_eq!(tokens.check(&token).unwrap(), SandboxPrincipal { sandbox_id: "6f1e".to_owned(), exchange: None });
    // The same key for another gateway, and another key.
    assert!(SandboxTokens::open(a.path(), "other").unwrap().check(&token).is_err());
    assert!(matches!(SandboxTokens::open(b.path(), "openshell").unwrap().check(&token), Err(TokenError::UnknownKey)));
    // Changed in transit, and signed by nobody.
    let mut parts: Vec<&str> = token.split('.').collect();
    let forged = tokens.mint("aaaa").unwrap();
    parts[1] = forged.split('.').nth(1).unwrap();
    assert!(tokens.check(&parts.join(".")).is_err());
    for garbage in ["", "a.b.c", "eyJhbGciOiJub25lIn0.e30."] {
        assert!(tokens.check(garbage).is_err());
    }
}

#[test]
fn an_exchanged_token_names_its_exchange_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let made = SandboxTokens::open(dir.path(), "default").unwrap();
    let read = SandboxTokens::read(&dir.path().join("signing.pem"), "default").unwrap();
    let token = made.mint_for("6f1e", "x", std::time::Duration::from_hours(1)).unwrap();
    assert_eq!(read.check(&token).unwrap(), SandboxPrincipal { sandbox_id: "6f1e".to_owned(), exchange: Some("x".to_owned()) });
    let ended = jsonwebtoken::get_current_timestamp() - 3600;
    let claims = serde_json::json!({
        "iss": "openshell-gateway:default", "aud": "openshell-gateway:default", "sub": "spiffe://openshell/sandbox/6f1e",
        "sandbox_id": "6f1e", "exchange": "x", "iat": ended - 3600, "exp": ended,
    });
    let key = fs::read(dir.path().join("signing.pem")).unwrap();
    let mut header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::EdDSA);
    header.kid = Some(fs::read_to_string(dir.path().join("kid")).unwrap());
    let expired = jsonwebtoken::encode(&header, &claims, &jsonwebtoken::EncodingKey::from_ed_pem(&key).unwrap()).unwrap();
    assert!(matches!(read.check(&expired), Err(TokenError::Invalid(_))));
    assert!(SandboxTokens::read(&dir.path().join("absent.pem"), "default").is_err());
}

#[test]
fn registration_is_where_clients_look_and_keeps_the_users_choice() {
    let dir = tempfile::tempdir().unwrap();
    let pki = open(&dir.path().join("tls"), &[]);
    let config = dir.path().join("config");
    let mtls = Registration::Mtls { ca_pem: &pki.ca_pem, client: &pki.client };
    let endpoint = register(&config, "127.0.0.1:17670".parse().unwrap(), &mtls).unwrap();
    assert_eq!(endpoint, "https://127.0.0.1:17670");
    let metadata: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(config.join("gateways/openshell/metadata.json")).unwrap()).unwrap();
    assert_eq!(metadata["gateway_endpoint"], "https://127.0.0.1:17670");
    assert_eq!(metadata["auth_mode"], "mtls");
    assert_eq!(fs::read_to_string(config.join("active_gateway")).unwrap(), "openshell");
    fs::write(config.join("active_gateway"), "work").unwrap();
    register(&config, "0.0.0.0:1".parse().unwrap(), &mtls).unwrap();
    assert_eq!(fs::read_to_string(config.join("active_gateway")).unwrap(), "work");
}
