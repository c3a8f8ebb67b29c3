//! The methods of `openshell.v1`, one file per group.
//!
//! A handler checks its request, reads and writes objects, and answers; what it knows is in the
//! objects. Who may call it was decided before ([`crate::auth`]).

mod attach;
mod check;
mod config;
mod exec;
mod info;
mod lifecycle;
mod logs;
mod managed;
mod methods;
mod names;
mod objects;
mod page;
mod placement;
mod providers;
mod requests;
mod sandboxes;
mod scope;
mod watch;
mod workspaces;

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use openshell_proto::supervisor::supervisor_session_server::SupervisorSessionServer;
use openshell_proto::v1::open_shell_server::OpenShellServer;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tonic::service::Routes;

pub(crate) use placement::{Placement, Workload};

use crate::session::Hub;
use crate::{errors, limits};

/// Field manager of what the API writes to objects.
const FIELD_MANAGER: &str = "openshell-gateway";
/// Field manager of `spec.suspend`, which stopping and starting write and nothing else does. It is
/// one of its own, so that whoever manages the rest of an object is not in its way.
const SUSPEND_MANAGER: &str = "openshell-suspend";

/// What the handlers work with.
pub(crate) struct Context {
    /// The objects.
    pub(crate) client: kube::Client,
    /// Namespace of all of them.
    pub(crate) namespace: String,
    /// Name of the `OpenShellGateway` whose defaults apply.
    pub(crate) gateway_name: String,
    /// Its namespace.
    pub(crate) gateway_namespace: String,
    /// Sessions of the supervisors.
    pub(crate) hub: Hub,
    /// Who runs the sandboxes.
    pub(crate) placement: Placement,
    /// Ends streams that would go on for ever.
    pub(crate) shutdown: CancellationToken,
    /// Commands that are under way.
    pub(crate) execs: TaskTracker,
}

/// The public API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Api {
    context: Arc<Context>,
    requests: Arc<requests::Requests>,
}

impl std::ops::Deref for Api {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}

impl Api {
    /// An API over these objects.
    pub(crate) fn new(context: Context) -> Self {
        Self { context: Arc::new(context), requests: Arc::default() }
    }

    /// The routes of the API, and of the supervisors' sessions beside it.
    pub(crate) fn routes(self) -> Router {
        let sessions = SupervisorSessionServer::new(self.hub.clone()).max_decoding_message_size(limits::MESSAGE_BYTES);
        let service = OpenShellServer::new(self).max_decoding_message_size(limits::MESSAGE_BYTES);
        Routes::new(service).add_service(sessions).prepare().into_axum_router()
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
