//! `/healthz` and `/readyz`, for a kubelet, and `/metrics`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::{self, Metrics};

/// What a kubelet is told: the process is healthy while it answers, and ready once the API server
/// has answered it. One that waits for the lease is ready: it can take over.
#[derive(Clone, Debug, Default)]
pub struct Health {
    ready: Arc<AtomicBool>,
}

impl Health {
    /// The API server has answered.
    pub fn ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Serves until shutdown. Returns once it listens.
    pub async fn serve(&self, address: SocketAddr, metrics: Metrics, shutdown: CancellationToken) -> io::Result<()> {
        let listener = TcpListener::bind(address).await?;
        let health = self.clone();
        let ready = move || async move {
            if health.ready.load(Ordering::Relaxed) {
                (StatusCode::OK, "ok")
            } else {
                (StatusCode::SERVICE_UNAVAILABLE, "the API server has not answered yet")
            }
        };
        let counts = move || async move {
            let text = metrics.text().map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
            Ok::<_, StatusCode>(([(CONTENT_TYPE, metrics::CONTENT_TYPE)], text))
        };
        let routes = Router::new().route("/healthz", get(|| async { "ok" })).route("/readyz", get(ready)).route("/metrics", get(counts));
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned()).await {
                tracing::warn!(%error, "health checks are not served any more");
            }
        });
        Ok(())
    }
}
