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
