//! What holds for every policy, tried on generated ones.
#![allow(clippy::unwrap_used)]

use indexmap::IndexMap;
use openshell_policy::model::{AccessPreset, Binary, Endpoint, Enforcement, Matcher, NetworkPolicy, Protocol, RequestMatch, Rule, TlsMode};
use openshell_policy::{Engine, Policy, Process, RequestDecision, RequestFacts, Verdict, from_json, from_yaml};
use proptest::prelude::*;

const HOSTS: [&str; 9] = [
    "a.example.com",
    "B.example.com",
    "x.a.example.com",
    "*.example.com",
    "**.example.com",
    "a*.example.com",
    "x.*.example.com",
    "93.184.216.34",
    "",
];
const ASKED_HOSTS: [&str; 10] = [
    "a.example.com",
    "A.Example.com.",
    "b.example.com",
    "ab.example.com",
    "x.a.example.com",
    "y.z.example.com",
    "example.com",
    "evilexample.com",
    "93.184.216.34",
    "10.1.2.3",
];
const BINARIES: [&str; 5] = ["/usr/bin/curl", "/usr/bin/*", "/opt/**", "/usr/bin/py[!x]", "/usr/bin/git"];
const ASKED_BINARIES: [&str; 5] = ["/usr/bin/curl", "/usr/bin/x/y", "/opt/a/b", "/usr/bin/pyx", "/bin/sh"];
const PATHS: [&str; 8] = ["**", "/**", "/a/**", "/a/*/c", "/a/b", "/[ab]/?", "/secret/**", "/a/[!b]*"];
const SELECTORS: [&str; 5] = ["", "/a/**", "/b/**", "/a/b", "/**/c"];
const ASKED_PATHS: [&str; 9] = ["/", "/a", "/a/b", "/a/b/c", "/a/x", "/b/c", "/secret/x", "/a/ü/c", "/b"];
const METHODS: [&str; 4] = ["GET", "POST", "delete", "*"];
const ASKED_METHODS: [&str; 5] = ["GET", "HEAD", "POST", "DELETE", "get"];

fn pick(from: &'static [&'static str]) -> impl Strategy<Value = String> + Clone {
    prop::sample::select(from).prop_map(str::to_owned)
}

fn matcher() -> impl Strategy<Value = Matcher> {
    let glob = pick(&["x", "x*", "*", "[ab]", "refs/private/*"]);
    prop_oneof![glob.clone().prop_map(Matcher::Glob), proptest::collection::vec(glob, 1..3).prop_map(Matcher::Any)]
}

fn request_match() -> impl Strategy<Value = RequestMatch> {
    let query = proptest::collection::btree_map(pick(&["q", "r"]), matcher(), 0..2);
    (pick(&METHODS), pick(&PATHS), query).prop_map(|(method, path, query)| RequestMatch {
        method: Some(method),
        path: Some(path),
        query: query.into_iter().collect(),
        ..RequestMatch::default()
    })
}

/// Endpoints of one file share what endpoints with a common host have to agree on, so that most
/// generated files are valid; the others are thrown away.
fn endpoint(enforcement: Enforcement, slash: bool, networks: Vec<String>) -> impl Strategy<Value = Endpoint> {
    let rules = prop_oneof![
        prop::sample::select(vec![AccessPreset::ReadOnly, AccessPreset::ReadWrite, AccessPreset::Full])
            .prop_map(|preset| (Some(preset), None)),
        proptest::collection::vec(request_match().prop_map(|allow| Rule { allow: Some(allow) }), 1..4)
            .prop_map(|rules| (None, Some(rules))),
    ];
    let deny = prop::option::of(proptest::collection::vec(request_match(), 1..3));
    let ports = proptest::collection::vec(prop::sample::select(vec![443u16, 80, 8443]), 1..3);
    (pick(&HOSTS), ports, prop::bool::weighted(0.7), pick(&SELECTORS), rules, deny).prop_map(
        move |(host, ports, rest, path, (access, rules), deny_rules)| {
            let mut endpoint = Endpoint { host, ports, allowed_ips: networks.clone(), ..Endpoint::default() };
            if rest {
                endpoint.protocol = Protocol::Rest;
                endpoint.allow_encoded_slash = slash;
                endpoint.enforcement = enforcement;
                endpoint.path = path;
                endpoint.access = access;
                endpoint.rules = rules;
                endpoint.deny_rules = deny_rules;
            }
            endpoint
        },
    )
}

fn policy() -> impl Strategy<Value = Policy> {
    let networks = prop::sample::select(vec![vec![], vec!["10.0.0.0/8".to_owned(), "93.184.216.34".to_owned()]]);
    let enforcement = prop::sample::select(vec![Enforcement::Enforce, Enforcement::Audit]);
    let shared = (enforcement, any::<bool>(), networks, any::<bool>());
    shared.prop_flat_map(|(enforcement, slash, networks, skip)| {
        let network = (
            prop::option::of(pick(&["alpha", "zeta", "shared"])),
            proptest::collection::vec(endpoint(enforcement, slash, networks), 0..4),
            proptest::collection::vec(pick(&BINARIES).prop_map(|path| Binary { path, harness: None }), 0..3),
        );
        let network = network.prop_map(|(name, endpoints, binaries)| NetworkPolicy { name, endpoints, binaries });
        proptest::collection::btree_map(pick(&["one", "two", "three", "a.b"]), network, 0..4).prop_filter_map("valid", move |networks| {
            let mut policy = Policy { version: 1, network_policies: networks.into_iter().collect(), ..Policy::default() };
            if skip {
                for endpoint in policy.network_policies.values_mut().flat_map(|n| &mut n.endpoints) {
                    if endpoint.protocol == Protocol::Opaque {
                        endpoint.tls = TlsMode::Skip;
                        endpoint.allow_uninspected_credentials = true;
                    }
                }
            }
            policy.validate().ok().map(|()| policy.normalized())
        })
    })
}

#[derive(Clone, Debug)]
struct Question {
    path: String,
    ancestors: Vec<String>,
    host: String,
    port: u16,
    method: String,
    request_path: String,
    query: Vec<(String, String)>,
}

impl Question {
    fn process(&self) -> Process<'_> {
        Process { path: &self.path, ancestors: &self.ancestors }
    }

    fn facts(&self) -> RequestFacts<'_> {
        RequestFacts { method: &self.method, path: &self.request_path, query: &self.query }
    }

    fn ask(&self, engine: &Engine) -> RequestDecision {
        engine.request(self.process(), &self.host, self.port, self.facts())
    }
}

fn question() -> impl Strategy<Value = Question> {
    (
        pick(&ASKED_BINARIES),
        proptest::collection::vec(pick(&ASKED_BINARIES), 0..3),
        pick(&ASKED_HOSTS),
        prop::sample::select(vec![443u16, 80, 8443, 22]),
        pick(&ASKED_METHODS),
        pick(&ASKED_PATHS),
        proptest::collection::vec((pick(&["q", "r", "s"]), pick(&["x", "xy", "a", "refs/private/b", ""])), 0..3),
    )
        .prop_map(|(path, ancestors, host, port, method, request_path, query)| Question {
            path,
            ancestors,
            host,
            port,
            method,
            request_path,
            query,
        })
}

fn questions() -> impl Strategy<Value = Vec<Question>> {
    proptest::collection::vec(question(), 8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, max_global_rejects: 60_000, max_local_rejects: 60_000, ..ProptestConfig::default() })]

    /// The index says what the rules in Rego say, to the last word.
    #[test]
    fn index_and_rules_agree(policy in policy(), questions in questions()) {
        let engine = Engine::compile(&policy).unwrap();
        let authority = engine.authority().unwrap();
        for question in questions {
            let rules = authority.connect(question.process(), &question.host, question.port).unwrap();
            prop_assert_eq!(engine.connect(question.process(), &question.host, question.port), rules);
            let rules = authority.request(question.process(), &question.host, question.port, question.facts()).unwrap();
            prop_assert_eq!(question.ask(&engine), rules);
        }
    }

    /// A request needs a connection, and an inspected connection needs its request allowed.
    #[test]
    fn no_request_without_a_connection(policy in policy(), questions in questions()) {
        let engine = Engine::compile(&policy).unwrap();
        for question in questions {
            let connection = engine.connect(question.process(), &question.host, question.port);
            prop_assert!(connection.verdict != Verdict::Audit);
            prop_assert_eq!(connection.verdict == Verdict::Allow, connection.endpoint.is_some());
            if connection.verdict == Verdict::Deny {
                prop_assert_eq!(question.ask(&engine).verdict, Verdict::Deny);
            } else {
                prop_assert!(engine.resolvable(&question.host));
            }
        }
    }

    /// Another deny rule never allows more.
    #[test]
    fn a_deny_rule_never_allows_more(policy in policy(), deny in request_match(), at in any::<prop::sample::Index>(), questions in questions()) {
        let mut narrower = policy.clone();
        let mut inspected: Vec<&mut Endpoint> =
            narrower.network_policies.values_mut().flat_map(|n| &mut n.endpoints).filter(|e| e.is_inspected()).collect();
        if inspected.is_empty() {
            return Ok(());
        }
        let i = at.index(inspected.len());
        inspected[i].deny_rules.get_or_insert_default().push(deny);
        let (before, after) = (Engine::compile(&policy).unwrap(), Engine::compile(&narrower).unwrap());
        for question in questions {
            let (before, after) = (question.ask(&before), question.ask(&after));
            prop_assert!(after.verdict != Verdict::Allow || before.verdict == Verdict::Allow, "{before:?} became {after:?}");
        }
    }

    /// A policy without endpoints changes no decision.
    #[test]
    fn nothing_added_changes_nothing(policy in policy(), questions in questions()) {
        let mut more = policy.clone();
        more.network_policies.insert("zz-nothing".to_owned(), NetworkPolicy { binaries: vec![Binary { path: "/**".to_owned(), harness: None }], ..NetworkPolicy::default() });
        let (before, after) = (Engine::compile(&policy).unwrap(), Engine::compile(&more).unwrap());
        for question in questions {
            prop_assert_eq!(question.ask(&before).verdict, question.ask(&after).verdict);
            prop_assert_eq!(
                before.connect(question.process(), &question.host, question.port).endpoint,
                after.connect(question.process(), &question.host, question.port).endpoint
            );
        }
    }

    /// The canonical form is a fixed point, means the same, and does not depend on spelling.
    #[test]
    fn the_canonical_form_is_one(policy in policy()) {
        let canonical = policy.canonical_json();
        let back = from_json(&canonical).unwrap();
        prop_assert_eq!(&back, &policy);
        prop_assert_eq!(back.canonical_json(), canonical.clone());
        prop_assert_eq!(back.hash(), policy.hash());

        let pretty = serde_json::to_string_pretty(&reversed(serde_json::from_slice(&canonical).unwrap())).unwrap();
        prop_assert_eq!(from_yaml(&pretty).unwrap().hash(), policy.hash());

        let mut spelt = policy.clone();
        spelt.landlock = Some(openshell_policy::model::LandlockPolicy::default());
        spelt.network_policies = spelt.network_policies.into_iter().rev().collect::<IndexMap<_, _>>();
        for (key, network) in &mut spelt.network_policies {
            network.name.get_or_insert_with(|| key.clone());
            for endpoint in &mut network.endpoints {
                endpoint.host = endpoint.host.to_uppercase();
                endpoint.ports = endpoint.all_ports().into_iter().rev().collect();
                endpoint.port = None;
                endpoint.allowed_ips.reverse();
            }
        }
        prop_assert_eq!(spelt.hash(), policy.hash());
    }

    /// Whatever the text, the answer is a valid policy or a finding with a place in the text.
    #[test]
    fn broken_texts_are_refused_with_a_place(policy in policy(), cut in any::<prop::sample::Index>(), noise in "[ -~\n\t{}\\[\\]:&*!|>'\"]{0,6}") {
        let mut text = serde_json::to_string_pretty(&serde_json::from_slice::<serde_json::Value>(&policy.canonical_json()).unwrap()).unwrap();
        let at = cut.index(text.len());
        text.insert_str(at, &noise);
        match from_yaml(&text) {
            Ok(policy) => policy.validate().unwrap(),
            Err(error) => {
                prop_assert!(!error.findings.is_empty());
                for finding in error.findings {
                    prop_assert!(finding.code == "more" || finding.line.is_some_and(|l| l >= 1 && l <= text.lines().count() + 1), "{finding}");
                }
            }
        }
    }

    /// No text makes the parser panic.
    #[test]
    fn any_text_is_answered(text in "\\PC{0,200}") {
        let _ = from_yaml(&text);
        let _ = from_json(text.as_bytes());
    }
}

/// The same data with every object's keys in the opposite order.
fn reversed(value: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match value {
        Value::Object(map) => Value::Object(map.into_iter().rev().map(|(key, value)| (key, reversed(value))).collect()),
        Value::Array(items) => Value::Array(items.into_iter().map(reversed).collect()),
        other => other,
    }
}
