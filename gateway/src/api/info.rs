//! What the gateway is, and who is asking.

use openshell_proto::v1;
use tonic::{Request, Status};

use super::Api;
use crate::auth::Principal;
use crate::errors;

fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

pub(super) async fn health(_: &Api, _: Request<v1::HealthRequest>) -> Result<v1::HealthResponse, Status> {
    Ok(v1::HealthResponse { status: v1::ServiceStatus::Healthy.into(), version: version() })
}

pub(super) async fn current_user(_: &Api, request: Request<v1::GetCurrentUserRequest>) -> Result<v1::GetCurrentUserResponse, Status> {
    match request.extensions().get::<Principal>() {
        Some(Principal::User(user)) => Ok(v1::GetCurrentUserResponse {
            subject: user.subject.clone(),
            display_name: user.display_name.clone(),
            roles: user.roles.iter().map(|r| r.as_str().to_owned()).collect(),
            scopes: user.scopes.clone(),
            identity_provider: user.provider.to_owned(),
        }),
        _ => Err(errors::unauthenticated("nobody is known to be asking".to_owned())),
    }
}

pub(super) async fn gateway(api: &Api, _: Request<v1::GetGatewayInfoRequest>) -> Result<v1::GetGatewayInfoResponse, Status> {
    let unsupported = v1::ResourceCapabilities {
        cpu: Some(v1::CpuResourceCapabilities::default()),
        memory: Some(v1::MemoryResourceCapabilities::default()),
        gpu: Some(v1::GpuResourceCapabilities::default()),
    };
    Ok(v1::GetGatewayInfoResponse {
        status: v1::ServiceStatus::Healthy.into(),
        gateway_version: version(),
        compute_drivers: vec![v1::ComputeDriverInfo {
            name: api.placement.name().to_owned(),
            capabilities: Some(v1::ComputeDriverCapabilities {
                driver_name: api.placement.name().to_owned(),
                driver_version: version(),
                resource_capabilities: Some(unsupported),
            }),
        }],
        extensions: Vec::new(),
    })
}
