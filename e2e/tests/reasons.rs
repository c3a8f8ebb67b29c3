//! `docs/kubernetes.md` explains every condition and every reason, and none that there is not.
//!
//! A reason is a string in UpperCamelCase where a condition is made, or where what becomes one is:
//! the plan, the driver, blueprints, sessions, a supervisor's failures. So every string literal of that
//! form in those places is a reason, unless [`NOT_REASONS`] says what else it is. Whoever adds one has
//! to decide: a row of the page, or an entry here. Both lists are compared in both directions, so
//! neither keeps what is gone.
//!
//! Not looked at, because no condition of a cluster has it: the process driver, and the gateway
//! object of a local gateway.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Heading of the page, and where the reasons below it come from: files, or directories of them.
const KINDS: [(&str, &[&str]); 4] = [
    (
        "Sandboxes",
        &[
            "operator/src/reconcile",
            "operator/src/driver/kubernetes",
            "operator/src/blueprint",
            "operator/src/controllers/desired.rs",
            "gateway/src/session",
            "supervisor/src/app",
            "supervisor/src/confine",
            "supervisor/src/process",
            "supervisor/src/sandbox.rs",
        ],
    ),
    ("Policies", &["operator/src/controllers/policy.rs"]),
    ("Providers", &["operator/src/controllers/provider.rs"]),
    ("Gateways", &["operator/src/controllers/deployment"]),
];

/// Functions whose `Reason` is passed on to the condition of another kind than the sandbox.
const PASSED_ON: [(&str, &str, &str); 9] = [
    ("Policies", "operator/src/blueprint/error.rs", "fn unreadable("),
    ("Providers", "operator/src/blueprint/error.rs", "fn unreadable("),
    ("Gateways", "operator/src/blueprint/error.rs", "fn unreadable("),
    ("Policies", "operator/src/blueprint/policy.rs", "fn parse_policy("),
    ("Providers", "operator/src/blueprint/provider.rs", "fn check_provider("),
    ("Providers", "operator/src/blueprint/provider.rs", "fn twice("),
    ("Providers", "operator/src/blueprint/environment.rs", "fn valid("),
    ("Providers", "operator/src/blueprint/environment.rs", "fn valid_credential_name("),
    ("Providers", "operator/src/blueprint/environment.rs", "fn valid_name("),
];

/// What has the form of a reason in a file, and is none of a condition in a cluster.
const NOT_REASONS: [(&str, &[&str]); 15] = [
    // What agent-sandbox, scheduler and kubelet say, as it is read.
    (
        "operator/src/driver/kubernetes/view.rs",
        &[
            "ConfigPodSandboxError",
            "ContainerCannotRun",
            "CreateContainerConfigError",
            "CreateContainerError",
            "CreatePodSandboxError",
            "DisruptionTarget",
            "ErrImageNeverPull",
            "ErrImagePull",
            "Failed",
            "False",
            "ImageInspectError",
            "ImagePullBackOff",
            "InvalidConfiguration",
            "InvalidImageName",
            "OOMKilled",
            "PodScheduled",
            "ReconcilerError",
            "RegistryUnavailable",
            "RunContainerError",
            "Running",
            "SandboxSuspended",
            "StartError",
            "Succeeded",
            "True",
        ],
    ),
    (
        "operator/src/controllers/deployment/verdict.rs",
        &[
            "CrashLoopBackOff",
            "CreateContainerConfigError",
            "CreateContainerError",
            "ErrImageNeverPull",
            "ErrImagePull",
            "False",
            "ImageInspectError",
            "ImagePullBackOff",
            "InvalidImageName",
            "OOMKilled",
            "PodScheduled",
            "PreCreateHookError",
            "ProgressDeadlineExceeded",
            "Progressing",
            "RegistryUnavailable",
            "ReplicaFailure",
            "RunContainerError",
            "True",
        ],
    ),
    // Values of fields that are written or read.
    ("operator/src/driver/kubernetes/nodes.rs", &["NoExecute", "NoSchedule"]),
    ("operator/src/driver/kubernetes/network.rs", &["Egress", "Ingress"]),
    (
        "operator/src/driver/kubernetes/render.rs",
        &["ClusterFirst", "FallbackToLogsOnError", "Never", "OnRootMismatch", "ReadWriteOnce", "RuntimeDefault"],
    ),
    ("operator/src/controllers/deployment/render.rs", &["ReadWriteOnce", "Recreate", "RuntimeDefault"]),
    ("operator/src/controllers/deployment/secrets.rs", &["Opaque"]),
    // Of Events alone.
    (
        "operator/src/controllers/deployment/events.rs",
        &["AuthorityChanged", "CertificateIssued", "DeployGateway", "IssueKeys", "TokenKeyMade"],
    ),
    // Only a local gateway looks at Secrets for a provider.
    ("operator/src/controllers/provider.rs", &["SecretKeyNotFound", "SecretNotFound", "SecretNotLabelled"]),
    // Told to a supervisor that has no session, and to nobody else.
    ("gateway/src/session/sandbox.rs", &["Superseded"]),
    ("gateway/src/session/service.rs", &["SandboxNotFound"]),
    ("gateway/src/session/watch.rs", &["NotReady"]),
    // Only of a supervisor that runs its agent as another user: none in a pod.
    ("supervisor/src/confine/domain.rs", &["PtraceCapability", "RunAsRefused"]),
    // Tried again with fewer namespaces.
    ("supervisor/src/confine/namespaces.rs", &["NamespaceUnavailable"]),
    // Answers to a command or an attachment.
    ("supervisor/src/sandbox.rs", &["NoMainProcess", "NotRunning"]),
];

/// Where Events are made that are no condition's turn.
const EVENTS: [&str; 3] =
    ["operator/src/controllers/events.rs", "operator/src/controllers/sandbox.rs", "operator/src/controllers/deployment/events.rs"];

type Names = BTreeSet<String>;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Sources at `path` below the root, without those that are tests.
fn sources(path: &str) -> Vec<String> {
    if Path::new(path).extension().is_some() {
        return vec![path.to_owned()];
    }
    let entries = fs::read_dir(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let is_test = |name: &str| name.trim_end_matches(".rs").ends_with("tests");
    names.iter().filter(|name| !is_test(name)).flat_map(|name| sources(&format!("{path}/{name}"))).collect()
}

/// UpperCamelCase, and no abbreviation.
fn is_camel(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_uppercase())
        && text.chars().all(|c| c.is_ascii_alphabetic())
        && text.contains(|c: char| c.is_ascii_lowercase())
}

/// String literals in UpperCamelCase, outside of comments and tests. Between two literals there is
/// always something else, so that whatever stands alone between two quotation marks is one.
fn literals(source: &str) -> Names {
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.flat_map(|line| line.split('"')).filter(|text| is_camel(text)).map(str::to_owned).collect()
}

/// `Reason::…` in the body of a function.
fn reasons_of(path: &str, function: &str) -> Names {
    let source = read(path);
    let (_, rest) = source.split_once(function).unwrap_or_else(|| panic!("{path} has no `{function}`"));
    let body = rest.split("\n}\n").next().unwrap_or_default();
    let names = body.split("Reason::").skip(1);
    names.map(|text| text.chars().take_while(char::is_ascii_alphanumeric).collect()).collect()
}

/// What the code can say of each kind.
fn of_code() -> BTreeMap<&'static str, Names> {
    let not = |path: &str| NOT_REASONS.iter().find(|(file, _)| *file == path).map_or(&[][..], |(_, names)| names);
    let mut all = BTreeMap::new();
    for (kind, places) in KINDS {
        let mut reasons = Names::new();
        for path in places.iter().flat_map(|place| sources(place)) {
            let found = literals(&read(&path));
            reasons.extend(found.into_iter().filter(|reason| !not(&path).contains(&reason.as_str())));
        }
        let passed_on = PASSED_ON.iter().filter(|(of, ..)| *of == kind);
        reasons.extend(passed_on.flat_map(|(_, path, function)| reasons_of(path, function)));
        all.insert(kind, reasons);
    }
    all
}

/// The part of the page below a heading, up to the next of its level.
fn below<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("the page has no \"{heading}\""));
    let (level, _) = heading.split_once(' ').unwrap();
    let ends = ["\n## ".to_owned(), format!("\n{level} ")];
    let end = ends.iter().filter_map(|end| rest.find(end.as_str())).min();
    &rest[..end.unwrap_or(rest.len())]
}

/// The rows of all tables that have a column of this name: that cell, and all cells.
fn rows<'a>(part: &'a str, column: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut at = None;
    let mut in_table = false;
    let mut rows = Vec::new();
    for line in part.lines() {
        let Some(inner) = line.strip_prefix('|').and_then(|line| line.strip_suffix('|')) else {
            in_table = false;
            continue;
        };
        let cells: Vec<&str> = inner.split('|').map(str::trim).collect();
        if !in_table {
            at = cells.iter().position(|cell| *cell == column);
            in_table = true;
        } else if let Some(at) = at
            && !inner.starts_with("--")
        {
            rows.push((cells[at], cells));
        }
    }
    rows
}

/// Names in code font; `OutOf*` is every reason that begins so.
fn named(cell: &str) -> impl Iterator<Item = String> + '_ {
    cell.split('`').skip(1).step_by(2).map(|name| name.trim_end_matches('*')).filter(|name| is_camel(name)).map(str::to_owned)
}

fn page() -> String {
    let page = read("docs/kubernetes.md");
    below(&page, "## When something does not work").to_owned()
}

/// Conditions by their constants.
fn conditions() -> Names {
    let source = read("crds/src/conditions.rs");
    source.lines().filter(|line| line.starts_with("pub const ") && line.contains(": &str = ")).flat_map(literals).collect()
}

fn assert_same(what: &str, code: &Names, page: &Names) {
    let missing: Vec<_> = code.difference(page).collect();
    assert!(
        missing.is_empty(),
        "{what}: docs/kubernetes.md has no row for {missing:?}; what no condition of a cluster has is named in NOT_REASONS of \
         e2e/tests/reasons.rs"
    );
    let extra: Vec<_> = page.difference(code).collect();
    assert!(extra.is_empty(), "{what}: docs/kubernetes.md has a row for {extra:?}, and no code says that");
}

#[test]
fn every_reason_has_a_row_and_every_row_a_reason() {
    let page = page();
    for (kind, reasons) in of_code() {
        assert!(!reasons.is_empty(), "{kind}: the code that gives reasons has moved");
        let rows = rows(below(&page, &format!("### {kind}")), "Reason");
        assert!(rows.iter().all(|(_, cells)| cells.iter().all(|cell| !cell.is_empty())), "{kind}: a row says nothing");
        assert_same(kind, &reasons, &rows.iter().flat_map(|(reason, _)| named(reason)).collect());
    }
}

#[test]
fn every_condition_has_a_row_and_every_row_a_condition() {
    let rows = rows(&page(), "Condition").iter().flat_map(|(condition, _)| named(condition)).collect();
    assert_same("conditions", &conditions(), &rows);
}

#[test]
fn events_have_reasons_that_are_given() {
    let page = read("docs/kubernetes.md");
    let given: Names = of_code().into_values().flatten().chain(EVENTS.iter().flat_map(|path| literals(&read(path)))).collect();
    let conditions = conditions();
    let rows = rows(below(&page, "## Events"), "Reason");
    assert!(!rows.is_empty(), "the table of Events has moved");
    for reason in rows.iter().flat_map(|(reason, _)| named(reason)) {
        assert!(given.contains(&reason) || conditions.contains(&reason), "no Event has the reason {reason}");
    }
}

#[test]
fn what_is_no_reason_is_there() {
    for (path, names) in NOT_REASONS {
        let found = literals(&read(path));
        for name in names {
            assert!(found.contains(*name), "{path} has no \"{name}\" any more: take it out of NOT_REASONS");
        }
    }
}
