//! Secrets: values go in, and come out only through [`SecretValues`].
//!
//! A Secret is stored twice: as an object whose `data` has every key and no value (an empty
//! string stands for it), and as sealed values in a table of their own. Get, list and watch
//! serve the object. In a write an empty value means "as it was", so that reading, changing a
//! label and writing back keeps the values.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use openshell_crds::labels;
use serde_json::{Map, Value, json};
use zeroize::{Zeroize, Zeroizing};

use super::error::{Cause, CauseReason};
use super::limits;
use super::store::sqlite::{self, SecretChange};
use super::store::state::Key;
use super::write::metadata_mut;

/// Bytes of one value; wiped when dropped, and never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes over the bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The value itself.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as text, if it is UTF-8.
    pub fn expose_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }
}

impl std::fmt::Debug for SecretBytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SecretBytes({} bytes)", self.0.len())
    }
}

/// Why the values of a Secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// No such Secret.
    #[error("the Secret {namespace}/{name} does not exist; create it, labelled {}: \"true\"", labels::CREDENTIAL)]
    NotFound {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// It is not meant for sandboxes.
    #[error(
        "the Secret {namespace}/{name} is not labelled {}: \"true\", and no other Secret is read; label it if providers may use it",
        labels::CREDENTIAL
    )]
    NotLabelled {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// The store or the API server failed.
    #[error("the values of the Secret {namespace}/{name} cannot be read: {why}")]
    Failed {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// What went wrong.
        why: String,
    },
}

/// Reads values of credential Secrets. The one way by which a value leaves a store.
pub trait SecretValues: Send + Sync {
    /// All values of a Secret that is labelled as a credential.
    fn read(&self, namespace: &str, name: &str) -> BoxFuture<'_, Result<BTreeMap<String, SecretBytes>, SecretError>>;
}

/// Values from the local store.
pub(crate) struct LocalSecrets(pub(crate) Arc<super::Inner>);

impl SecretValues for LocalSecrets {
    fn read(&self, namespace: &str, name: &str) -> BoxFuture<'_, Result<BTreeMap<String, SecretBytes>, SecretError>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        async move {
            let stored =
                self.0.core.kinds.by_plural("", "v1", "secrets").and_then(|kind| {
                    self.0.core.state.read().get(&Key { kind: kind.id, namespace: namespace.clone(), name: name.clone() })
                });
            let Some(stored) = stored else {
                return Err(SecretError::NotFound { namespace, name });
            };
            if stored.labels.get(labels::CREDENTIAL).map(String::as_str) != Some("true") {
                return Err(SecretError::NotLabelled { namespace, name });
            }
            match sqlite::values(&self.0.pool, &self.0.sealer, &stored.uid).await {
                Ok(values) => Ok(values.into_iter().map(|(key, value)| (key, SecretBytes(value))).collect()),
                Err(error) => Err(SecretError::Failed { namespace, name, why: error.to_string() }),
            }
        }
        .boxed()
    }
}

/// Values from a cluster's API server.
pub struct KubeSecrets(kube::Client);

impl KubeSecrets {
    /// Reads through a client whose role may get Secrets of the sandbox namespace.
    pub fn new(client: kube::Client) -> Self {
        Self(client)
    }
}

impl SecretValues for KubeSecrets {
    fn read(&self, namespace: &str, name: &str) -> BoxFuture<'_, Result<BTreeMap<String, SecretBytes>, SecretError>> {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        async move {
            let api: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(self.0.clone(), &namespace);
            let secret = match api.get_opt(&name).await {
                Ok(Some(secret)) => secret,
                Ok(None) => return Err(SecretError::NotFound { namespace, name }),
                Err(error) => return Err(SecretError::Failed { namespace, name, why: error.to_string() }),
            };
            let labelled = secret.metadata.labels.as_ref().and_then(|l| l.get(labels::CREDENTIAL)).is_some_and(|v| v == "true");
            if !labelled {
                return Err(SecretError::NotLabelled { namespace, name });
            }
            Ok(secret.data.unwrap_or_default().into_iter().map(|(key, value)| (key, SecretBytes::new(value.0))).collect())
        }
        .boxed()
    }
}

/// `kubectl apply` keeps what it applied in this annotation: for a Secret, its values.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl SecretChange {
    pub(crate) fn is_empty(&self) -> bool {
        self.set.is_empty() && self.remove.is_empty()
    }

    /// Whether the entry stays as it is.
    pub(crate) fn keeps(&self, key: &str) -> bool {
        !self.remove.iter().any(|k| k == key) && !self.set.iter().any(|(k, _)| k == key)
    }
}

/// Turns `stringData` into `data`, so that an apply knows one field for one entry.
pub(crate) fn plain_to_data(config: &mut Value) {
    let Some(root) = config.as_object_mut() else { return };
    let Some(Value::Object(plain)) = root.remove("stringData") else { return };
    let data = root.entry("data").or_insert_with(|| Value::Object(Map::new()));
    if let Some(data) = data.as_object_mut() {
        for (key, value) in plain {
            // What is no string is kept, and refused by the schema.
            let value = value.as_str().map_or_else(|| value.clone(), |text| Value::String(STANDARD.encode(text)));
            data.insert(key, value);
        }
    }
}

/// Takes the values out of a Secret that is about to be stored.
pub(crate) fn take_values(object: &mut Value, before: Option<&Value>) -> Result<SecretChange, Vec<Cause>> {
    let mut causes = Vec::new();
    let mut change = SecretChange::default();
    let old: Map<String, Value> = before.and_then(|b| b.get("data")).and_then(Value::as_object).cloned().unwrap_or_default();
    if let Some(annotations) = metadata_mut(object).and_then(|m| m.get_mut("annotations")).and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    let Some(root) = object.as_object_mut() else { return Ok(change) };
    let mut keys = Map::new();
    if let Some(Value::Object(data)) = root.remove("data") {
        for (key, value) in data {
            let Value::String(mut text) = value else { continue };
            check_key(&key, "data", &mut causes);
            if !(text.is_empty() && old.contains_key(&key)) {
                match STANDARD.decode(text.trim_ascii()) {
                    Ok(bytes) => change.set.push((key.clone(), Zeroizing::new(bytes))),
                    // The value is not shown: it may be the secret itself.
                    Err(_) => causes.push(Cause::new(
                        CauseReason::Invalid,
                        format!("data[{key}]"),
                        "Invalid value: must be base64 (put plain text into stringData)",
                    )),
                }
            }
            text.zeroize();
            keys.insert(key, json!(""));
        }
    }
    if let Some(Value::Object(data)) = root.remove("stringData") {
        for (key, value) in data {
            let Value::String(text) = value else { continue };
            check_key(&key, "stringData", &mut causes);
            change.set.retain(|(k, _)| *k != key);
            change.set.push((key.clone(), Zeroizing::new(text.into_bytes())));
            keys.insert(key, json!(""));
        }
    }
    change.remove = old.keys().filter(|key| !keys.contains_key(*key)).cloned().collect();
    let size: usize = change.set.iter().map(|(_, value)| value.len()).sum();
    if size > limits::MAX_SECRET {
        causes.push(Cause::new(CauseReason::TooLong, "data", format!("Too long: may not be more than {} bytes", limits::MAX_SECRET)));
    }
    if let Some(before) = before {
        if before.get("immutable") == Some(&Value::Bool(true)) {
            if !change.is_empty() {
                causes.push(Cause::forbidden("data", "field is immutable when `immutable` is set"));
            }
            if root.get("immutable") != Some(&Value::Bool(true)) {
                causes.push(Cause::forbidden("immutable", "field is immutable when `immutable` is set"));
            }
        }
        if root.get("type") != before.get("type") {
            causes.push(Cause::invalid("type", root.get("type").unwrap_or(&Value::Null), "field is immutable"));
        }
    }
    if !keys.is_empty() {
        root.insert("data".into(), Value::Object(keys));
    }
    if causes.is_empty() { Ok(change) } else { Err(causes) }
}

fn check_key(key: &str, field: &str, causes: &mut Vec<Cause>) {
    let valid = !key.is_empty()
        && key.len() <= 253
        && key != "."
        && !key.starts_with("..")
        && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !valid {
        let why = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
        causes.push(Cause::invalid(format!("{field}[{key}]"), &json!(key), why));
    }
}
