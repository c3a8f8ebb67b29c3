//! Every command against a scripted gateway: what is sent, what is printed, the exit code.

use crate::support::Fake;
use openshell_proto::v1::{PolicyStatus, SandboxCondition, SandboxLogLine, SandboxPhase};

const POLICY: &str = "version: 1\nnetwork_policies:\n  web:\n    endpoints:\n      - host: example.com\n        port: 443\n    binaries:\n      - path: /usr/bin/curl\n";

fn policy(fake: &Fake) -> String {
    let path = fake.directory.path().join("p.yaml");
    std::fs::write(&path, POLICY).unwrap();
    path.display().to_string()
}

#[test]
fn a_list_takes_every_page() {
    let fake = Fake::start();
    for name in ["a", "b", "c", "d", "e"] {
        fake.sandbox(name, SandboxPhase::Ready);
    }
    assert_eq!(fake.run(&["sb", "list", "--names"]).good().out, "a\nb\nc\nd\ne\n");
    assert_eq!(fake.run(&["sandbox", "list", "--ids", "--limit", "2", "--offset", "1"]).good().out, "id-b\nid-c\n");
    let table = fake.run(&["sandbox", "ls"]).good().out;
    let mut lines = table.lines();
    assert_eq!(lines.next().unwrap().split_whitespace().collect::<Vec<_>>(), ["NAME", "PHASE", "POLICY", "LABELS", "AGE"]);
    assert_eq!(lines.next().unwrap().split_whitespace().take(4).collect::<Vec<_>>(), ["a", "Ready", "1", "team=red"]);
    let json = fake.run(&["sandbox", "list", "-o", "json"]).good().json();
    let keys: Vec<&String> = json[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        ["id", "name", "workspace", "labels", "annotations", "resource_version", "created_at", "phase", "current_policy_version"]
    );
    assert_eq!(json[0]["created_at"], "2023-11-14T22:13:20Z");
}

#[test]
fn an_empty_list_says_what_to_do() {
    let fake = Fake::start();
    assert!(fake.run(&["sandbox", "list"]).good().out.starts_with("No sandboxes."));
    assert_eq!(fake.run(&["sandbox", "list", "-o", "json"]).good().json(), serde_json::json!([]));
}

#[test]
fn get_shows_conditions_and_remembers_the_sandbox() {
    let fake = Fake::start();
    fake.sandbox("one", SandboxPhase::Error);
    fake.state.lock().unwrap().sandboxes.get_mut("one").unwrap().status.as_mut().unwrap().conditions.push(SandboxCondition {
        r#type: "Ready".to_owned(),
        status: "False".to_owned(),
        reason: "PolicyRefused".to_owned(),
        message: "colour \u{1b}[31mred".to_owned(),
        ..SandboxCondition::default()
    });
    let shown = fake.run(&["sandbox", "get", "one"]).good().out;
    assert!(shown.contains("Phase:     Error"), "{shown}");
    assert!(shown.contains("Command:   sleep 'a b'"), "{shown}");
    assert!(shown.contains("PolicyRefused"), "{shown}");
    assert!(!shown.contains('\u{1b}') && shown.contains("\\u{1b}[31mred"), "control characters are made visible: {shown}");
    // No name: the last one.
    let json = fake.run(&["sandbox", "get", "-o", "json"]).good().json();
    assert_eq!(json["name"], "one");
    assert_eq!(json["policy_source"], "sandbox");
}

#[test]
fn no_name_and_no_last_sandbox_is_wrong_usage() {
    let fake = Fake::start();
    let done = fake.run(&["sandbox", "get"]);
    assert_eq!(done.code, Some(2));
    assert!(done.err.contains("No sandbox is named"), "{}", done.err);
}

#[test]
fn a_missing_sandbox_has_a_code_a_reason_and_a_next_step() {
    let fake = Fake::start();
    let done = fake.run(&["sandbox", "get", "nope"]);
    assert_eq!(done.code, Some(1));
    for part in ["openshell::not-found", "Sandbox nope could not be read.", "sandbox nope does not exist", "openshell sandbox list"] {
        assert!(done.err.contains(part), "{part} in {}", done.err);
    }
    assert_eq!(done.out, "");
}

#[test]
fn create_in_the_foreground_shows_everything_in_order_and_ends_with_the_code() {
    let fake = Fake::start();
    fake.state.lock().unwrap().phases = vec![SandboxPhase::Provisioning, SandboxPhase::Ready];
    let file = policy(&fake);
    let done = fake.run(&[
        "sandbox",
        "create",
        "--name",
        "fg",
        "--policy",
        &file,
        "--env",
        "A=1=2",
        "--label",
        "x=y",
        "--provider",
        "gh",
        "--",
        "work",
        "-x",
    ]);
    assert_eq!(done.code, Some(42), "{done:?}");
    assert_eq!(done.out, "early\nlate\n");
    assert_eq!(done.err, "Created sandbox: fg\nwarned\n");
    let state = fake.state.lock().unwrap();
    let created = &state.created[0];
    assert!(created.await_main_process_attachment);
    assert_eq!(created.labels["x"], "y");
    let spec = created.spec.as_ref().unwrap();
    assert_eq!(spec.command, ["work", "-x"]);
    assert_eq!(spec.environment["A"], "1=2");
    assert_eq!(spec.providers, ["gh"]);
    assert!(!spec.tty);
    assert_eq!(spec.policy.as_ref().unwrap().network_policies["web"].endpoints[0].host, "example.com");
    assert!(state.started[0].command.is_empty(), "an empty command attaches to the main process");
    assert!(state.deleted.is_empty(), "kept by default");
}

#[test]
fn create_without_keep_deletes_afterwards() {
    let fake = Fake::start();
    fake.state.lock().unwrap().phases = vec![SandboxPhase::Ready];
    let done = fake.run(&["sandbox", "create", "--name", "gone", "--no-keep", "--", "work"]);
    assert_eq!(done.code, Some(42));
    assert!(done.err.ends_with("Deleted sandbox gone\n"), "{}", done.err);
    assert_eq!(fake.state.lock().unwrap().deleted, ["gone"]);
}

#[test]
fn create_that_fails_says_why_and_cleans_up_only_when_asked_to() {
    for keep in [true, false] {
        let fake = Fake::start();
        fake.state.lock().unwrap().phases = vec![SandboxPhase::Provisioning, SandboxPhase::Error];
        let mut arguments = vec!["sandbox", "create", "--name", "sad"];
        if !keep {
            arguments.push("--no-keep");
        }
        arguments.extend(["--", "work"]);
        let done = fake.run(&arguments);
        assert_eq!(done.code, Some(1));
        assert!(done.err.contains("Phase: Error"), "{}", done.err);
        assert_eq!(fake.state.lock().unwrap().deleted.len(), usize::from(!keep));
    }
}

#[test]
fn create_detached_returns_when_ready() {
    let fake = Fake::start();
    fake.state.lock().unwrap().phases = vec![SandboxPhase::Provisioning, SandboxPhase::Ready];
    assert_eq!(fake.run(&["sandbox", "create", "--detach", "--", "work"]).good().out, "Created sandbox: happy-otter\n");
    // Another gateway: the first one's watch may still be there to take a phase away.
    let fake = Fake::start();
    fake.state.lock().unwrap().phases = vec![SandboxPhase::Ready];
    let json = fake.run(&["sandbox", "create", "--name", "two", "--detach", "-o", "json"]).good().json();
    assert_eq!((json["name"].as_str(), json["phase"].as_str()), (Some("two"), Some("Ready")));
    assert!(!fake.state.lock().unwrap().created[0].await_main_process_attachment);
}

#[test]
fn provisioning_without_progress_is_given_up() {
    let fake = Fake::start();
    let mut command = fake.openshell(&["sandbox", "create", "--name", "slow", "--detach"]);
    let done = crate::support::Done::of(command.env("OPENSHELL_PROVISION_TIMEOUT", "1").output().unwrap());
    assert_eq!(done.code, Some(124), "{done:?}");
    assert!(done.err.contains("Sandbox slow is not ready after 1 s."), "{}", done.err);
}

#[test]
fn a_bad_policy_is_refused_before_anything_is_sent() {
    let fake = Fake::start();
    let path = fake.directory.path().join("bad.yaml");
    std::fs::write(&path, "version: 1\nnetwork_policies:\n  web:\n    endpoints:\n      - hst: example.com\n").unwrap();
    let done = fake.run(&["sandbox", "create", "--policy", path.to_str().unwrap(), "--", "work"]);
    assert_eq!(done.code, Some(1));
    assert!(done.err.contains("openshell::policy::") && done.err.contains("hst"), "{}", done.err);
    assert!(fake.state.lock().unwrap().created.is_empty());
    let missing = fake.run(&["sandbox", "create", "--policy", "/nonexistent/p.yaml"]);
    assert!(missing.err.contains("openshell::unreadable"), "{}", missing.err);
}

#[test]
fn combinations_that_cannot_be_meant_are_wrong_usage() {
    let fake = Fake::start();
    for arguments in [
        &["sandbox", "create", "--no-keep"][..],
        &["sandbox", "create", "--no-keep", "--detach", "--", "x"],
        &["sandbox", "create", "-o", "json", "--", "x"],
        &["sandbox", "create", "--gpu=0"],
        &["sandbox", "delete"],
        &["sandbox", "delete", "a", "--all"],
        &["policy", "set", "a", "--policy", "f", "--timeout", "3"],
        &["provider", "create", "--name", "a", "--type", "github"],
        &["provider", "create", "--name", "a", "--type", "github", "--credential", "A", "--from-existing"],
        &["delete", "-f", "x", "ossb", "a"],
        &["get", "pods"],
    ] {
        let done = fake.run(arguments);
        assert_eq!(done.code, Some(2), "{arguments:?}: {}", done.err);
        assert!(!done.err.is_empty());
    }
    assert!(fake.state.lock().unwrap().created.is_empty());
}

#[test]
fn delete_goes_on_after_a_failure_and_remembers_it() {
    let fake = Fake::start();
    fake.sandbox("a", SandboxPhase::Ready);
    fake.sandbox("b", SandboxPhase::Ready);
    let done = fake.run(&["sandbox", "delete", "a", "nope", "b"]);
    assert_eq!(done.code, Some(1));
    assert_eq!(done.out, "Deleted sandbox a\nDeleted sandbox b\n");
    assert!(done.err.contains("nope"));
    fake.sandbox("c", SandboxPhase::Ready);
    assert_eq!(fake.run(&["sandbox", "delete", "--all"]).good().out, "Deleted sandbox c\n");
}

#[test]
fn force_is_sent_only_when_it_is_asked_for() {
    let fake = Fake::start();
    fake.sandbox("a", SandboxPhase::Ready);
    fake.sandbox("b", SandboxPhase::Ready);
    let file = policy(&fake);
    fake.run(&["policy", "set", "good", "--policy", &file]).good();
    fake.run(&["sandbox", "delete", "a"]).good();
    assert!(fake.state.lock().unwrap().forced.is_empty());
    fake.run(&["policy", "set", "good", "--policy", &file, "--force"]).good();
    fake.run(&["sandbox", "delete", "--all", "--force"]).good();
    fake.run(&["provider", "delete", "none", "--force"]);
    assert_eq!(fake.state.lock().unwrap().forced, ["UpdateConfig", "DeleteSandbox", "DeleteProvider"]);
}

#[test]
fn stop_waits_until_stopped() {
    let fake = Fake::start();
    fake.sandbox("a", SandboxPhase::Ready);
    assert_eq!(fake.run(&["sandbox", "stop", "a"]).good().out, "Stopped sandbox a\n");
}

#[test]
fn policy_set_waits_with_three_exit_codes() {
    let fake = Fake::start();
    let file = policy(&fake);
    let set = |name: &str| fake.run(&["policy", "set", name, "--policy", &file, "--wait", "--timeout", "1"]);
    assert_eq!(set("good").good().out, "Policy revision 1 of sandbox good is enforced\n");
    let bad = set("bad");
    assert_eq!(bad.code, Some(1));
    assert!(bad.err.contains("openshell::policy-rejected") && bad.err.contains("the supervisor says no"), "{}", bad.err);
    assert!(bad.err.contains("Revision 1 stays in force"), "{}", bad.err);
    let slow = set("slow");
    assert_eq!(slow.code, Some(124));
    assert!(slow.err.contains("openshell::timeout"), "{}", slow.err);
    let unwaited = fake.run(&["pol", "set", "slow", "--policy", &file]).good();
    assert_eq!(unwaited.out, "Policy revision 4 of sandbox slow is set\n");
}

#[test]
fn policy_get_prints_a_file_that_can_be_set_again() {
    let fake = Fake::start();
    let file = policy(&fake);
    fake.run(&["policy", "set", "good", "--policy", &file]).good();
    let full = fake.run(&["policy", "get", "good", "--full"]).good().out;
    let (details, text) = full.split_once("\n\n").unwrap();
    assert!(details.contains("Status:          loaded"), "{details}");
    let again = fake.directory.path().join("again.yaml");
    std::fs::write(&again, text).unwrap();
    fake.run(&["policy", "check", "-f", again.to_str().unwrap()]).good();
    let json = fake.run(&["policy", "get", "good", "-o", "json"]).good().json();
    assert_eq!(json["policy"]["network_policies"]["web"]["endpoints"][0]["host"], "example.com");
    assert_eq!((json["version"].as_u64(), json["status"].as_str(), json["active_version"].as_u64()), (Some(1), Some("loaded"), Some(1)));
    assert!(fake.run(&["policy", "list", "good"]).good().out.contains("loaded"));
    assert_eq!(fake.state.lock().unwrap().revisions[0].status, i32::from(PolicyStatus::Loaded));
}

#[test]
fn provider_credentials_come_from_the_environment_and_are_never_shown() {
    let fake = Fake::start();
    let mut command = fake.openshell(&["provider", "create", "--name", "gh", "--type", "github", "--credential", "GITHUB_TOKEN"]);
    let done = crate::support::Done::of(command.env("GITHUB_TOKEN", "s3cret").output().unwrap()).good();
    assert_eq!(done.out, "Created provider gh\n");
    assert_eq!(fake.state.lock().unwrap().providers["gh"].credentials["GITHUB_TOKEN"], "s3cret");
    let arguments = [
        "provider",
        "create",
        "--name",
        "g2",
        "--type",
        "generic",
        "--credential",
        "K=v",
        "--endpoint",
        "api.example.com:8443/v1",
        "--endpoint",
        "b.example.com",
        "--config",
        "REGION=eu",
    ];
    fake.run(&arguments).good();
    let made = fake.state.lock().unwrap().providers["g2"].clone();
    assert_eq!(made.config["endpoints"], "api.example.com:8443/v1,b.example.com");
    assert_eq!(made.config["REGION"], "eu");
    for form in ["table", "json", "yaml"] {
        let shown = fake.run(&["provider", "get", "gh", "-o", form]).good().out;
        assert!(shown.contains("GITHUB_TOKEN") && !shown.contains("s3cret"), "{shown}");
    }
    let missing = fake.run(&["provider", "create", "--name", "x", "--type", "github", "--credential", "NOT_SET"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.err.contains("NOT_SET is not set"), "{}", missing.err);
    let existing = fake.run(&["provider", "create", "--name", "x", "--type", "github", "--from-existing"]);
    assert!(existing.err.contains("GITHUB_TOKEN, GH_TOKEN"), "{}", existing.err);
}

#[test]
fn logs_cannot_steer_the_terminal() {
    let fake = Fake::start();
    fake.sandbox("a", SandboxPhase::Ready);
    fake.state.lock().unwrap().logs = vec![
        SandboxLogLine {
            level: "info".to_owned(),
            target: "egress".to_owned(),
            message: "DENIED\u{1b}]0;pwned\u{7}\nfake line".to_owned(),
            ..SandboxLogLine::default()
        },
        SandboxLogLine {
            level: "warn".to_owned(),
            target: "stdout".to_owned(),
            message: "hello".to_owned(),
            fields: [("b".to_owned(), "two words".to_owned()), ("a".to_owned(), "1".to_owned())].into(),
            ..SandboxLogLine::default()
        },
    ];
    let text = fake.run(&["logs", "a"]).good().out;
    assert_eq!(text, "- INFO  egress: DENIED\\u{1b}]0;pwned\\u{7}\\nfake line\n- WARN  stdout: hello a=1 b=\"two words\"\n");
    assert_eq!(fake.run(&["lg", "a", "-n", "1"]).good().out.lines().count(), 1);
    let json = fake.run(&["sandbox", "logs", "a", "-o", "json"]).good().json();
    assert_eq!(json[1]["fields"]["a"], "1");
    assert_eq!(fake.run(&["logs", "a", "--tail"]).good().out, text);
}

#[test]
fn status_tells_reachable_from_accepted() {
    let fake = Fake::start();
    let json = fake.run(&["status", "-o", "json"]).good().json();
    assert_eq!(
        (json["gateway"].as_str(), json["status"].as_str(), json["version"].as_str()),
        (Some("test"), Some("healthy"), Some("9.9.9"))
    );
    assert_eq!(json["authentication"]["status"], "not_required");
    let info = fake.run(&["gateway", "info", "-o", "json"]).good().json();
    assert_eq!(info["compute_drivers"][0]["capabilities"]["driver_name"], "process");
    fake.state.lock().unwrap().refuse = Some(tonic::Status::unauthenticated("no"));
    let done = fake.run(&["status"]);
    assert_eq!(done.code, Some(1), "{done:?}");
}

#[test]
fn completions_know_the_commands() {
    let fake = Fake::start();
    for shell in ["bash", "zsh", "fish", "powershell"] {
        let script = fake.run(&["completions", shell]).good().out;
        assert!(script.contains("provider") && !script.contains("__launch"), "{shell}");
    }
}
