//! Paths of findings: `network_policies.forge.endpoints[0].port`. A key that is no plain word stands
//! in brackets and quotes, as in `network_policies["a.b"]`.

/// The path of a key of what `path` names.
pub(crate) fn key(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    match (path.is_empty(), plain) {
        (true, true) => key.to_owned(),
        (false, true) => format!("{path}.{key}"),
        (_, false) => format!("{path}[{}]", serde_json::Value::from(super::shortened(key))),
    }
}

/// The path of an item of what `path` names.
pub(crate) fn index(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Whether `inner` names `outer` or something in it.
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

/// The path of what holds what `path` names.
pub(crate) fn parent(path: &str) -> &str {
    let cut = if path.ends_with("\"]") { path.rfind("[\"") } else { path.rfind(['.', '[']) };
    cut.map_or("", |at| &path[..at])
}
