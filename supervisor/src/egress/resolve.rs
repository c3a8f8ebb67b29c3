//! The addresses of a name, from the system's own resolver.
//!
//! `/etc/hosts` comes first (its names have no trailing dot, ours do). Then `getaddrinfo(3)` is
//! asked, because it knows what the machine is set up with: name servers, mDNS, a local cache. It blocks, so it runs on a thread of the runtime's pool; the
//! number of lookups at one time is bounded by permits that each lookup holds until it has really
//! ended, even when its caller has given up on it. Answers are kept for a few seconds.

use std::{
    io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::Arc,
};

use moka::sync::Cache;
use tokio::sync::Semaphore;

use crate::limits::egress::{ADDRESSES_PER_NAME, LOOKUP_CACHE_NAMES, LOOKUP_CACHE_TIME, LOOKUP_TIME, LOOKUPS};

const HOSTS_FILE: &str = "/etc/hosts";

/// Why a name has no addresses.
#[derive(Clone, Debug, thiserror::Error)]
pub(super) enum ResolveError {
    /// The resolver says so.
    #[error("{host} could not be resolved: {reason}")]
    Failed {
        /// The name.
        host: String,
        /// The resolver's words.
        reason: String,
    },
    /// It did not answer.
    #[error("{0} could not be resolved within {time} s", time = LOOKUP_TIME.as_secs())]
    TimedOut(String),
    /// A check of every address must stay a check of every address.
    #[error("{0} has more than {ADDRESSES_PER_NAME} addresses")]
    TooMany(String),
}

/// Looks names up.
#[derive(Clone, Debug)]
pub(super) struct Resolver {
    permits: Arc<Semaphore>,
    cache: Cache<String, Arc<[IpAddr]>>,
}

impl Default for Resolver {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(LOOKUPS)),
            cache: Cache::builder().max_capacity(LOOKUP_CACHE_NAMES).time_to_live(LOOKUP_CACHE_TIME).build(),
        }
    }
}

impl Resolver {
    /// Every address of `host`, without duplicates, in the resolver's order; never empty.
    pub(super) async fn addresses(&self, host: &str) -> Result<Arc<[IpAddr]>, ResolveError> {
        if let Some(addresses) = self.cache.get(host) {
            return Ok(addresses);
        }
        let addresses = tokio::time::timeout(LOOKUP_TIME, self.ask(host.to_owned()))
            .await
            .map_err(|_| ResolveError::TimedOut(host.to_owned()))?
            .map_err(|error| ResolveError::Failed { host: host.to_owned(), reason: error.to_string() })?;
        if addresses.len() > ADDRESSES_PER_NAME {
            return Err(ResolveError::TooMany(host.to_owned()));
        }
        let addresses: Arc<[IpAddr]> = addresses.into();
        self.cache.insert(host.to_owned(), addresses.clone());
        Ok(addresses)
    }

    async fn ask(&self, host: String) -> io::Result<Vec<IpAddr>> {
        let permit = self.permits.clone().acquire_owned().await.map_err(io::Error::other)?;
        let lookup = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let hosts = std::fs::read_to_string(HOSTS_FILE).unwrap_or_default();
            let mut addresses = addresses_in(&hosts, &host);
            if addresses.is_empty() {
                // The trailing dot keeps search lists from turning the name into another one.
                let name = if host.contains('.') { format!("{host}.") } else { host };
                for address in (name.as_str(), 0).to_socket_addrs()?.map(|address| address.ip()) {
                    if !addresses.contains(&address) {
                        addresses.push(address);
                    }
                }
            }
            if addresses.is_empty() { Err(io::Error::new(io::ErrorKind::NotFound, "no addresses")) } else { Ok(addresses) }
        });
        lookup.await.map_err(io::Error::other)?
    }
}

/// The addresses that a hosts file (hosts(5)) has for a name.
fn addresses_in(file: &str, host: &str) -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    for line in file.lines() {
        let mut words = line.split('#').next().unwrap_or("").split_ascii_whitespace();
        let Some(Ok(address)) = words.next().map(str::parse) else { continue };
        if words.any(|name| name.eq_ignore_ascii_case(host)) && !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hosts_file_is_read_as_its_manual_says() {
        let file =
            "127.0.0.1 localhost # local.example\n\n10.0.0.1\tDb.example db\nfd00::1 db.example\nbad db.example\n10.0.0.1 db.example";
        assert_eq!(addresses_in(file, "db.example"), ["10.0.0.1".parse::<IpAddr>().unwrap(), "fd00::1".parse().unwrap()]);
        assert!(addresses_in(file, "local.example").is_empty());
        assert!(addresses_in(file, "b.example").is_empty());
    }

    #[tokio::test]
    async fn a_name_that_does_not_exist_is_an_error_with_its_name() {
        let error = Resolver::default().addresses("no-such-host.invalid").await.unwrap_err();
        assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
    }
}
