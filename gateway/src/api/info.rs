//! What the gateway is, and who is asking.

use openshell_proto::v1;
use tonic::{Request, Status};

use super::Api;

pub(super) async fn health(_: &Api, _: Request<v1::HealthRequest>) -> Result<v1::HealthResponse, Status> {
    Ok(v1::HealthResponse { status: v1::ServiceStatus::Healthy.into(), version: env!("CARGO_PKG_VERSION").to_owned() })
}
