//! Questions about a policy that depend on where it is used.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use openshell_policy::{Policy, PolicyError, from_yaml};

fn policy(text: &str) -> Policy {
    from_yaml(&format!("version: 1\n{text}")).unwrap()
}

fn paths(result: Result<(), PolicyError>) -> Vec<String> {
    result.err().map(|e| e.findings.into_iter().map(|f| f.path).collect()).unwrap_or_default()
}

#[test]
fn a_grant_over_a_protected_path_is_refused_with_both_named() {
    let policy =
        policy("filesystem_policy: { read_only: [/usr, /home, /var/lib/openshell/db/x], read_write: [/tmp, /var/lib/openshell2] }");
    let protected = [Path::new("/home/me/.config/openshell"), Path::new("/var/lib/openshell")];
    let error = policy.check_protected(&protected, |path| Some(PathBuf::from(path))).unwrap_err();
    let places: Vec<&str> = error.findings.iter().map(|f| f.path.as_str()).collect();
    assert_eq!(places, ["filesystem_policy.read_only[1]", "filesystem_policy.read_only[2]"]);
    let message = error.findings[0].to_string();
    assert!(message.contains("`/home`") && message.contains("`/home/me/.config/openshell`"), "{message}");
    // What the caller maps into the sandbox reaches nothing.
    assert_eq!(paths(policy.check_protected(&protected, |path| (path == "/usr").then(|| PathBuf::from(path)))), Vec::<String>::new());
    // A name that only begins alike is another path; `..` and `.` do not hide one.
    let dotted = |path: &str| (path == "/tmp").then(|| PathBuf::from("/tmp/./x/../../home/me"));
    assert_eq!(paths(policy.check_protected(&protected, dotted)), ["filesystem_policy.read_write[0]"]);
}

#[test]
fn the_root_covers_everything() {
    let policy = policy("filesystem_policy: { read_only: [/] }");
    assert_eq!(paths(policy.check_protected(&[Path::new("/x")], |path| Some(PathBuf::from(path)))), ["filesystem_policy.read_only[0]"]);
}

#[test]
fn a_running_sandbox_keeps_its_static_part() {
    let before = policy("filesystem_policy: { read_only: [/usr], read_write: [/tmp] }\nprocess: { run_as_user: sandbox }");
    let more = policy(
        "filesystem_policy: { read_only: [/usr, /opt], read_write: [/tmp] }\nprocess: { run_as_user: sandbox }\n\
         landlock: { compatibility: best_effort }\nnetwork_policies: { a: { endpoints: [{ host: a.example, port: 443 }] } }",
    );
    before.check_live_change(&more).unwrap();
    let other = policy(
        "filesystem_policy: { include_workdir: true, read_write: [/tmp] }\nprocess: { run_as_user: \"7\" }\nlandlock: { compatibility: hard_requirement }",
    );
    assert_eq!(
        paths(before.check_live_change(&other)),
        ["landlock.compatibility", "process.run_as_user", "filesystem_policy.include_workdir", "filesystem_policy.read_only"]
    );
    let message = before.check_live_change(&other).unwrap_err().to_string();
    assert!(message.contains("landlock.compatibility: is `best_effort` in the running sandbox and `hard_requirement`"), "{message}");
    assert!(message.contains("filesystem_policy.read_only: the running sandbox has `/usr`, and"), "{message}");
}

#[test]
fn a_policy_without_a_filesystem_part_stands_for_the_default_one() {
    let (without, default) = (policy("network_policies: {}"), Policy::restrictive_default());
    default.check_live_change(&without).unwrap();
    without.check_live_change(&default).unwrap();
    // It grants more than this: a running sandbox would keep what its policy no longer says.
    let narrow = policy("filesystem_policy: { include_workdir: true, read_only: [/usr] }");
    assert_eq!(paths(without.check_live_change(&narrow)), ["filesystem_policy.read_only", "filesystem_policy.read_write"]);
    // Its grants meet the walls as well.
    let error = without.check_protected(&[Path::new("/var/log/openshell")], |path| Some(PathBuf::from(path))).unwrap_err();
    assert!(error.to_string().contains("`/var/log` (/var/log), granted because the policy has no `filesystem_policy`"), "{error}");
}

#[test]
fn many_paths_do_not_make_an_endless_message() {
    let many: Vec<String> = (0..200).map(|i| format!("/p{i}")).collect();
    let before = policy(&format!("filesystem_policy: {{ read_only: [{}] }}", many.join(", ")));
    let message = before.check_live_change(&policy("filesystem_policy: {}")).unwrap_err().to_string();
    assert!(message.contains("`/p7` and 192 more") && message.len() < 400, "{message}");
}

#[test]
fn credentials_need_somebody_who_looks() {
    let policy = policy(
        "network_policies: { a: { endpoints: [\
         { host: api.example.com, port: 443 }, { host: \"*.rest.example.com\", port: 443, protocol: rest, access: full }, \
         { host: skip.example.com, port: 443, tls: skip }, { host: fine.example.com, port: 443, allow_uninspected_credentials: true }] } }",
    );
    let refused = |host: &str| policy.check_credentials(&[(host, 443)]);
    assert_eq!(paths(refused("API.example.com")), ["network_policies.a.endpoints[0]"]);
    assert!(refused("api.example.com").unwrap_err().to_string().contains("credentialed endpoint api.example.com:443 is L4-only"));
    assert!(refused("skip.example.com").unwrap_err().to_string().contains("tls: skip"));
    assert!(refused("a.rest.example.com").is_ok() && refused("fine.example.com").is_ok());
    assert!(policy.check_credentials(&[("api.example.com", 80)]).is_ok());
}

#[test]
fn links_stand_for_their_targets() {
    let policy = policy(
        "network_policies: { a: { endpoints: [{ host: a.example, port: 443 }], binaries: [{ path: /usr/bin/python3 }, { path: /opt/* }] } }",
    );
    assert_eq!(policy.literal_binaries().collect::<Vec<_>>(), ["/usr/bin/python3"]);
    let targets = |path: &str| if path == "/usr/bin/python3" { vec!["/usr/bin/python3.12".to_owned()] } else { Vec::new() };
    let engine = openshell_policy::Engine::compile_with_links(&policy, targets).unwrap();
    engine.verify().unwrap();
    let ask = |path| engine.connect(openshell_policy::Process { path, ancestors: &[] }, "a.example", 443);
    assert_eq!(ask("/usr/bin/python3.12").verdict, openshell_policy::Verdict::Allow);
    assert_eq!(ask("/usr/bin/python3.11").verdict, openshell_policy::Verdict::Deny);
    assert_eq!(
        ask("/usr/bin/python3.12"),
        engine
            .authority()
            .unwrap()
            .connect(openshell_policy::Process { path: "/usr/bin/python3.12", ancestors: &[] }, "a.example", 443)
            .unwrap()
    );
}

#[test]
fn an_invalid_policy_is_not_compiled() {
    let mut policy = Policy::restrictive_default();
    assert_eq!(policy, policy.normalized());
    policy.version = 2;
    assert!(openshell_policy::Engine::compile(&policy).unwrap_err().to_string().contains("version"));
}
