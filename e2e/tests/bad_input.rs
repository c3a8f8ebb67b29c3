//! Bad input is refused at once, with its place and reason, and what ran before still runs.

#![allow(clippy::unwrap_used)]

use std::fmt::Write as _;

use openshell_e2e::{Server, Stack, host, policy, server::Authority, stack::text};

/// Sets a policy that must be refused; gives what was printed.
fn refused(stack: &Stack, name: &str, content: &str) -> String {
    let file = stack.file(&format!("bad-{name}.yaml"), content).unwrap().display().to_string();
    let output = stack.cli(["policy", "set", "box", "--policy", &file, "--wait"]).unwrap();
    let seen = text(&output.stdout) + &text(&output.stderr);
    assert!(!output.status.success(), "{name} was accepted:\n{seen}");
    // Long lines are wrapped for people, with a gutter.
    seen.replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn a_bad_policy_is_refused_and_the_running_one_stays() {
    let authority = Authority::new().unwrap();
    let server = Server::https(&authority).unwrap();
    let stack = Stack::with_env(&[("SSL_CERT_FILE", &authority.file())]).unwrap();
    let address = host::address().unwrap();
    let good = policy::inspected(server.port(), address, "        access: read-only");
    stack.sandbox("box", &good, &[]).unwrap();

    let unknown = good.replace("        access: read-only", "        access: read-only\n        acces: full");
    let seen = refused(&stack, "unknown-key", &unknown);
    assert!(seen.contains("network_policies.service.endpoints[0].acces") && seen.contains("line 15, column 9"), "{seen}");

    let seen = refused(&stack, "wrong-type", &good.replace(&format!("port: {}", server.port()), "port: [443]"));
    assert!(seen.contains("network_policies.service.endpoints[0].port"), "{seen}");

    let both = good.replace(
        "        access: read-only",
        "        access: read-only\n        rules:\n          - allow: { method: GET, path: \"/**\" }",
    );
    let seen = refused(&stack, "impossible", &both);
    assert!(seen.contains("network_policies.service.endpoints[0]"), "{seen}");

    let protected = good.replace("read_write: [/tmp,", &format!("read_write: [{}, /tmp,", stack.state().display()));
    let seen = refused(&stack, "protected", &protected);
    assert!(seen.contains(&stack.state().display().to_string()), "{seen}");

    let seen = refused(&stack, "later", &good.replace("protocol: rest", "protocol: graphql"));
    assert!(seen.contains("not supported yet") && seen.contains("network_policies.service.endpoints[0].protocol"), "{seen}");

    let large = format!("{good}# {}\n", "x".repeat(10 << 20));
    let seen = refused(&stack, "large", &large);
    assert!(seen.contains("262144") || seen.contains("1 MiB"), "{seen}");

    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..30 {
        let last = i - 1;
        let ten = vec![format!("*a{last}"); 10].join(", ");
        writeln!(bomb, "a{i}: &a{i} [{ten}]").unwrap();
    }
    let started = std::time::Instant::now();
    refused(&stack, "bomb", &(good.clone() + &bomb));
    assert!(started.elapsed().as_secs() < 5, "an alias bomb took {:?}", started.elapsed());

    let seen = refused(&stack, "static", &good.replace("include_workdir: true", "include_workdir: false"));
    assert!(seen.contains("include_workdir"), "{seen}");

    let url = format!("https://{}:{}/still", host::ALIAS, server.port());
    let output = stack.exec("box", &["curl", "-sS", &url]).unwrap();
    assert_eq!(text(&output.stdout), "seen GET /still\n", "{}", text(&output.stderr));
    let revisions: serde_json::Value = serde_json::from_str(&stack.ok(["policy", "list", "box", "-o", "json"]).unwrap()).unwrap();
    let statuses: Vec<_> = revisions.as_array().unwrap().iter().map(|revision| &revision["status"]).collect();
    assert_eq!(statuses, ["loaded"], "a refused policy became a revision");
}

#[test]
fn a_sandbox_with_a_bad_policy_is_not_made() {
    let stack = Stack::start().unwrap();
    let file = stack.file("p.yaml", "version: 1\nnetwork_policy: {}\n").unwrap().display().to_string();
    let output = stack.cli(["sandbox", "create", "--name", "never", "--policy", &file, "--detach"]).unwrap();
    let seen = text(&output.stderr);
    assert!(!output.status.success() && seen.contains("network_policy") && seen.contains("network_policies"), "{seen}");
    assert!(!stack.ok(["sandbox", "list"]).unwrap().contains("never"));
}

#[test]
fn objects_with_unknown_fields_are_refused() {
    let stack = Stack::start().unwrap();
    let file = stack
        .file("o.yaml", "apiVersion: openshell.ai/v1alpha1\nkind: OpenShellSandbox\nmetadata: {name: typo}\nspec: {comand: [\"true\"]}\n")
        .unwrap()
        .display()
        .to_string();
    let output = stack.cli(["apply", "-f", &file]).unwrap();
    let seen = text(&output.stderr);
    assert!(!output.status.success() && seen.contains("comand"), "{seen}");
}
