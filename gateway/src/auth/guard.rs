//! The check that stands before every handler.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{StatusCode, header};
use serde_json::json;

use super::principal::{Principal, Role, User};
use super::rules::Denied;
use super::{Hosts, Rules};
use crate::errors;
use crate::pki::SandboxTokens;
use crate::serve::{Connection, Transport};

/// What the check needs to know.
pub struct Guard {
    /// What methods ask for.
    pub rules: Rules,
    /// Who a token stands for.
    pub tokens: Arc<SandboxTokens>,
    /// Names of this gateway.
    pub hosts: Hosts,
}

/// How the refusal must look to the caller.
#[derive(Clone, Copy)]
enum Dialect {
    Grpc,
    Objects,
    Http,
}

impl Dialect {
    fn of(path: &str) -> Self {
        if path.starts_with("/openshell.") {
            Self::Grpc
        } else if path.starts_with("/api/") || path.starts_with("/apis/") || path == "/api" || path == "/apis" {
            Self::Objects
        } else {
            Self::Http
        }
    }
}

impl Guard {
    /// Who is calling. An `authorization` that is there must be good: a caller that presents a
    /// bad token is not taken for somebody else.
    fn principal(&self, request: &Request) -> Result<Option<Principal>, Denied> {
        if let Some(value) = request.headers().get(header::AUTHORIZATION) {
            let token = value
                .to_str()
                .ok()
                .and_then(|v| v.split_once(' '))
                .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
                .map(|(_, token)| token.trim())
                .ok_or_else(|| Denied::Unauthenticated("the metadata 'authorization' must be 'Bearer <sandbox token>'".to_owned()))?;
            let sandbox = self.tokens.check(token).map_err(|e| Denied::Unauthenticated(e.to_string()))?;
            return Ok(Some(Principal::Sandbox(sandbox)));
        }
        let Some(connection) = request.extensions().get::<Connection>() else { return Ok(None) };
        Ok(match (&connection.certificate, connection.transport) {
            (Some(subject), _) => Some(Principal::User(User::from_certificate(subject))),
            (None, Transport::Plaintext) => Some(Principal::User(User::local_development())),
            (None, Transport::Tls) => None,
        })
    }

    fn check(&self, dialect: Dialect, request: &Request) -> Result<Option<Principal>, Refusal> {
        if let Some(reason) = self.hosts.foreign(request.uri(), request.headers()) {
            return Err(Refusal::Foreign(reason));
        }
        let principal = self.principal(request)?;
        let path = request.uri().path();
        match dialect {
            Dialect::Grpc => match self.rules.get(path) {
                Some(rule) => rule.check(path, principal.as_ref())?,
                None if principal.is_some() => return Err(Refusal::NoSuchMethod),
                None => return Err(Denied::Unauthenticated("this gateway serves only known callers".to_owned()).into()),
            },
            Dialect::Objects | Dialect::Http => match &principal {
                Some(Principal::User(user)) if user.has_role(Role::PlatformAdmin) => {}
                Some(other) => {
                    let (who, role) = (other.describe(), Role::PlatformAdmin.as_str());
                    return Err(Denied::Forbidden(format!("the object API needs the role '{role}', which {who} does not have")).into());
                }
                None => return Err(Denied::Unauthenticated("the object API needs a client certificate of this gateway".to_owned()).into()),
            },
        }
        Ok(principal)
    }
}

enum Refusal {
    Foreign(String),
    NoSuchMethod,
    Denied(Denied),
}

impl From<Denied> for Refusal {
    fn from(denied: Denied) -> Self {
        Self::Denied(denied)
    }
}

impl Refusal {
    fn into_response(self, dialect: Dialect, path: &str) -> Response {
        match dialect {
            Dialect::Grpc => match self {
                Self::Foreign(reason) => errors::permission_denied("FOREIGN_ORIGIN", reason),
                Self::NoSuchMethod => errors::unimplemented(path.rsplit('/').next().unwrap_or(path)),
                Self::Denied(Denied::Unauthenticated(reason)) => errors::unauthenticated(reason),
                Self::Denied(Denied::Forbidden(reason)) => errors::permission_denied("PERMISSION_DENIED", reason),
            }
            .into_http(),
            Dialect::Objects | Dialect::Http => {
                let (code, reason, message) = match self {
                    Self::Foreign(message) | Self::Denied(Denied::Forbidden(message)) => (StatusCode::FORBIDDEN, "Forbidden", message),
                    Self::NoSuchMethod => (StatusCode::NOT_FOUND, "NotFound", "there is nothing here".to_owned()),
                    Self::Denied(Denied::Unauthenticated(message)) => (StatusCode::UNAUTHORIZED, "Unauthorized", message),
                };
                status_response(code, reason, &message)
            }
        }
    }
}

/// A `Status` object as an API server answers it.
pub(crate) fn status_response(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code.as_u16(),
    });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// Lets a request through, with its [`Principal`], or refuses it.
pub async fn guard(State(guard): State<Arc<Guard>>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let dialect = Dialect::of(&path);
    match guard.check(dialect, &request) {
        Ok(principal) => {
            match principal {
                Some(Principal::Sandbox(sandbox)) => {
                    // The session looks for the sandbox itself; handlers look for the principal.
                    request.extensions_mut().insert(sandbox.clone());
                    request.extensions_mut().insert(Principal::Sandbox(sandbox));
                }
                Some(user) => {
                    request.extensions_mut().insert(user);
                }
                None => {}
            }
            next.run(request).await
        }
        Err(refusal) => {
            let response = refusal.into_response(dialect, &path);
            tracing::debug!(path, status = %response.status(), "refused");
            response
        }
    }
}
