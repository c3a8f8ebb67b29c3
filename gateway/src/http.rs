//! The object API over HTTP: `/api` and `/apis` as an API server serves them, for `openshell
//! apply | get | delete -f` and any Kubernetes client. Who may use it is decided by
//! [`crate::auth`]; what a Secret shows is decided by the API service itself, which returns
//! the names of its keys and never a value.

use axum::Router;
use axum::response::Response;
use http::StatusCode;
use openshell_operator::api::ApiService;

use crate::auth::status_response;

/// Routes to the object API.
pub(crate) fn routes(service: &ApiService) -> Router {
    let mut router = Router::new();
    for path in ["/api", "/api/{*rest}", "/apis", "/apis/{*rest}", "/openapi/{*rest}", "/version"] {
        router = router.route_service(path, service.clone());
    }
    router
}

/// What is neither a method nor an object.
pub(crate) async fn nothing() -> Response {
    status_response(StatusCode::NOT_FOUND, "NotFound", "there is nothing here")
}
