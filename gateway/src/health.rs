//! `/healthz` and `/readyz` on a port of their own, for those that watch over the process.

use axum::Router;
use axum::routing::get;

/// Both answer as soon as the gateway serves: it is not listening before it is ready.
pub(crate) fn routes() -> Router {
    Router::new().route("/healthz", get(async || "ok\n")).route("/readyz", get(async || "ok\n"))
}
