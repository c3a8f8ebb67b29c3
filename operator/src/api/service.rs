//! The `tower` service: one request in, one response out, never an error beside it.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use serde_json::{Value, json};

use super::error::ApiError;
use super::kinds::Kind;
use super::patch::{Force, Patch};
use super::render::View;
use super::request::{self, Query, Target};
use super::store::state::{Key, Scope, Stored};
use super::store::writer::Written;
use super::watch::Watch;
use super::write::{Deletion, Part, Verb, Write};
use super::{Inner, body, discovery, list};

/// Body of a response: whole, or a stream of watch events.
pub type ApiBody = UnsyncBoxBody<Bytes, Infallible>;

/// The API as a service. Serves any HTTP server and [`kube::Client`] alike.
#[derive(Clone)]
pub struct ApiService(pub(crate) Arc<Inner>);

impl<B> tower::Service<Request<B>> for ApiService
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<ApiBody>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = self.0.clone();
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let result = inner.serve(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default(), &parts.headers, body).await;
            Ok(result.unwrap_or_else(|error| refusal(&error)))
        })
    }
}

fn response(code: StatusCode, content_type: &'static str, body: ApiBody) -> Response<ApiBody> {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response.headers_mut().insert(http::header::CACHE_CONTROL, http::HeaderValue::from_static("no-cache, private"));
    response
}

fn whole(code: StatusCode, bytes: Bytes) -> Response<ApiBody> {
    response(code, "application/json", Full::new(bytes).boxed_unsync())
}

fn refusal(error: &ApiError) -> Response<ApiBody> {
    whole(error.code(), Bytes::from(error.status().to_string()))
}

impl Inner {
    async fn serve<B>(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap, body: B) -> Result<Response<ApiBody>, ApiError>
    where
        B: http_body::Body<Data = Bytes> + Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let accept = header(headers, &ACCEPT).unwrap_or_default();
        let target = Target::parse(path, &self.core.kinds)?;
        if let Target::Info(segments) = &target {
            if method != Method::GET {
                return Err(ApiError::method_not_allowed());
            }
            let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
            let (content_type, document) = discovery::serve(&segments, accept, &self.core.kinds).ok_or_else(ApiError::no_such_path)?;
            return Ok(response(StatusCode::OK, content_type, Full::new(document).boxed_unsync()));
        }
        let view = View::parse(accept).ok_or_else(ApiError::not_acceptable)?;
        let query = Query::parse(query)?;
        match (method.as_str(), target) {
            ("GET", Target::Collection { kind, namespace }) => {
                let scope = Scope { kind: kind.id, namespace };
                if query.watch { self.watch(kind, scope, query, view) } else { self.list(&kind, &scope, &query, view) }
            }
            ("GET", Target::Object { kind, namespace, name, .. }) => {
                let stored = self.get(&kind, namespace, &name)?;
                Ok(whole(StatusCode::OK, view.object(&kind, &stored.bytes)))
            }
            ("POST", Target::Collection { kind, namespace }) => {
                let namespace = namespace.ok_or_else(ApiError::method_not_allowed)?;
                let object = body::object(&body::read(body).await?)?;
                let write = new_write(&kind, namespace, String::new(), Verb::Create(object), &query, headers);
                self.answer(&kind, write, view).await
            }
            ("PUT", Target::Object { kind, namespace, name, part }) => {
                let object = body::object(&body::read(body).await?)?;
                let write = new_write(&kind, namespace, name, Verb::Replace(object, part), &query, headers);
                self.answer(&kind, write, view).await
            }
            ("PATCH", Target::Object { kind, namespace, name, part }) => {
                let content_type = header(headers, &CONTENT_TYPE).unwrap_or_default();
                let patch = Patch::parse(content_type, &body::read(body).await?, query.force.unwrap_or(Force::No))?;
                match (&patch, query.force, &query.manager) {
                    (Patch::Apply { .. }, _, None) => {
                        return Err(ApiError::bad_request("an apply needs the query parameter fieldManager"));
                    }
                    (Patch::Merge(_) | Patch::Json(_), Some(_), _) => {
                        return Err(ApiError::bad_request("force: Forbidden: may not be specified for non-apply patch"));
                    }
                    _ => {}
                }
                let write = new_write(&kind, namespace, name, Verb::Patch(patch, part), &query, headers);
                self.answer(&kind, write, view).await
            }
            ("DELETE", Target::Object { kind, namespace, name, part: Part::Main }) => {
                let (deletion, persist) = request::deletion(&body::read(body).await?, &query)?;
                let mut write = new_write(&kind, namespace, name, Verb::Delete(deletion), &query, headers);
                write.persist = persist;
                self.answer(&kind, write, view).await
            }
            ("DELETE", Target::Collection { kind, namespace }) => {
                let (deletion, persist) = request::deletion(&body::read(body).await?, &query)?;
                self.delete_collection(&kind, Scope { kind: kind.id, namespace }, &query, &deletion, persist, view).await
            }
            _ => Err(ApiError::method_not_allowed()),
        }
    }

    pub(crate) fn get(&self, kind: &Kind, namespace: String, name: &str) -> Result<Arc<Stored>, ApiError> {
        let key = Key { kind: kind.id, namespace, name: name.to_owned() };
        self.core.state.read().get(&key).ok_or_else(|| ApiError::not_found(kind, name))
    }

    fn list(&self, kind: &Kind, scope: &Scope, query: &Query, view: View) -> Result<Response<ApiBody>, ApiError> {
        let page = list::page(&self.core.state.read(), scope, query)?;
        Ok(whole(StatusCode::OK, view.list(kind, &page)))
    }

    fn watch(&self, kind: Arc<Kind>, scope: Scope, query: Query, view: View) -> Result<Response<ApiBody>, ApiError> {
        let permit = self.watches.enter()?;
        let watch = Watch::start(&self.core, kind, scope, query, view, self.shutdown.clone(), permit)?;
        Ok(response(StatusCode::OK, "application/json", StreamBody::new(watch.into_stream()).boxed_unsync()))
    }

    async fn answer(&self, kind: &Kind, write: Write, view: View) -> Result<Response<ApiBody>, ApiError> {
        let Written { code, bytes } = self.submit(write).await?;
        Ok(whole(code, view.object(kind, &bytes)))
    }

    async fn delete_collection(
        &self,
        kind: &Arc<Kind>,
        scope: Scope,
        query: &Query,
        deletion: &Deletion,
        persist: super::write::Persist,
        view: View,
    ) -> Result<Response<ApiBody>, ApiError> {
        let page = list::page(&self.core.state.read(), &scope, query)?;
        for (key, stored) in &page.items {
            let mut deletion = deletion.clone();
            deletion.uid.get_or_insert_with(|| stored.uid.clone());
            let write = Write {
                kind: kind.clone(),
                namespace: key.namespace.clone(),
                name: key.name.clone(),
                verb: Verb::Delete(deletion),
                manager: String::new(),
                persist,
            };
            match self.submit(write).await {
                Ok(_) => {}
                // Gone, or another object by now: not one of those that were meant.
                Err(error) if matches!(error.code(), StatusCode::NOT_FOUND | StatusCode::CONFLICT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(whole(StatusCode::OK, view.list(kind, &page)))
    }
}

fn new_write(kind: &Arc<Kind>, namespace: String, name: String, verb: Verb, query: &Query, headers: &HeaderMap) -> Write {
    let agent = || {
        let agent = header(headers, &USER_AGENT).unwrap_or("unknown");
        agent.split(['/', ' ']).next().unwrap_or("unknown").chars().take(128).collect()
    };
    let manager = query.manager.clone().unwrap_or_else(agent);
    Write { kind: kind.clone(), namespace, name, verb, manager, persist: query.persist }
}

fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The document of a small JSON value.
pub(crate) fn document(value: &Value) -> Bytes {
    Bytes::from(json!(value).to_string())
}
