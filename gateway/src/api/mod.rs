//! The methods of `openshell.v1`, one file per group.
//!
//! A handler checks its request, reads and writes objects, and answers; it keeps nothing. Who
//! may call it was decided before ([`crate::auth`]).

mod info;
mod methods;

use std::future::Future;

use axum::Router;
use openshell_proto::v1::open_shell_server::OpenShellServer;
use tonic::Status;
use tonic::service::Routes;

use crate::{errors, limits};

/// The public API.
#[derive(Clone)]
pub(crate) struct Api;

impl Api {
    /// An API.
    pub(crate) fn new() -> Self {
        Self
    }

    /// Its routes.
    pub(crate) fn routes(self) -> Router {
        let service = OpenShellServer::new(self).max_decoding_message_size(limits::MESSAGE_BYTES);
        Routes::new(service).prepare().into_axum_router()
    }
}

/// Ends a call that takes too long: a client is better served by an error than by silence.
/// Streams are bounded by their own rules; this bounds the way to their first item.
async fn bounded<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    match tokio::time::timeout(limits::OBJECT_CALL, call).await {
        Ok(result) => result,
        Err(_) => Err(errors::deadline_exceeded("the gateway did not finish in time; look at its log")),
    }
}
