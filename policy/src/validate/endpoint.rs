//! One endpoint: where it is, and which of its keys go together.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{Report, address, rules, unsupported};
use crate::glob::PathSelector;
use crate::host::{HostError, HostPattern};
use crate::model::{Endpoint, Protocol, TlsMode, parse_network};

pub(super) fn validate(endpoint: &Endpoint, report: &mut Report<'_>) {
    let networks = validate_networks(endpoint, report);
    validate_host(endpoint, &networks, report);
    validate_ports(endpoint, report);
    unsupported::endpoint(endpoint, report);
    match endpoint.protocol {
        Protocol::Opaque | Protocol::Tcp => validate_uninspected(endpoint, report),
        Protocol::Rest => {
            validate_path(endpoint, report);
            if endpoint.tls == TlsMode::Skip {
                report.at(
                    "tls",
                    "conflicting-keys",
                    "requests inside TLS that is not terminated cannot be looked at; leave out `tls: skip` or `protocol`",
                );
            }
            if endpoint.allow_uninspected_credentials {
                report.at("allow_uninspected_credentials", "no-effect", "every request on this endpoint is looked at; leave it out");
            }
            rules::validate(endpoint, report);
        }
        // Refused as a whole; what their keys would have to look like comes with them.
        Protocol::Websocket | Protocol::Graphql | Protocol::Sql | Protocol::JsonRpc | Protocol::Mcp => {}
    }
}

fn validate_host(endpoint: &Endpoint, networks: &[IpNet], report: &mut Report<'_>) {
    match HostPattern::parse(&endpoint.host) {
        Ok(HostPattern::Address(address)) => validate_address(address, networks, report),
        Ok(HostPattern::Name(name)) => {
            if name == "localhost" || name.ends_with(".localhost") {
                report.at("host", "unreachable-host", "loopback is private to the sandbox and never leaves it; no grant is needed for it");
            }
        }
        Ok(HostPattern::Wildcard(_)) => {}
        Err(HostError::Empty) if !endpoint.allowed_ips.is_empty() => {}
        Err(e @ HostError::Empty) => report.at("host", "missing-host", e.to_string()),
        Err(e) => report.at("host", "invalid-host", format!("`{}`: {e}", crate::document::shortened(&endpoint.host))),
    }
}

fn validate_address(host: IpAddr, networks: &[IpNet], report: &mut Report<'_>) {
    if let Some(what) = address::never(IpNet::from(host)) {
        report.at("host", "forbidden-address", format!("{host} is {what}: it is never reachable from a sandbox"));
    } else if networks.is_empty() && address::is_private(host) {
        report.at("host", "private-address", format!("{host} is not public; add `allowed_ips: [{host}]` to reach it"));
    } else if !networks.is_empty() && !networks.iter().any(|net| net.contains(&host)) {
        report.at("allowed_ips", "conflicting-keys", format!("none of them contains the host {host}; add it or leave `allowed_ips` out"));
    }
}

fn validate_networks(endpoint: &Endpoint, report: &mut Report<'_>) -> Vec<IpNet> {
    let mut report = report.key("allowed_ips");
    let mut networks = Vec::new();
    for (i, text) in endpoint.allowed_ips.iter().enumerate() {
        let Some(network) = parse_network(text) else {
            let message = format!("`{}` is no address or network; write `10.20.0.0/16` or `10.20.0.7`", crate::document::shortened(text));
            report.index(i).here("invalid-network", message);
            continue;
        };
        if let Some(what) = address::never(network) {
            let message = format!("{network} overlaps {what} addresses, which are never reachable from a sandbox; name narrower networks");
            report.index(i).here("forbidden-address", message);
        }
        networks.push(network);
    }
    networks
}

fn validate_ports(endpoint: &Endpoint, report: &mut Report<'_>) {
    if endpoint.port.is_some() && !endpoint.ports.is_empty() {
        report.at("port", "conflicting-keys", "`port` and `ports` are both there; write all of them into `ports`");
    }
    if endpoint.all_ports().is_empty() {
        report.at("port", "missing-port", "name a port with `port`, or several with `ports`");
    }
    if endpoint.all_ports().contains(&0) {
        report.at("port", "out-of-range", "0 is not a port; use 1 to 65535");
    }
}

fn validate_path(endpoint: &Endpoint, report: &mut Report<'_>) {
    let path = &endpoint.path;
    if !path.is_empty() && !path.starts_with('/') && !path.starts_with("**") {
        report.at("path", "invalid-path", format!("`{}` has to begin with `/` or `**`", crate::document::shortened(path)));
    }
    if let Err(e) = PathSelector::parse(path) {
        report.at("path", "invalid-glob", e.to_string());
    }
}

/// Without a protocol that is looked at, keys about requests could not be enforced.
fn validate_uninspected(endpoint: &Endpoint, report: &mut Report<'_>) {
    let about_requests = [
        (!endpoint.path.is_empty(), "path"),
        (endpoint.access.is_some(), "access"),
        (endpoint.rules.is_some(), "rules"),
        (endpoint.deny_rules.is_some(), "deny_rules"),
        (endpoint.allow_encoded_slash, "allow_encoded_slash"),
    ];
    for (_, key) in about_requests.into_iter().filter(|(set, _)| *set) {
        let message = if endpoint.protocol == Protocol::Tcp {
            "is about requests, which nobody looks at with `protocol: tcp`; leave it out or use `protocol: rest`"
        } else {
            "is about requests, which are only looked at with a protocol; add `protocol: rest` or leave it out"
        };
        report.at(key, "needs-protocol", message);
    }
    if endpoint.protocol == Protocol::Tcp && endpoint.tls == TlsMode::Skip {
        report.at(
            "tls",
            "conflicting-keys",
            "`protocol: tcp` is relayed as it is; leave out `tls`, or `protocol` to have the server name checked",
        );
    }
}
