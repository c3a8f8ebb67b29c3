//! A store in a temporary directory.

use std::path::PathBuf;
use std::time::Duration;

use http_body_util::BodyExt as _;
use openshell_crds::{OpenShellSandbox, OpenShellSandboxSpec};
use openshell_operator::api::{LocalApi, Options};
use serde_json::Value;
use tempfile::TempDir;
use tower::ServiceExt as _;

pub(crate) struct Store {
    pub(crate) directory: TempDir,
    pub(crate) api: LocalApi,
}

impl Store {
    pub(crate) async fn new() -> Self {
        Self::with(Options::default()).await
    }

    pub(crate) async fn with(options: Options) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let api = LocalApi::open_with(&directory.path().join("openshell.db"), &directory.path().join("seal.key"), options).await.unwrap();
        Self { directory, api }
    }

    pub(crate) fn database(&self) -> PathBuf {
        self.directory.path().join("openshell.db")
    }

    pub(crate) fn key(&self) -> PathBuf {
        self.directory.path().join("seal.key")
    }

    pub(crate) fn client(&self) -> kube::Client {
        self.api.client()
    }

    pub(crate) fn sandboxes(&self) -> kube::Api<OpenShellSandbox> {
        kube::Api::default_namespaced(self.client())
    }

    /// Closes and opens it again.
    pub(crate) async fn reopen(self) -> Self {
        let Self { directory, api } = self;
        api.close().await;
        let api = LocalApi::open(&directory.path().join("openshell.db"), &directory.path().join("seal.key")).await.unwrap();
        Self { directory, api }
    }
}

pub(crate) fn sandbox(name: &str) -> OpenShellSandbox {
    OpenShellSandbox::new(name, OpenShellSandboxSpec { command: vec!["true".into()], ..OpenShellSandboxSpec::default() })
}

/// The status of a refused request.
pub(crate) fn refused<T: std::fmt::Debug>(result: kube::Result<T>) -> kube::core::Status {
    match result.unwrap_err() {
        kube::Error::Api(status) => *status,
        other => panic!("not an API error: {other}"),
    }
}

/// Sends a request to the service as an HTTP server would.
pub(crate) async fn send(api: &LocalApi, request: http::Request<String>) -> (http::StatusCode, Value) {
    let response = api.service().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = tokio::time::timeout(Duration::from_secs(10), body.collect()).await.unwrap().unwrap().to_bytes();
    (parts.status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}
