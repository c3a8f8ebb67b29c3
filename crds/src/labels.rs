//! Labels and annotations with a meaning to us, and nothing else.

/// Workspace of an object; absent means `default`.
pub const WORKSPACE: &str = "openshell.ai/workspace";
/// `"true"` on Secrets that providers may refer to. No other Secret is read or cached.
pub const CREDENTIAL: &str = "openshell.ai/credential";
/// UID of the sandbox that a generated object belongs to.
pub const SANDBOX_ID: &str = "openshell.ai/sandbox-id";
/// The workspace that exists without being created.
pub const DEFAULT_WORKSPACE: &str = "default";
