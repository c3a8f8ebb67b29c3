//! Is a request meant for this gateway?
//!
//! A web page can make a browser send requests to a loopback address, under a name of the
//! page's own (DNS rebinding) or across origins. Neither carries our client certificate by
//! accident, but a browser that has it installed would present it; so the names are checked.

use http::{HeaderMap, Uri, header};

/// Names and addresses under which the gateway answers.
#[derive(Clone, Debug)]
pub struct Hosts(Vec<String>);

impl Hosts {
    /// `*.` stands for one or more labels.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().map(|n| n.to_ascii_lowercase()).collect())
    }

    fn known(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        self.0.iter().any(|name| match name.strip_prefix("*.") {
            Some(suffix) => host.strip_suffix(suffix).is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
            None => *name == host,
        })
    }

    /// Why the request is not for us; `None` when it is.
    pub fn foreign(&self, uri: &Uri, headers: &HeaderMap) -> Option<String> {
        let authority = match (uri.authority(), headers.get(header::HOST)) {
            (Some(authority), _) => authority.host().to_owned(),
            (None, Some(host)) => match host.to_str().ok().and_then(|h| h.parse::<http::uri::Authority>().ok()) {
                Some(authority) => authority.host().to_owned(),
                None => return Some("the Host header cannot be read".to_owned()),
            },
            (None, None) => return Some("the request names no host".to_owned()),
        };
        if !self.known(&authority) {
            return Some(format!("this gateway does not answer for '{authority}'; --server-san adds a name"));
        }
        for origin in headers.get_all(header::ORIGIN) {
            let host = origin.to_str().ok().and_then(|o| o.parse::<Uri>().ok()).and_then(|u| u.host().map(str::to_owned));
            if !host.is_some_and(|host| self.known(&host)) {
                return Some("requests from pages of another origin are refused".to_owned());
            }
        }
        None
    }
}
