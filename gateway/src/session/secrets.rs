//! Values of credentials.

use std::collections::BTreeMap;

use futures::future::BoxFuture;

/// Reads the values of Secrets labelled as credentials.
pub trait SecretValues: Send + Sync {
    /// The values of one Secret.
    fn read<'a>(&'a self, namespace: &'a str, name: &'a str) -> BoxFuture<'a, Result<BTreeMap<String, Vec<u8>>, String>>;
}
