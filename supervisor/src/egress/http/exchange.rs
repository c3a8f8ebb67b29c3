//! One request: decided, cleaned, given its credentials, sent, answered.

use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context as TaskContext, Poll},
};

use bytes::Bytes;
use futures::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, uri::PathAndQuery};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use openshell_policy::Verdict;
use parking_lot::Mutex;
use tokio_util::sync::WaitForCancellationFutureOwned;

use super::{
    BodyError, ResponseBody,
    denial::{self, Context},
    target::{self, EncodedSlash},
    upstream::{self, Upstream},
};
use crate::{
    audit::ocsf::{Action, Grounds, Severity},
    egress::{
        Shared,
        active::{Active, Denial, process},
        connections::{Live, RequestKey},
        credentials::{Place, Transport},
        record::RequestLine,
    },
};

/// What is done with requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::egress) enum Mode {
    /// Each one is decided.
    Decide,
    /// The endpoint is granted as a connection; requests are opened only to put credentials in.
    Credentials,
}

/// The requests of one agent connection to one server.
pub(in crate::egress) struct Exchange {
    shared: Arc<Shared>,
    live: Arc<Live>,
    mode: Mode,
    transport: Transport,
    upstream: Mutex<State>,
}

enum State {
    Idle(Option<Upstream>),
    /// It could not be reached; the first request is told why.
    Failed(Denial),
}

/// What is decided and sent of a request's target.
struct Target {
    key: RequestKey,
    uri: Uri,
    /// The query as it came mentions a placeholder.
    mentions_placeholder: bool,
}

impl Exchange {
    pub(in crate::egress) fn new(
        shared: Arc<Shared>,
        live: Arc<Live>,
        mode: Mode,
        transport: Transport,
        upstream: Result<Upstream, Denial>,
    ) -> Arc<Self> {
        let upstream = Mutex::new(match upstream {
            Ok(upstream) => State::Idle(Some(upstream)),
            Err(denial) => State::Failed(denial),
        });
        Arc::new(Self { shared, live, mode, transport, upstream })
    }

    pub(in crate::egress) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    fn scheme(&self) -> &'static str {
        match self.transport {
            Transport::Tls => "https",
            Transport::Plain => "http",
        }
    }

    /// Records that a revision took the connection away.
    pub(in crate::egress) fn record_cut(&self, denial: &Denial) {
        self.shared.recorder.cut(&self.live, denial, self.shared.revision());
    }

    /// Records a request that was refused before it was one.
    pub(in crate::egress) fn record_refused(&self, line: RequestLine<'_>, denial: &Denial) {
        self.shared.recorder.request_refused(&self.live, line, denial, self.shared.revision());
    }

    /// What a refusal on this connection says about it.
    pub(in crate::egress) fn context<'a>(&'a self, method: &'a str, path: &'a str) -> Context<'a> {
        Context {
            layer: "l7",
            protocol: "rest",
            method,
            path,
            host: &self.live.host,
            port: self.live.port,
            binary: &self.live.identity.exe,
        }
    }

    /// Answers one request of the agent.
    pub(in crate::egress) async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response<ResponseBody> {
        let method = request.method().clone();
        let mut path = request.uri().path().to_owned();
        match self.answer(request, &mut path).await {
            Ok(response) => response,
            Err(denial) => {
                self.live.set_request(None);
                let line = RequestLine { method: method.as_str(), path: &path, scheme: self.scheme() };
                self.shared.recorder.request_refused(&self.live, line, &denial, self.shared.revision());
                denial::response(&denial, &self.context(method.as_str(), &path)).map(|body| body.map_err(Into::into).boxed_unsync())
            }
        }
    }

    /// `path` becomes the canonical path as soon as it is known.
    async fn answer(&self, request: Request<Incoming>, path: &mut String) -> Result<Response<ResponseBody>, Denial> {
        let active = self.shared.active()?;
        if active.generation != self.live.generation.load(Ordering::Relaxed) {
            self.live.judge(&active);
        }
        if self.live.is_cut() {
            return Err(self.live.cut().await);
        }
        let (mut parts, body) = request.into_parts();
        check_authority(&parts.uri, &parts.headers, &self.live)?;
        let target = self.target(&active, &parts.method, &parts.uri)?;
        target.key.path.clone_into(path);
        self.live.set_request(Some(target.key.clone()));
        // A revision that came between is seen here, or it sees the request.
        let active = self.shared.active()?;
        let (action, policy, rule, reason) = self.decide(&active, &target.key)?;

        self.check_upgrade(&parts.headers)?;
        clean(&mut parts.headers);
        if !parts.headers.contains_key(header::HOST) {
            // HTTP/1.0 has none; every server of today wants one.
            let host = HeaderValue::from_str(&crate::audit::ocsf::join(&self.live.host, self.live.port));
            parts.headers.extend(host.ok().map(|host| (header::HOST, host)));
        }
        if !body.is_end_stream() && body.size_hint().exact().is_none() {
            // hyper frames bodies by itself, except for methods that rarely have one.
            parts.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let place = Place { host: &self.live.host, port: self.live.port, path: &target.key.path, transport: self.transport };
        active
            .vault
            .inject(&mut parts.headers, &place)
            .map_err(|error| Denial::forbidden(error.code(), error.to_string()).with_policy(policy.clone()))?;
        self.check_target_for_placeholders(&active, &target)?;

        let line = RequestLine { method: &target.key.method, path: &target.key.path, scheme: self.scheme() };
        let grounds = Grounds { policy: policy.as_deref(), rule: rule.as_deref(), code: None, reason: &reason, revision: active.revision };
        self.shared.recorder.request(&self.live, line, action, grounds);

        parts.uri = target.uri;
        parts.version = Version::HTTP_11;
        let request = Request::from_parts(parts, body);
        let mut upstream = self.upstream().await?;
        let response = match upstream.sender.try_send_request(request).await {
            Ok(response) => response,
            Err(mut error) => {
                // The server closed the kept connection before it saw anything of this request.
                let Some(request) = error.take_message() else { return Err(failed(&error.into_error())) };
                upstream = upstream::dial_again(&self.shared, &self.live, self.transport).await?;
                upstream.sender.send_request(request).await.map_err(|error| failed(&error))?
            }
        };
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Denial::new(
                "upstream_unreachable",
                StatusCode::BAD_GATEWAY,
                "the server changed the protocol without being asked",
            ));
        }
        let (mut parts, body) = response.into_parts();
        clean(&mut parts.headers);
        parts.version = Version::HTTP_11;
        // The connection is kept for the next request; its sender is ready when this body has ended.
        *self.upstream.lock() = State::Idle(Some(upstream));
        let body = Tracked { body, cut: Box::pin(self.live.cancellation().clone().cancelled_owned()), live: self.live.clone() };
        Ok(Response::from_parts(parts, UnsyncBoxBody::new(body)))
    }

    fn target(&self, active: &Active, method: &Method, uri: &Uri) -> Result<Target, Denial> {
        let refuse = |error: target::TargetError| Denial::new("invalid_request_target", StatusCode::BAD_REQUEST, error.to_string());
        if method == Method::CONNECT {
            return Err(Denial::new("invalid_request_target", StatusCode::BAD_REQUEST, "CONNECT is for the proxy, this is a server"));
        }
        let slashes = if self.live.granted.plan.allow_encoded_slash { EncodedSlash::Keep } else { EncodedSlash::Refuse };
        let path = target::canonical_path(uri.path(), slashes).map_err(refuse)?;
        if path.text == "*" && method != Method::OPTIONS {
            return Err(refuse(target::TargetError::NotAbsolute));
        }
        let raw_query = uri.query();
        let query = raw_query.map(target::query_parameters).transpose().map_err(refuse)?.unwrap_or_default();
        let mentions_placeholder = active.vault.mentions(&path.text)
            || query.iter().any(|(key, value)| active.vault.mentions(key) || active.vault.mentions(value));
        let sent = match raw_query {
            Some(query) => format!("{}?{query}", path.encoded),
            None => path.encoded,
        };
        let sent = PathAndQuery::try_from(sent).map_err(|_| refuse(target::TargetError::Character))?;
        Ok(Target {
            key: RequestKey { method: method.as_str().to_owned(), path: path.text, query },
            uri: sent.into(),
            mentions_placeholder,
        })
    }

    #[allow(clippy::type_complexity, reason = "one use, each part named where it is taken apart")]
    fn decide(&self, active: &Active, key: &RequestKey) -> Result<(Action, Option<String>, Option<String>, String), Denial> {
        match self.mode {
            Mode::Credentials => Ok((Action::Allowed, self.live.granted.policy.clone(), None, String::new())),
            Mode::Decide => {
                let decision = active.engine.request(process(&self.live.identity), &self.live.host, self.live.port, key.facts());
                match decision.verdict {
                    Verdict::Allow => Ok((Action::Allowed, decision.policy, decision.rule, decision.reason)),
                    Verdict::Audit => Ok((Action::Audited, decision.policy, decision.rule, decision.reason)),
                    Verdict::Deny => {
                        Err(Denial { rule: decision.rule, ..Denial::forbidden("policy_denied", decision.reason) }
                            .with_policy(decision.policy))
                    }
                }
            }
        }
    }

    /// A placeholder in a URL is never replaced. Where the credential is bound the request
    /// would go without it, so it is refused; elsewhere it is text, and worth knowing.
    fn check_target_for_placeholders(&self, active: &Active, target: &Target) -> Result<(), Denial> {
        if !target.mentions_placeholder {
            return Ok(());
        }
        if active.vault.bound(&self.live.host, self.live.port) {
            return Err(Denial::forbidden(
                "invalid_credential_placeholder",
                "the URL holds a placeholder; placeholders are replaced in headers only",
            ));
        }
        let reason = "the URL of a request holds a placeholder, which stands for nothing there";
        self.shared.recorder.finding(
            &self.live,
            "openshell.provider_credential.placeholder_in_url",
            Severity::Low,
            reason,
            active.revision,
        );
        Ok(())
    }

    /// Another protocol on this connection could not be looked into.
    fn check_upgrade(&self, headers: &HeaderMap) -> Result<(), Denial> {
        let mut protocols = headers.get_all(header::UPGRADE).iter().map(|value| value.as_bytes().to_ascii_lowercase());
        if !protocols.any(|protocol| protocol.windows(9).any(|word| word == b"websocket")) {
            return Ok(());
        }
        let reason = match self.mode {
            Mode::Decide => "WebSocket is not inspected yet: it needs an endpoint without `protocol`",
            Mode::Credentials => "WebSocket is not carried yet to an endpoint that credentials are bound to",
        };
        Err(Denial::forbidden("unsupported_l7_protocol", reason))
    }

    /// The kept connection, or a new one.
    async fn upstream(&self) -> Result<Upstream, Denial> {
        let state = std::mem::replace(&mut *self.upstream.lock(), State::Idle(None));
        match state {
            State::Failed(denial) => return Err(denial),
            State::Idle(Some(mut upstream)) => {
                if upstream.sender.ready().await.is_ok() {
                    return Ok(upstream);
                }
            }
            State::Idle(None) => {}
        }
        upstream::dial_again(&self.shared, &self.live, self.transport).await
    }
}

fn failed(error: &hyper::Error) -> Denial {
    let mut reason = format!("the server did not answer the request: {error}");
    if let Some(source) = std::error::Error::source(error) {
        reason.push_str(": ");
        reason.push_str(&source.to_string());
    }
    Denial::unreachable(crate::flow::Errno::Unreachable, reason)
}

/// The request must be for the host that the connection was decided for.
fn check_authority(uri: &Uri, headers: &HeaderMap, live: &Live) -> Result<(), Denial> {
    let host = headers.get(header::HOST).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let absolute = uri.authority().map(http::uri::Authority::as_str);
    for authority in host.into_iter().chain(absolute) {
        if !is_authority_of(authority, &live.host, live.port) {
            let place = crate::audit::ocsf::join(&live.host, live.port);
            let reason = format!("the request is for {}, the connection is to {place}", authority.escape_debug());
            return Err(Denial::forbidden("request_authority_mismatch", reason));
        }
    }
    Ok(())
}

/// Whether `host[:port]` names this place. Without a port it does: the connection has one.
fn is_authority_of(authority: &str, host: &str, port: u16) -> bool {
    let (name, given) = match authority.rsplit_once(':') {
        Some((name, digits)) if !digits.contains(']') && (!name.contains(':') || name.ends_with(']')) => (name, Some(digits)),
        _ => (authority, None),
    };
    let port_matches = given.is_none_or(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()) && digits.parse() == Ok(port));
    port_matches && openshell_policy::host::canonical_host(name) == host
}

/// Takes away what is meant for one hop only (RFC 9110, 7.6.1) and what the next hop's framing says
/// anew. A client that asks for another protocol besides (h2c) goes on in this one.
fn clean(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| HeaderName::try_from(name.trim()).ok())
        .collect();
    for name in named {
        headers.remove(name);
    }
    for name in [
        header::CONNECTION,
        header::UPGRADE,
        header::PROXY_AUTHORIZATION,
        header::TE,
        header::TRANSFER_ENCODING,
        header::EXPECT,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
        HeaderName::from_static("http2-settings"),
    ] {
        headers.remove(name);
    }
}

/// A response under way: cut with its connection, and known to be over when it is.
struct Tracked {
    body: Incoming,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    live: Arc<Live>,
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.live.set_request(None);
    }
}

impl Body for Tracked {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if self.cut.poll_unpin(cx).is_ready() {
            return Poll::Ready(Some(Err("the policy changed and forbids this connection".into())));
        }
        Pin::new(&mut self.body).poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
