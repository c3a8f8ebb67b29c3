//! The drivers that this process has, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ComputeDriver;

/// Order of detection when nothing is configured. `vm` is taken only by name.
const DETECTION: [&str; 4] = ["kubernetes", "podman", "docker", "process"];

/// Drivers by name. What is not registered is not detected.
#[derive(Clone, Default)]
pub struct Registry {
    drivers: BTreeMap<&'static str, Arc<dyn ComputeDriver>>,
}

/// No such driver.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RegistryError {
    /// The name is not in the registry.
    #[error(
        "there is no compute driver \"{name}\"; this build has: {known}. Choose one of these, or leave the driver out to have it detected"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is, separated by commas.
        known: String,
    },
    /// Nothing to detect.
    #[error("no compute driver is available here; this build has: {known}. Name one to be told why it cannot be used")]
    None {
        /// What there is, separated by commas.
        known: String,
    },
}

impl Registry {
    /// An empty registry.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a driver under its own name; the last one of a name wins.
    pub fn register(&mut self, driver: Arc<dyn ComputeDriver>) {
        self.drivers.insert(driver.name(), driver);
    }

    /// The driver of that name.
    pub fn get(&self, name: &str) -> Result<Arc<dyn ComputeDriver>, RegistryError> {
        self.drivers.get(name).cloned().ok_or_else(|| RegistryError::Unknown { name: name.to_owned(), known: self.known() })
    }

    /// The driver to use when none is configured: the first registered one of Kubernetes,
    /// Podman, Docker, process.
    pub fn detect(&self) -> Result<Arc<dyn ComputeDriver>, RegistryError> {
        DETECTION.iter().find_map(|name| self.drivers.get(name)).cloned().ok_or_else(|| RegistryError::None { known: self.known() })
    }

    fn known(&self) -> String {
        if self.drivers.is_empty() { "none".to_owned() } else { self.drivers.keys().copied().collect::<Vec<_>>().join(", ") }
    }
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;
    use futures::stream::{BoxStream, StreamExt as _};

    use super::*;
    use crate::blueprint::SandboxBlueprint;
    use crate::driver::{Capabilities, Cleanup, DriverError, WorkloadState};

    /// A driver that is only a name.
    struct Named(&'static str);

    impl ComputeDriver for Named {
        fn name(&self) -> &'static str {
            self.0
        }
        fn capabilities(&self) -> Capabilities {
            Capabilities { cleanup: Cleanup::OwnerReferences }
        }
        fn admit(&self, _: &SandboxBlueprint) -> Result<(), DriverError> {
            Ok(())
        }
        fn ensure<'a>(&'a self, _: &'a SandboxBlueprint) -> BoxFuture<'a, Result<(), DriverError>> {
            Box::pin(async { Ok(()) })
        }
        fn observe<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<WorkloadState, DriverError>> {
            Box::pin(async { Ok(WorkloadState::Absent) })
        }
        fn suspend<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
            Box::pin(async { Ok(()) })
        }
        fn delete<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<(), DriverError>> {
            Box::pin(async { Ok(()) })
        }
        fn list(&self) -> BoxFuture<'_, Result<Vec<String>, DriverError>> {
            Box::pin(async { Ok(Vec::new()) })
        }
        fn watch(&self) -> BoxStream<'static, String> {
            futures::stream::empty().boxed()
        }
    }

    #[test]
    fn detects_in_order_and_never_what_is_not_there() {
        let mut registry = Registry::new();
        assert!(matches!(registry.detect(), Err(RegistryError::None { .. })));
        registry.register(Arc::new(Named("vm")));
        assert!(registry.detect().is_err(), "vm is taken only by name");
        registry.register(Arc::new(Named("process")));
        assert_eq!(registry.detect().map(|driver| driver.name()).ok(), Some("process"));
        registry.register(Arc::new(Named("docker")));
        assert_eq!(registry.detect().map(|driver| driver.name()).ok(), Some("docker"));
        let unknown = registry.get("kuberentes").err().map(|error| error.to_string()).unwrap_or_default();
        assert!(unknown.contains("kuberentes") && unknown.contains("docker, process, vm"), "{unknown}");
    }
}
