//! Providers: credentials and where they may go.
//!
//! A provider is two objects: the `Provider`, which says everything that is no secret, and the
//! Secret `osprov-<name>`, which it owns. The `Provider` is made first: it takes the name, and
//! whatever goes wrong after that, the collector takes the Secret away with it. A provider
//! whose Secret is missing gives its sandboxes nothing.

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Resource as _;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Preconditions};
use openshell_crds::provider::ProviderEndpoint;
use openshell_crds::{OpenShellSandbox, Provider, labels};
use openshell_proto::{datamodel, v1};
use sha2::Digest as _;
use tonic::{Request, Status};
use zeroize::Zeroize as _;

use super::managed::Force;
use super::objects::{self, usable_name};
use super::{Api, check, page, scope};
use crate::convert::provider::{self as convert, ENDPOINTS};
use crate::errors::{self, Violations};
use crate::limits;

pub(super) async fn create(api: &Api, request: Request<v1::CreateProviderRequest>) -> Result<v1::ProviderResponse, Status> {
    let request = request.into_inner();
    let id = request.request_id.clone();
    // What is remembered of the request must hold no secret.
    let mut remembered = request.clone();
    for value in remembered.provider.iter_mut().flat_map(|p| p.credentials.values_mut()) {
        let digest = hex::encode(sha2::Sha256::digest(value.as_bytes()));
        value.zeroize();
        *value = digest;
    }
    api.requests.once("CreateProvider", &id, remembered, Box::pin(create_once(api, request))).await
}

async fn create_once(api: &Api, request: v1::CreateProviderRequest) -> Result<v1::ProviderResponse, Status> {
    scope::one(request.workspace_scope.as_ref())?;
    let Some(mut wanted) = request.provider else { return Err(errors::invalid("provider", "it is missing")) };
    let endpoints = checked(&wanted)?;
    let meta = wanted.metadata.take().unwrap_or_default();
    let name = meta.name.as_str();
    let object = Provider {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(meta.labels.clone().into_iter().collect()),
            annotations: Some(meta.annotations.clone().into_iter().collect()),
            ..ObjectMeta::default()
        },
        spec: convert::spec_from_wire(&wanted, name, endpoints),
        status: None,
    };
    let providers = api.objects::<Provider>();
    let created = providers.create(&objects::post(), &object).await.map_err(|e| objects::failed("provider", name, e))?;
    if let Err(error) = store_secret(api, &created, std::mem::take(&mut wanted.credentials)).await {
        let params =
            DeleteParams { preconditions: Some(Preconditions { uid: created.uid(), resource_version: None }), ..DeleteParams::default() };
        if let Err(error) = providers.delete(name, &params).await {
            tracing::warn!(provider = name, %error, "a provider without its Secret is left; delete it");
        }
        return Err(objects::failed("secret", &convert::secret_name(name), error));
    }
    tracing::info!(provider = name, "created");
    Ok(response(&created))
}

async fn store_secret(api: &Api, owner: &Provider, credentials: HashMap<String, String>) -> Result<(), kube::Error> {
    let data: BTreeMap<String, ByteString> = credentials.into_iter().map(|(key, value)| (key, ByteString(value.into_bytes()))).collect();
    let mut secret = Secret {
        metadata: ObjectMeta {
            name: Some(convert::secret_name(&owner.name_any())),
            labels: Some([(labels::CREDENTIAL.to_owned(), "true".to_owned())].into()),
            owner_references: owner.controller_owner_ref(&()).map(|owner| vec![owner]),
            ..ObjectMeta::default()
        },
        data: Some(data),
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    let result = api.secrets().create(&objects::post(), &secret).await;
    for value in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        value.0.zeroize();
    }
    result.map(|_| ())
}

/// Everything that is wrong with the provider, or its endpoints.
fn checked(wanted: &datamodel::Provider) -> Result<Vec<ProviderEndpoint>, Status> {
    let mut v = Violations::default();
    let meta = wanted.metadata.clone().unwrap_or_default();
    if let Err(status) = usable_name("provider.metadata.name", &meta.name) {
        v.add("provider.metadata.name", status.message().trim_start_matches("provider.metadata.name: ").to_owned());
    } else if convert::secret_name(&meta.name).len() > limits::OBJECT_NAME_LENGTH {
        v.add("provider.metadata.name", "it is too long");
    }
    check::labels("provider.metadata.labels", &meta.labels, &mut v);
    check::annotations("provider.metadata.annotations", &meta.annotations, &mut v);
    let type_ = wanted.r#type.as_str();
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let inner = type_.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if type_.len() > limits::PROVIDER_TYPE_LENGTH || !inner || !edge(type_.as_bytes().first()) || !edge(type_.as_bytes().last()) {
        v.add("provider.type", "a type has lower-case letters, digits and '-', at most 64 of them (`github`, `anthropic`, `generic`, ...)");
    }
    if !wanted.profile_workspace.is_empty() {
        v.add("provider.profile_workspace", "profiles of workspaces are not supported yet; leave it out");
    }
    if !wanted.credential_handles.is_empty() {
        v.add("provider.credential_handles", "they are set by the gateway; leave them out");
    }
    if !wanted.credential_expiration_times.is_empty() {
        v.add("provider.credential_expiration_times", "expiry of credentials is not supported yet; leave it out");
    }
    if wanted.credentials.len() > limits::PROVIDER_CREDENTIALS {
        v.add("provider.credentials", format!("{} credentials; at most {}", wanted.credentials.len(), limits::PROVIDER_CREDENTIALS));
    }
    for (key, value) in &wanted.credentials {
        variable("provider.credentials", key, &mut v);
        let path = || format!("provider.credentials[{key:?}]");
        if value.is_empty() {
            v.add(path(), "the value is empty");
        } else if value.len() > limits::CREDENTIAL_BYTES {
            v.add(path(), format!("the value has {} bytes; at most {}", value.len(), limits::CREDENTIAL_BYTES));
        } else if value.bytes().any(|b| b < 0x20 || b == 0x7f) {
            v.add(path(), "the value has control characters, which no header can carry");
        }
    }
    if wanted.config.len() > limits::PROVIDER_CONFIG {
        v.add("provider.config", format!("{} settings; at most {}", wanted.config.len(), limits::PROVIDER_CONFIG));
    }
    for (key, value) in wanted.config.iter().filter(|(key, _)| *key != ENDPOINTS) {
        variable("provider.config", key, &mut v);
        if wanted.credentials.contains_key(key) {
            v.add(format!("provider.config[{key:?}]"), "there is a credential of the same name");
        }
        if value.len() > limits::ENVIRONMENT_VALUE_BYTES || value.contains('\0') {
            v.add(format!("provider.config[{key:?}]"), format!("at most {} bytes, without NUL", limits::ENVIRONMENT_VALUE_BYTES));
        }
    }
    let endpoints = endpoints(wanted, &mut v);
    v.into_result()?;
    Ok(endpoints)
}

fn variable(field: &str, name: &str, v: &mut Violations) {
    if let Some(why) = check::identifier(name) {
        v.add(format!("{field}[{name:?}]"), why);
    } else if name.starts_with("OPENSHELL_") {
        v.add(format!("{field}[{name:?}]"), "names beginning with OPENSHELL_ are reserved; choose another");
    }
}

fn endpoints(wanted: &datamodel::Provider, v: &mut Violations) -> Vec<ProviderEndpoint> {
    let field = format!("provider.config[{ENDPOINTS:?}]");
    let given = match wanted.config.get(ENDPOINTS) {
        Some(text) => convert::endpoints(text),
        None => convert::endpoints(&convert::built_in(&wanted.r#type).join(",")),
    };
    match given {
        Ok(list) if list.is_empty() => {
            let why = format!(
                "where may the credentials go? The type '{}' stands for no service: set the key `endpoints` to host[:port][/path], separated by commas",
                wanted.r#type
            );
            v.add(field, why);
            list
        }
        Ok(list) if list.len() > limits::PROVIDER_ENDPOINTS => {
            v.add(field, format!("{} endpoints; at most {}", list.len(), limits::PROVIDER_ENDPOINTS));
            list
        }
        Ok(list) => list,
        Err(why) => {
            v.add(field, why);
            Vec::new()
        }
    }
}

fn response(object: &Provider) -> v1::ProviderResponse {
    v1::ProviderResponse { provider: Some(convert::to_wire(object)), ..v1::ProviderResponse::default() }
}

impl Api {
    pub(super) async fn provider(&self, field: &str, name: &str) -> Result<Provider, Status> {
        usable_name(field, name)?;
        self.objects::<Provider>().get(name).await.map_err(|e| objects::failed("provider", name, e))
    }
}

pub(super) async fn get(api: &Api, request: Request<v1::GetProviderRequest>) -> Result<v1::ProviderResponse, Status> {
    let request = request.into_inner();
    scope::one(request.workspace_scope.as_ref())?;
    Ok(response(&api.provider("name", &request.name).await?))
}

pub(super) async fn list(api: &Api, request: Request<v1::ListProvidersRequest>) -> Result<v1::ListProvidersResponse, Status> {
    let request = request.into_inner();
    scope::one_or_all(request.workspace_scope.as_ref())?;
    let params = page::params(request.page_size, &request.page_token, &request.label_selector)?;
    let found = api.listed::<Provider>(&params).await.map_err(|e| page::failed("provider", &request.page_token, e))?;
    Ok(v1::ListProvidersResponse {
        providers: found.items.iter().map(convert::to_wire).collect(),
        next_page_token: page::next(found.metadata.continue_.as_deref(), &request.label_selector),
    })
}

pub(super) async fn delete(api: &Api, request: Request<v1::DeleteProviderRequest>) -> Result<v1::DeleteProviderResponse, Status> {
    let force = Force::of(&request)?;
    let request = request.into_inner();
    let id = request.request_id.clone();
    api.requests.once("DeleteProvider", &id, request.clone(), Box::pin(delete_once(api, request, force))).await
}

async fn delete_once(api: &Api, request: v1::DeleteProviderRequest, force: Force) -> Result<v1::DeleteProviderResponse, Status> {
    scope::one(request.workspace_scope.as_ref())?;
    let name = request.name.as_str();
    usable_name("name", name)?;
    let sandboxes = api.listed::<OpenShellSandbox>(&ListParams::default()).await.map_err(|e| objects::failed("sandbox", "", e))?;
    let users: Vec<String> =
        sandboxes.items.iter().filter(|s| s.spec.provider_refs.iter().any(|p| p.name == name)).map(kube::ResourceExt::name_any).collect();
    if !users.is_empty() {
        let why = format!("provider '{name}' is used by {}; detach it or delete them first", users.join(", "));
        return Err(errors::failed_precondition("PROVIDER_IN_USE", why));
    }
    let params = api.deletion::<Provider>("provider", name, force, DeleteParams::background()).await?;
    let outcome = match api.objects::<Provider>().delete(name, &params).await {
        Ok(gone) => gone.either(|_| v1::DeletionOutcome::Accepted, |_| v1::DeletionOutcome::Completed),
        Err(kube::Error::Api(status)) if status.is_not_found() && request.allow_missing => v1::DeletionOutcome::AlreadyAbsent,
        Err(error) => return Err(objects::failed("provider", name, error)),
    };
    tracing::info!(provider = name, "deleted");
    Ok(v1::DeleteProviderResponse { outcome: outcome.into() })
}
