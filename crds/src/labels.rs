//! Labels and annotations with a meaning to us, and nothing else.

/// Workspace of an object; absent means `default`.
pub const WORKSPACE: &str = "openshell.ai/workspace";
/// `"true"` on Secrets that providers may refer to. No other Secret is read or cached.
pub const CREDENTIAL: &str = "openshell.ai/credential";
/// UID of the sandbox that a generated object belongs to.
pub const SANDBOX_ID: &str = "openshell.ai/sandbox-id";
/// The workspace that exists without being created.
pub const DEFAULT_WORKSPACE: &str = "default";
/// Name of the gateway that a generated object's sandbox belongs to.
pub const GATEWAY: &str = "openshell.ai/gateway";
/// How the supervisor gets into the pod of a `Sandbox` of `agents.x-k8s.io` (annotation).
pub const SIDELOAD: &str = "openshell.ai/sideload-method";
/// Why so, in words (annotation).
pub const SIDELOAD_BECAUSE: &str = "openshell.ai/sideload-because";
/// The recommended label for what an object is.
pub const NAME: &str = "app.kubernetes.io/name";
/// The recommended label for who made an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
