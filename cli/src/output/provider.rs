//! Providers as they are printed. Values are not in the answers of a gateway, and would not be
//! printed if they were.

use openshell_proto::datamodel::Provider;
use serde_json::{Value, json};

use super::table::{Details, Table};
use super::{age, time, timestamp};

fn keys<'a, V: 'a>(map: impl IntoIterator<Item = (&'a String, V)>) -> Vec<&'a str> {
    let mut keys: Vec<&str> = map.into_iter().map(|(k, _)| k.as_str()).collect();
    keys.sort_unstable();
    keys
}

/// The credentials' names.
fn credential_keys(provider: &Provider) -> Vec<&str> {
    let mut all = keys(&provider.credentials);
    all.extend(keys(&provider.credential_handles));
    all.sort_unstable();
    all.dedup();
    all
}

/// The keys of `provider get` and `list`.
pub(crate) fn value(provider: &Provider) -> Value {
    let metadata = provider.metadata.clone().unwrap_or_default();
    let mut value = json!({
        "id": metadata.id,
        "name": metadata.name,
        "workspace": metadata.workspace,
        "type": provider.r#type,
        "credential_keys": credential_keys(provider),
        "config_keys": keys(&provider.config),
    });
    if !metadata.labels.is_empty() {
        value["labels"] = super::sandbox::sorted(&metadata.labels);
    }
    if metadata.resource_version > 0 {
        value["resource_version"] = json!(metadata.resource_version);
    }
    if let Some(created) = time(metadata.created_time.as_ref()) {
        value["created_at"] = json!(created);
    }
    if let Some(endpoints) = provider.config.get("endpoints") {
        value["endpoints"] = json!(endpoints.split(',').collect::<Vec<_>>());
    }
    value
}

/// `provider list`.
pub(crate) fn table<'a>(providers: impl IntoIterator<Item = &'a Provider>) -> String {
    let mut table = Table::new(["name", "type", "credentials", "endpoints", "age"]);
    for provider in providers {
        let metadata = provider.metadata.clone().unwrap_or_default();
        table.row([
            metadata.name.clone(),
            provider.r#type.clone(),
            credential_keys(provider).join(","),
            provider.config.get("endpoints").cloned().unwrap_or_default(),
            age(timestamp(metadata.created_time.as_ref())),
        ]);
    }
    table.render()
}

/// `provider get`.
pub(crate) fn details(provider: &Provider) -> String {
    let metadata = provider.metadata.clone().unwrap_or_default();
    let mut details = Details::default();
    details.add("Name", metadata.name);
    details.add("Id", metadata.id);
    details.add("Type", provider.r#type.as_str());
    details.add("Credentials", credential_keys(provider).join(", "));
    details.add("Endpoints", provider.config.get("endpoints").cloned().unwrap_or_default().replace(',', "\n"));
    let config: Vec<&str> = keys(&provider.config).into_iter().filter(|k| *k != "endpoints").collect();
    details.add("Config", config.join(", "));
    details.add("Created", time(metadata.created_time.as_ref()).unwrap_or_default());
    details.render()
}
