//! Matching of what a credential is bound to. It follows the policy language (wildcards by label in
//! hosts, `/**` in paths); what it adds is that a plain path covers what lies below it.

/// Whether a host (lower case) matches a binding's host: exact, `*` for one label or a part of
/// the first, `**` as the first label for one or more.
pub(super) fn host_matches(pattern: &str, host: &str) -> bool {
    if !pattern.contains('*') {
        return pattern == host;
    }
    // An address has no labels.
    if host.parse::<std::net::IpAddr>().is_ok() {
        return false;
    }
    let pattern: Vec<&str> = pattern.split('.').collect();
    let host: Vec<&str> = host.split('.').collect();
    if let ["**", rest @ ..] = pattern.as_slice() {
        return host.len() > rest.len() && labels_match(rest, &host[host.len() - rest.len()..]);
    }
    labels_match(&pattern, &host)
}

fn labels_match(pattern: &[&str], host: &[&str]) -> bool {
    pattern.len() == host.len()
        && pattern.iter().zip(host).all(|(pattern, label)| !label.is_empty() && wildcard(pattern.as_bytes(), label.as_bytes()))
}

/// Whether a canonical path lies under a binding's path.
pub(super) fn path_covers(pattern: &str, path: &str) -> bool {
    let pattern = pattern.strip_suffix("/**").unwrap_or(if pattern == "**" { "" } else { pattern });
    let pattern = pattern.strip_suffix('/').unwrap_or(pattern);
    if pattern.is_empty() {
        return true;
    }
    if pattern.contains('*') {
        return wildcard(pattern.as_bytes(), path.as_bytes()) || wildcard(format!("{pattern}/*").as_bytes(), path.as_bytes());
    }
    path.strip_prefix(pattern).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `*` stands for any bytes. Linear in both, with one step back.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while t < text.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p, t));
            p += 1;
        } else if pattern.get(p) == text.get(t) {
            p += 1;
            t += 1;
        } else if let Some((star, from)) = back {
            p = star + 1;
            t = from + 1;
            back = Some((star, t));
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (pattern, host, expected) in [
            ("api.example.com", "api.example.com", true),
            ("api.example.com", "evil.api.example.com", false),
            ("*.example.com", "a.example.com", true),
            ("*.example.com", "a.b.example.com", false),
            ("*.example.com", "example.com", false),
            ("**.example.com", "a.b.example.com", true),
            ("**.example.com", "example.com", false),
            ("**.example.com", "aexample.com", false),
            ("api-*.example.com", "api-7.example.com", true),
            ("api-*.example.com", "xapi-7.example.com", false),
            ("*.0.0.1", "10.0.0.1", false),
        ] {
            assert_eq!(host_matches(pattern, host), expected, "{pattern} {host}");
        }
    }

    #[test]
    fn paths() {
        for (pattern, path, expected) in [
            ("", "/x", true),
            ("**", "/x", true),
            ("/**", "/", true),
            ("/v1", "/v1", true),
            ("/v1", "/v1/x", true),
            ("/v1", "/v10", false),
            ("/v1/**", "/v1", true),
            ("/v1/**", "/v2", false),
            ("/repos/*/x", "/repos/a/x", true),
            ("/repos/*/x", "/repos/a/y", false),
            ("/repos/*/x", "/repos/a/x/y", true),
        ] {
            assert_eq!(path_covers(pattern, path), expected, "{pattern} {path}");
        }
    }
}
