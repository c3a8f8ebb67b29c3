use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue};
use openshell_proto::supervisor::{Credential, CredentialBinding};
use proptest::prelude::*;

use super::{Place, Transport, Vault};

const PLACEHOLDER: &str = "openshell:resolve:env:v1_TOKEN";
const VALUE: &str = "s3cr3t-value";

fn credential() -> Credential {
    Credential {
        env: "TOKEN".into(),
        placeholder: PLACEHOLDER.into(),
        value: VALUE.into(),
        bindings: vec![CredentialBinding { host: "API.example.com".into(), port: 443, path: "/v1/**".into() }],
        provider: "forge".into(),
        expires: None,
    }
}

fn vault() -> Vault {
    Vault::new(vec![credential()]).unwrap()
}

fn place<'a>(host: &'a str, port: u16, path: &'a str) -> Place<'a> {
    Place { host, port, path, transport: Transport::Tls }
}

const BOUND: Place<'static> = Place { host: "api.example.com", port: 443, path: "/v1/x", transport: Transport::Tls };

fn send(vault: &Vault, value: &str, place: &Place<'_>) -> Result<String, &'static str> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", HeaderValue::from_str(value).unwrap());
    vault.inject(&mut headers, place).map_err(|error| error.code())?;
    Ok(headers["authorization"].to_str().unwrap().to_owned())
}

#[test]
fn every_form_is_replaced_at_the_bound_endpoint() {
    let vault = vault();
    assert_eq!(send(&vault, PLACEHOLDER, &BOUND).unwrap(), VALUE);
    assert_eq!(send(&vault, &format!("Bearer {PLACEHOLDER}"), &BOUND).unwrap(), format!("Bearer {VALUE}"));
    assert_eq!(send(&vault, &format!("token {PLACEHOLDER}"), &BOUND).unwrap(), format!("token {VALUE}"));
    let basic = |text: String| format!("Basic {}", STANDARD.encode(text));
    assert_eq!(send(&vault, &basic(format!("user:{PLACEHOLDER}")), &BOUND).unwrap(), basic(format!("user:{VALUE}")));
    assert_eq!(send(&vault, &basic(format!("{PLACEHOLDER}:x")), &BOUND).unwrap(), basic(format!("{VALUE}:x")));
    assert_eq!(send(&vault, "Bearer of news", &BOUND).unwrap(), "Bearer of news");
    assert_eq!(send(&vault, &basic("user:pass".into()), &BOUND).unwrap(), basic("user:pass".into()));
}

#[test]
fn anywhere_else_it_is_refused() {
    let vault = vault();
    let mismatch = Err("credential_endpoint_mismatch");
    let bearer = format!("Bearer {PLACEHOLDER}");
    assert_eq!(send(&vault, &bearer, &place("evil.example.com", 443, "/v1/x")), mismatch);
    assert_eq!(send(&vault, &bearer, &place("api.example.com", 8443, "/v1/x")), mismatch);
    assert_eq!(send(&vault, &bearer, &place("api.example.com", 443, "/v2/x")), mismatch);
    assert_eq!(send(&vault, &bearer, &place("api.example.com", 443, "/v1x")), mismatch);
    assert_eq!(send(&vault, &bearer, &Place { transport: Transport::Plain, ..BOUND }), mismatch);
    let basic = format!("Basic {}", STANDARD.encode(format!("user:{PLACEHOLDER}")));
    assert_eq!(send(&vault, &basic, &place("evil.example.com", 443, "/v1/x")), mismatch);
    for value in
        [format!("a {PLACEHOLDER} b"), format!("session={PLACEHOLDER}"), format!("Bearer {PLACEHOLDER}x"), format!("Bearer  {PLACEHOLDER}")]
    {
        assert_eq!(send(&vault, &value, &BOUND), Err("invalid_credential_placeholder"), "{value}");
    }
    assert_eq!(send(&vault, "Bearer openshell:resolve:env:v0_TOKEN", &BOUND), Err("credential_unavailable"));
}

#[test]
fn an_expired_credential_is_not_used() {
    let expires = Some(prost_types::Timestamp { seconds: 1, nanos: 0 });
    let vault = Vault::new(vec![Credential { expires, ..credential() }]).unwrap();
    assert_eq!(send(&vault, PLACEHOLDER, &BOUND), Err("credential_unavailable"));
}

#[test]
fn what_cannot_be_used_refuses_the_revision() {
    let binding = |host: &str, port, path: &str| vec![CredentialBinding { host: host.into(), port, path: path.into() }];
    for broken in [
        Credential { value: "a\r\nX: y".into(), ..credential() },
        Credential { value: "a\0".into(), ..credential() },
        Credential { value: String::new(), ..credential() },
        Credential { placeholder: "x".into(), ..credential() },
        Credential { bindings: binding("api.example.com", 0, ""), ..credential() },
        Credential { bindings: binding("**", 443, ""), ..credential() },
        Credential { bindings: binding("*.*", 443, ""), ..credential() },
        Credential { bindings: binding("api.example.com", 443, "v1"), ..credential() },
    ] {
        let error = Vault::new(vec![broken]).err().expect("refused").to_string();
        assert!(error.contains("TOKEN") && !error.contains(VALUE), "{error}");
    }
    assert!(Vault::new(vec![credential(), credential()]).is_err(), "one placeholder twice");
}

#[test]
fn what_is_bound_is_known_before_a_request() {
    let vault = vault();
    assert!(vault.bound("api.example.com", 443));
    assert!(!vault.bound("api.example.com", 80));
    assert!(!vault.bound("example.com", 443));
}

proptest! {
    /// Whatever surrounds a placeholder, the value never goes to an endpoint it is not bound to.
    #[test]
    fn a_value_never_reaches_an_unbound_endpoint(
        before in "[ -~]{0,12}", after in "[ -~]{0,12}", name in "[a-z]{1,8}", host in "[a-z]{1,8}\\.example\\.(com|org)", port in 1u16..,
        path in "/[a-z0-9/]{0,8}", basic in any::<bool>(),
    ) {
        let place = place(&host, port, &path);
        prop_assume!(!(host == "api.example.com" && port == 443 && path.starts_with("/v1")));
        let text = format!("{before}{PLACEHOLDER}{after}");
        let value = if basic { format!("Basic {}", STANDARD.encode(&text)) } else { text };
        let mut headers = HeaderMap::new();
        headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_str(&value).unwrap());
        let result = vault().inject(&mut headers, &place);
        prop_assert!(result.is_err());
        for value in headers.values() {
            prop_assert!(!value.to_str().unwrap().contains(VALUE));
        }
    }

    /// At the bound endpoint a request is refused or holds no placeholder any more.
    #[test]
    fn no_placeholder_leaves_unreplaced(before in "[ -~]{0,12}", after in "[ -~]{0,12}") {
        if let Ok(sent) = send(&vault(), &format!("{before}{PLACEHOLDER}{after}"), &BOUND) {
            prop_assert!(!sent.contains("openshell:resolve"));
        }
    }
}
