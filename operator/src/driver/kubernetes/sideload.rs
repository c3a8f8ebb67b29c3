//! How the supervisor gets into a pod: by evidence, never by hope.
//!
//! An image volume costs nothing at start, and a pod that asks for one where it is not to be had
//! never starts. It is taken only if the server, every node where the pod may land, and the
//! runtime are known to have it; anything that is not known is a reason for the init container,
//! which works everywhere. What each version can do: KEP-4639 and the release notes of
//! containerd (2.1.0) and CRI-O (1.31.0).

use std::collections::BTreeMap;

use openshell_crds::pod::{SideloadMethod, TaintEffect, Toleration, TolerationOperator};

use super::nodes::NodeFacts;

/// The server and every kubelet must be this new: the first release where the feature is on.
const KUBERNETES: Version = Version(1, 35);
/// containerd must be this new.
const CONTAINERD: Version = Version(2, 1);
/// CRI-O must be this new.
const CRI_O: Version = Version(1, 31);
/// Handlers of a `RuntimeClass` that start containers as the node's default runtime does.
const ORDINARY: [&str; 3] = ["runc", "crun", "youki"];
/// Handlers whose kernel has no seccomp user notification, by which every connection of the agent
/// is decided.
const WITHOUT_NOTIFICATION: [&str; 3] = ["runsc", "gvisor", "wasm"];

/// Major and minor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

impl Version {
    /// Of `v1.36.2`, `1.36+` or `2.1.0-rc.1`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut parts = text.trim_start_matches('v').split('.');
        let number = |part: Option<&str>| {
            let part = part?;
            let digits = part.find(|c: char| !c.is_ascii_digit()).map_or(part, |end| &part[..end]);
            digits.parse().ok()
        };
        Some(Self(number(parts.next())?, number(parts.next())?))
    }
}

/// The `RuntimeClass` of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Runtime {
    /// None: the node's default.
    #[default]
    Default,
    /// Its handler, and the labels that its nodes have.
    Handler(String, BTreeMap<String, String>),
    /// It could not be read.
    Unknown,
}

/// What is known.
#[derive(Clone, Debug)]
pub(super) struct Evidence<'a> {
    /// Version of the API server.
    pub(super) server: Option<Version>,
    /// The nodes, if they can be seen.
    pub(super) nodes: Option<&'a [NodeFacts]>,
    /// The runtime.
    pub(super) runtime: Runtime,
}

/// Whether a sandbox can run there at all.
pub(super) fn unsupported(runtime: &Runtime) -> Option<String> {
    match runtime {
        Runtime::Handler(handler, _) if WITHOUT_NOTIFICATION.iter().any(|known| handler.starts_with(known)) => Some(handler.clone()),
        _ => None,
    }
}

/// The method, and why not the other one.
pub(super) fn decide(
    asked: Option<SideloadMethod>,
    selector: &BTreeMap<String, String>,
    tolerations: &[Toleration],
    evidence: &Evidence<'_>,
) -> (SideloadMethod, String) {
    match asked {
        Some(method) => (method, "the gateway's sandboxDefaults say so".to_owned()),
        None => match against_image_volume(selector, tolerations, evidence) {
            None => (SideloadMethod::ImageVolume, "the server and every node that the pod may land on have image volumes".to_owned()),
            Some(why) => (SideloadMethod::InitContainer, why),
        },
    }
}

/// The first thing that speaks against an image volume.
fn against_image_volume(selector: &BTreeMap<String, String>, tolerations: &[Toleration], evidence: &Evidence<'_>) -> Option<String> {
    match evidence.server {
        Some(version) if version >= KUBERNETES => {}
        Some(Version(major, minor)) => return Some(format!("the API server is {major}.{minor}; image volumes are on from 1.35")),
        None => return Some("the version of the API server is not known".to_owned()),
    }
    let mut wanted: Vec<(&String, &String)> = selector.iter().collect();
    match &evidence.runtime {
        Runtime::Default => {}
        Runtime::Handler(handler, nodes) if ORDINARY.contains(&handler.as_str()) => wanted.extend(nodes),
        Runtime::Handler(handler, _) => return Some(format!("the runtime \"{handler}\" is not known to have image volumes")),
        Runtime::Unknown => return Some("the RuntimeClass could not be read".to_owned()),
    }
    let Some(nodes) = evidence.nodes else { return Some("the nodes cannot be seen".to_owned()) };
    let mut candidates = nodes
        .iter()
        .filter(|node| wanted.iter().all(|(key, value)| node.labels.get(*key) == Some(value)))
        .filter(|node| node.taints.iter().all(|taint| tolerations.iter().any(|toleration| tolerates(toleration, taint))))
        .peekable();
    if candidates.peek().is_none() {
        return Some("no node is there yet that the pod may land on".to_owned());
    }
    candidates.find_map(|node| {
        if node.kubelet.is_none_or(|version| version < KUBERNETES) {
            return Some(format!("the kubelet of node {} is older than 1.35", node.name));
        }
        let (runtime, version) = node.runtime.split_once("://").unwrap_or((&node.runtime, ""));
        let floor = match runtime {
            "containerd" => CONTAINERD,
            "cri-o" => CRI_O,
            _ => return Some(format!("the runtime of node {}, {}, is not known to have image volumes", node.name, node.runtime)),
        };
        Version::parse(version)
            .is_none_or(|version| version < floor)
            .then(|| format!("the runtime of node {}, {}, is too old for image volumes", node.name, node.runtime))
    })
}

/// A taint that keeps pods away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Taint {
    pub(super) key: String,
    pub(super) value: String,
    pub(super) effect: TaintEffect,
}

/// Whether a toleration matches a taint (`k8s.io/component-helpers/scheduling/corev1`).
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    toleration.effect.is_none_or(|effect| effect == taint.effect)
        && (toleration.key.is_empty() || toleration.key == taint.key)
        && match toleration.operator.unwrap_or_default() {
            TolerationOperator::Exists => true,
            TolerationOperator::Equal => toleration.value == taint.value,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, kubelet: &str, runtime: &str) -> NodeFacts {
        NodeFacts { name: name.into(), kubelet: Version::parse(kubelet), runtime: runtime.into(), ..NodeFacts::default() }
    }

    fn decided(server: &str, nodes: Option<&[NodeFacts]>, runtime: Runtime) -> (SideloadMethod, String) {
        decide(None, &BTreeMap::new(), &[], &Evidence { server: Version::parse(server), nodes, runtime })
    }

    #[test]
    fn versions() {
        assert_eq!(Version::parse("v1.36.2"), Some(Version(1, 36)));
        assert_eq!(Version::parse("1.35+"), Some(Version(1, 35)));
        assert_eq!(Version::parse("2.1.0-rc.1"), Some(Version(2, 1)));
        assert_eq!(Version::parse("v1"), None);
        assert_eq!(Version::parse(""), None);
    }

    #[test]
    fn an_image_volume_needs_all_of_the_evidence() {
        let good = [node("a", "v1.36.0", "containerd://2.2.1"), node("b", "v1.35.4", "cri-o://1.33.0")];
        assert_eq!(decided("v1.36.0", Some(&good), Runtime::Default).0, SideloadMethod::ImageVolume);
        let runc = Runtime::Handler("runc".into(), BTreeMap::new());
        assert_eq!(decided("v1.36.0", Some(&good), runc).0, SideloadMethod::ImageVolume);
        for (what, server, nodes, runtime, why) in [
            ("an old server", "v1.34.1", Some(&good[..]), Runtime::Default, "1.34"),
            ("an unknown server", "", Some(&good[..]), Runtime::Default, "not known"),
            ("unseen nodes", "v1.36.0", None, Runtime::Default, "cannot be seen"),
            ("no node", "v1.36.0", Some(&[][..]), Runtime::Default, "no node"),
            ("an unread class", "v1.36.0", Some(&good[..]), Runtime::Unknown, "could not be read"),
            ("kata", "v1.36.0", Some(&good[..]), Runtime::Handler("kata-qemu".into(), BTreeMap::new()), "kata-qemu"),
        ] {
            let (method, because) = decided(server, nodes, runtime);
            assert_eq!(method, SideloadMethod::InitContainer, "{what}");
            assert!(because.contains(why), "{what}: {because}");
        }
        for bad in [
            node("c", "v1.34.0", "containerd://2.2.1"),
            node("c", "v1.36.0", "containerd://1.7.28"),
            node("c", "v1.36.0", "containerd://2.0.4"),
            node("c", "v1.36.0", "cri-o://1.30.1"),
            node("c", "v1.36.0", "docker://28.0.0"),
            node("c", "", ""),
        ] {
            let nodes = [good[0].clone(), bad.clone()];
            let (method, because) = decided("v1.36.0", Some(&nodes), Runtime::Default);
            assert_eq!(method, SideloadMethod::InitContainer, "{bad:?}");
            assert!(because.contains("node c"), "{because}");
        }
    }

    #[test]
    fn only_nodes_where_the_pod_may_land_count() {
        let mut old = node("old", "v1.30.0", "containerd://1.6.0");
        old.labels.insert("pool".into(), "old".into());
        let mut new = node("new", "v1.36.0", "containerd://2.3.0");
        new.labels.insert("pool".into(), "new".into());
        let nodes = [old.clone(), new.clone()];
        let evidence = Evidence { server: Some(Version(1, 36)), nodes: Some(&nodes), runtime: Runtime::Default };
        let selector = BTreeMap::from([("pool".to_owned(), "new".to_owned())]);
        assert_eq!(decide(None, &selector, &[], &evidence).0, SideloadMethod::ImageVolume);
        assert_eq!(decide(None, &BTreeMap::new(), &[], &evidence).0, SideloadMethod::InitContainer);

        old.taints.push(Taint { key: "dedicated".into(), value: "db".into(), effect: TaintEffect::NoSchedule });
        let nodes = [old, new];
        let evidence = Evidence { server: Some(Version(1, 36)), nodes: Some(&nodes), runtime: Runtime::Default };
        assert_eq!(decide(None, &BTreeMap::new(), &[], &evidence).0, SideloadMethod::ImageVolume, "its taint keeps the pod away");
        let anywhere = Toleration { operator: Some(TolerationOperator::Exists), ..Toleration::default() };
        assert_eq!(decide(None, &BTreeMap::new(), &[anywhere], &evidence).0, SideloadMethod::InitContainer);
        let other = Toleration { key: "dedicated".into(), value: "web".into(), ..Toleration::default() };
        assert_eq!(decide(None, &BTreeMap::new(), &[other], &evidence).0, SideloadMethod::ImageVolume);
    }

    #[test]
    fn whoever_says_so_has_it() {
        let evidence = Evidence { server: None, nodes: None, runtime: Runtime::Unknown };
        for method in [SideloadMethod::ImageVolume, SideloadMethod::InitContainer] {
            assert_eq!(decide(Some(method), &BTreeMap::new(), &[], &evidence).0, method);
        }
    }

    #[test]
    fn runtimes_that_cannot_notify_are_named() {
        assert_eq!(unsupported(&Runtime::Handler("runsc-kvm".into(), BTreeMap::new())).as_deref(), Some("runsc-kvm"));
        assert_eq!(unsupported(&Runtime::Handler("kata".into(), BTreeMap::new())), None);
        assert_eq!(unsupported(&Runtime::Default), None);
    }
}
