//! Every bound of the policy language, in one place.

/// Largest policy text, in bytes; also the largest encoded policy of the reference's gateway.
pub const MAX_BYTES: usize = 262_144;
/// Deepest nesting of a document.
pub const MAX_DEPTH: usize = 32;
/// Most nodes of a document, expanded aliases included.
pub const MAX_NODES: usize = 65_536;
/// Most aliases of a document.
pub const MAX_ALIASES: usize = 256;
/// Most findings that are reported at once.
pub const MAX_FINDINGS: usize = 100;

/// Longest path, in bytes (`PATH_MAX`).
pub const MAX_PATH: usize = 4096;
/// Most filesystem paths of a policy, both lists together.
pub const MAX_PATHS: usize = 256;
/// Longest name of a policy, a middleware or a word.
pub const MAX_NAME: usize = 253;
/// Longest glob, value or other free text, in bytes.
pub const MAX_TEXT: usize = 1024;
/// Most named network policies.
pub const MAX_POLICIES: usize = 256;
/// Most endpoints of a file, over all its policies: pairs of them are compared.
pub const MAX_ENDPOINTS: usize = 1024;
/// Most entries of any other list or map.
pub const MAX_ENTRIES: usize = 256;
/// Most middlewares of a file.
pub const MAX_MIDDLEWARES: usize = 10;
