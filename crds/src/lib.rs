//! The objects of OpenShell: one set of Rust types for the cluster and for the local store.
//!
//! Group `openshell.ai`, version `v1alpha1`, category `openshell`. A field is here only if
//! something enforces it; what we cannot hold is refused when it is written. The manifests in
//! `crds/manifests` are generated from these types and compared with them by a test.
//!
//! | Kind | Short | Module |
//! |---|---|---|
//! | `OpenShellGateway` | `osg` | [`gateway`] |
//! | `Policy` | `ospol` | [`policy`] |
//! | `Provider` | `osprov` | [`provider`] |
//! | `OpenShellSandbox` | `ossb` | [`sandbox`] |
#![forbid(unsafe_code)]
// Several `printcolumn` of one kind have keys in common; the lint takes them for one attribute.
#![allow(clippy::duplicated_attributes)]

pub mod agents;
pub mod cases;
pub mod conditions;
mod definitions;
pub mod deployment;
pub mod duration;
pub mod gateway;
pub mod labels;
pub mod manifests;
pub mod pod;
pub mod policy;
pub mod provider;
pub mod sandbox;

pub use definitions::all;
pub use gateway::{OpenShellGateway, OpenShellGatewaySpec, OpenShellGatewayStatus};
pub use policy::{Policy, PolicySpec, PolicyStatus};
pub use provider::{Provider, ProviderSpec, ProviderStatus};
pub use sandbox::{OpenShellSandbox, OpenShellSandboxSpec, OpenShellSandboxStatus};

/// API group of every kind here.
pub const GROUP: &str = "openshell.ai";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
