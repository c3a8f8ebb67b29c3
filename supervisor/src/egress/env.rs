//! What a process in the sandbox is told by its environment.
//!
//! Neither the proxy nor the certificates need these: connections are taken transparently, and a
//! program that ignores them is held by the same rules. They are for programs that bring their own
//! trust store or ask the proxy themselves; the names are those of the reference system and of the
//! common tools beside it.

use std::path::Path;

use super::proxy::PROXY_ADDRESS;

/// Hosts that a client must reach without the proxy: loopback is private to the sandbox.
const NO_PROXY: &str = "127.0.0.1,localhost,::1";

/// Variables for every process of the agent.
///
/// `ca` holds the sandbox's CA alone, `bundle` the system's roots and the sandbox's CA.
pub fn variables(ca: &Path, bundle: &Path) -> Vec<(String, String)> {
    let proxy = format!("http://{PROXY_ADDRESS}");
    let ca = ca.to_string_lossy();
    let bundle = bundle.to_string_lossy();
    let mut variables = Vec::new();
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "grpc_proxy"] {
        variables.push((name, proxy.as_str()));
    }
    for name in ["NO_PROXY", "no_proxy"] {
        variables.push((name, NO_PROXY));
    }
    // Node reads proxy variables only when told to.
    variables.push(("NODE_USE_ENV_PROXY", "1"));
    // These add to the program's own roots.
    for name in ["NODE_EXTRA_CA_CERTS", "DENO_CERT"] {
        variables.push((name, &ca));
    }
    // These replace them.
    for name in
        ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "PIP_CERT", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE"]
    {
        variables.push((name, &bundle));
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    #[test]
    fn both_spellings_and_every_trust_store_are_named() {
        let variables = super::variables(Path::new("/t/ca.pem"), Path::new("/t/ca-bundle.pem"));
        let get = |name: &str| variables.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
        assert_eq!(get("HTTPS_PROXY"), Some("http://198.18.0.1:3128"));
        assert_eq!(get("https_proxy"), get("HTTPS_PROXY"));
        assert_eq!(get("NODE_EXTRA_CA_CERTS"), Some("/t/ca.pem"));
        for name in ["SSL_CERT_FILE", "PIP_CERT", "CARGO_HTTP_CAINFO", "AWS_CA_BUNDLE", "GIT_SSL_CAINFO"] {
            assert_eq!(get(name), Some("/t/ca-bundle.pem"), "{name}");
        }
    }
}
