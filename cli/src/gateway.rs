//! A connection to a gateway: address, trust, channel, object client.
//!
//! Trust is decided from the address and the client bundle only: `https` with a bundle is mutual
//! TLS, with a CA alone server authentication, with neither the system's roots. `http` is taken
//! on loopback, where nobody listens in; elsewhere only with `--gateway-insecure`.

pub(crate) mod cluster;
mod verifier;

use std::sync::Arc;

use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::config::{Bundle, Cluster, Registered};
use crate::error::CliError;
use crate::limits;

/// An address and how to trust it.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    /// Registered name, if it has one.
    pub(crate) name: Option<String>,
    /// `https://host:port`.
    pub(crate) endpoint: String,
    bundle: Bundle,
    verify: Verify,
    cluster: Option<Box<Cluster>>,
}

/// Whether the server's certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Yes.
    Certificate,
    /// No, as asked for by `--gateway-insecure`.
    Nothing,
}

impl Gateway {
    /// A registered gateway.
    pub(crate) fn registered(registered: &Registered, verify: Verify) -> Result<Self, CliError> {
        match registered.auth() {
            "mtls" | "plaintext" => {}
            other => {
                return Err(CliError::new("not-supported-yet", format!("Gateway {} cannot be used from here.", registered.name))
                    .because(format_args!("its authentication `{other}` is not supported yet"))
                    .next("Use a gateway with mutual TLS: `openshell gateway list`."));
            }
        }
        let gateway = Self::new(Some(registered.name.clone()), &registered.metadata.gateway_endpoint, registered.bundle()?, verify)?;
        Ok(Self { cluster: registered.metadata.kubernetes.clone().map(Box::new), ..gateway })
    }

    /// Any address.
    pub(crate) fn new(name: Option<String>, endpoint: &str, bundle: Bundle, verify: Verify) -> Result<Self, CliError> {
        let endpoint = if endpoint.contains("://") { endpoint.to_owned() } else { format!("https://{endpoint}") };
        let wrong = |why: &str| {
            CliError::usage(format!("`{endpoint}` is no address of a gateway."))
                .because(why)
                .next("An address looks like https://gateway.example.com:17670.")
        };
        let uri: http::Uri = endpoint.parse().map_err(|e: http::uri::InvalidUri| wrong(&e.to_string()))?;
        let host = uri.host().filter(|h| !h.is_empty()).ok_or_else(|| wrong("it has no host"))?;
        match uri.scheme_str() {
            Some("https") => {}
            Some("http") if is_loopback(host) || verify == Verify::Nothing => {}
            Some("http") => {
                return Err(CliError::new("plaintext", format!("{endpoint} is not protected."))
                    .because("over http anyone on the way can read credentials and change commands")
                    .next("Use https. If you must: --gateway-insecure."));
            }
            _ => return Err(wrong("only https (and http on loopback) is spoken")),
        }
        Ok(Self { name, endpoint, bundle, verify, cluster: None })
    }

    /// How messages call it.
    pub(crate) fn display_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.endpoint)
    }

    /// How clients authenticate, in one word.
    pub(crate) fn auth(&self) -> &'static str {
        if self.endpoint.starts_with("http://") {
            "plaintext"
        } else if self.bundle.identity.is_some() {
            "mtls"
        } else {
            "none"
        }
    }

    /// Connects, so that "nobody listens there" is known now and said clearly.
    pub(crate) async fn channel(&self) -> Result<Channel, ConnectError> {
        let endpoint = self.transport().map_err(ConnectError::Settings)?;
        let connected = match &self.cluster {
            Some(cluster) => cluster::connect(cluster, endpoint).await,
            None => endpoint.connect().await,
        };
        connected.map_err(|error| ConnectError::from_transport(self, &error))
    }

    /// What to do when it has another authority than it was registered with.
    fn add_again(&self) -> String {
        let name = self.display_name();
        match self.cluster.as_deref() {
            Some(Cluster { context, namespace, gateway }) => format!(
                "If its authority was made anew (`kubectl describe openshellgateway {gateway} --namespace {namespace}` tells of it as AuthorityChanged), add it again: `openshell gateway add --kubernetes={gateway} --namespace {namespace} --context {context} --name {name}`."
            ),
            None => format!(
                "If its authority was made anew, add it again with the new ca.crt and certificate: `openshell gateway add {} --name {name} --ca ca.crt --cert tls.crt --key tls.key`.",
                self.endpoint
            ),
        }
    }

    fn transport(&self) -> Result<Endpoint, CliError> {
        let broken = |e: tonic::transport::Error| {
            CliError::new("tls-setup", format!("No TLS connection to {} can be set up.", self.endpoint))
                .because_of(&e)
                .next("Check ca.crt, tls.crt and tls.key in the gateway's directory (`openshell gateway info`).")
        };
        let endpoint = Endpoint::from_shared(self.endpoint.clone())
            .map_err(broken)?
            .connect_timeout(limits::CONNECT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(std::time::Duration::from_secs(15))
            .keep_alive_timeout(std::time::Duration::from_secs(20));
        if self.endpoint.starts_with("http://") {
            return Ok(endpoint);
        }
        let mut tls = ClientTlsConfig::new();
        if let Some(host) = endpoint.uri().host() {
            tls = tls.domain_name(host.trim_start_matches('[').trim_end_matches(']'));
        }
        if let Some((certificate, key)) = &self.bundle.identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        if self.verify == Verify::Nothing {
            return endpoint.tls_config_with_verifier(tls, Arc::new(verifier::Unverified::new())).map_err(broken);
        }
        let roots = match &self.bundle.ca {
            Some(ca) => vec![Certificate::from_pem(ca)],
            None => system_roots()?,
        };
        endpoint.tls_config(tls.ca_certificates(roots)).map_err(broken)
    }

    /// A client of the objects: those of the cluster that it is in, or those that it serves under `/apis`.
    pub(crate) async fn objects(&self, namespace: &str) -> Result<kube::Client, CliError> {
        match &self.cluster {
            Some(cluster) => cluster::client(Some(&cluster.context)).await.map(|(client, ..)| client),
            None => self.served_objects(namespace),
        }
    }

    fn served_objects(&self, namespace: &str) -> Result<kube::Client, CliError> {
        use base64::Engine as _;
        let broken =
            |e: &dyn std::fmt::Display| CliError::new("tls-setup", format!("No connection to {} can be set up.", self.endpoint)).because(e);
        let uri: http::Uri = self.endpoint.parse().map_err(|e| broken(&e))?;
        let mut config = kube::Config::new(uri);
        namespace.clone_into(&mut config.default_namespace);
        config.connect_timeout = Some(limits::CONNECT);
        config.read_timeout = Some(limits::CALL);
        config.accept_invalid_certs = self.verify == Verify::Nothing;
        if let Some(ca) = &self.bundle.ca {
            config.root_cert = Some(der(ca).map_err(|e| broken(&e))?);
        }
        if let Some((certificate, key)) = &self.bundle.identity {
            let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
            config.auth_info.client_certificate_data = Some(encode(certificate));
            config.auth_info.client_key_data = Some(encode(key).into());
        }
        kube::Client::try_from(config).map_err(|e| broken(&e))
    }
}

/// Why there is no connection.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Nobody listens there: a local gateway can be started.
    NobodyThere(CliError),
    /// Someone is there and it did not work out.
    Refused(CliError),
    /// Our own settings are wrong.
    Settings(CliError),
}

impl ConnectError {
    fn from_transport(gateway: &Gateway, error: &tonic::transport::Error) -> Self {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
        let (mut nobody, mut stranger) = (false, false);
        while let Some(error) = source {
            if let Some(io) = error.downcast_ref::<std::io::Error>() {
                nobody |= io.kind() == std::io::ErrorKind::ConnectionRefused;
                // What such an error wraps is not among its sources.
                stranger |= io.get_ref().and_then(|inner| inner.downcast_ref()).is_some_and(of_another_authority);
            }
            stranger |= error.downcast_ref().is_some_and(of_another_authority);
            source = error.source();
        }
        // That of this machine is not added: it is started.
        if stranger && gateway.name.as_deref() != Some(crate::config::LOCAL) {
            let what = format!("The certificate of gateway {} is not of the authority that is known for it.", gateway.display_name());
            return Self::Refused(CliError::new("gateway-untrusted", what).because_of(error).next(gateway.add_again()));
        }
        let what = format!("Gateway {} does not answer at {}.", gateway.display_name(), gateway.endpoint);
        let error = CliError::new("gateway-unreachable", what).because_of(error);
        if nobody {
            Self::NobodyThere(error.next("Is it running? A local one is started with `openshell gateway start`."))
        } else {
            Self::Refused(error.next("`openshell gateway list` shows the registered gateways, `openshell doctor` checks this one."))
        }
    }
}

/// Whether a certificate was refused for who vouches for it. An authority that was made anew has the name of the one
/// before, so that only the signature tells them apart.
fn of_another_authority(error: &rustls::Error) -> bool {
    use rustls::{CertificateError as Bad, Error};
    matches!(error, Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature))
}

impl From<ConnectError> for CliError {
    fn from(error: ConnectError) -> Self {
        match error {
            ConnectError::NobodyThere(error) | ConnectError::Refused(error) | ConnectError::Settings(error) => error,
        }
    }
}

/// Whether a host is this machine itself and nothing else.
pub(crate) fn is_loopback(host: &str) -> bool {
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn system_roots() -> Result<Vec<Certificate>, CliError> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        return Err(CliError::new("no-roots", "This machine has no certificate authorities to verify the gateway with.")
            .next("Install the package ca-certificates, or put the gateway's ca.crt into its directory."));
    }
    Ok(found.certs.iter().map(|der| Certificate::from_pem(pem(der))).collect())
}

fn pem(der: &[u8]) -> String {
    use base64::Engine as _;
    let body = base64::engine::general_purpose::STANDARD.encode(der);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn der(pem: &[u8]) -> Result<Vec<Vec<u8>>, rustls::pki_types::pem::Error> {
    use rustls::pki_types::pem::PemObject as _;
    rustls::pki_types::CertificateDer::pem_slice_iter(pem).map(|c| c.map(|c| c.to_vec())).collect()
}
