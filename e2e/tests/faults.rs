//! What breaks fails closed, and what was running goes on.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    net::TcpListener,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use openshell_e2e::{
    Server, Stack, bins, host, policy,
    server::Authority,
    stack::{PATIENCE, run, scratch, text},
};

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within {PATIENCE:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn alive(pid: i32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Processes on this machine whose command line contains a marker.
fn marked(marker: &str) -> Vec<i32> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| text(&line).contains(marker)) && alive(*pid))
        .collect()
}

#[test]
fn sandboxes_go_on_enforcing_while_the_gateway_is_dead() {
    let authority = Authority::new().unwrap();
    let server = Server::https(&authority).unwrap();
    let mut stack = Stack::with_env(&[("SSL_CERT_FILE", &authority.file())]).unwrap();
    let url = format!("https://{}:{}", host::ALIAS, server.port());
    let good = policy::inspected(server.port(), host::address().unwrap(), "        access: read-only");
    let file = stack.file("p.yaml", &good).unwrap().display().to_string();
    let program = format!(
        "i=0; while [ $i -lt 600 ]; do i=$((i+1)); curl -s -o /dev/null -w \"get-%{{http_code}} \" {url}/n/$i >> log; \
         curl -s -o /dev/null -w \"delete-%{{http_code}}\\n\" -X DELETE {url}/n/$i >> log; echo tick-$i; sleep 0.1; done"
    );
    stack.ok(["sandbox", "create", "--name", "on", "--policy", &file, "--detach", "--", "sh", "-c", &program]).unwrap();
    eventually("the first requests", || !server.seen().is_empty());

    stack.kill_gateway().unwrap();
    server.forget();
    eventually("requests while the gateway is dead", || server.seen().len() >= 5);
    assert!(server.seen().iter().all(|seen| seen.method == "GET"), "a forbidden request passed while the gateway was dead");

    stack.start_gateway().unwrap();
    let list = stack.ok(["sandbox", "list"]).unwrap();
    assert!(list.contains("on"), "{list}");
    eventually("the session resumes", || stack.exec("on", &["true"]).is_ok_and(|output| output.status.success()));
    let log = text(&stack.exec("on", &["cat", "log"]).unwrap().stdout);
    // The last line may be half-way: the program is still writing.
    let whole: Vec<_> = log.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
    assert!(whole.len() > 5 && whole.iter().all(|line| *line == "get-200 delete-403\n"), "{log}");
    // Every tick is in the log once, in order: none lost while the gateway was dead, none twice.
    let ticks = |log: &str| -> Vec<u32> { log.lines().filter_map(|line| line.split("tick-").nth(1)?.trim().parse().ok()).collect() };
    eventually("the log catches up", || stack.ok(["logs", "on", "-n", "2000"]).is_ok_and(|log| ticks(&log).len() > 8));
    let seen = ticks(&stack.ok(["logs", "on", "-n", "2000"]).unwrap());
    assert_eq!(seen, (1..=u32::try_from(seen.len()).unwrap()).collect::<Vec<_>>());
}

#[test]
fn a_killed_supervisor_takes_every_process_with_it() {
    let stack = Stack::start().unwrap();
    let marker = format!("e2e-daemon-{}", std::process::id());
    stack.sandbox("doomed", policy::FILESYSTEM, &[]).unwrap();
    let daemon = format!(
        "import os, time\nif os.fork() == 0:\n  os.setsid()\n  if os.fork() == 0:\n    time.sleep(600)  # {marker}\n  os._exit(0)\nos.wait()\nprint('daemon')"
    );
    assert!(stack.python("doomed", &daemon).unwrap().contains("daemon"));
    assert_eq!(marked(&marker).len(), 1, "the daemon runs");

    let supervisors: Vec<i32> =
        marked("openshell-sandbox").into_iter().filter(|pid| fs::read_to_string(format!("/proc/{pid}/environ")).is_ok()).collect();
    let guardian = stack.supervisors().first().copied().expect("a supervisor is recorded").as_raw_nonzero().get();
    let children: Vec<i32> = supervisors
        .into_iter()
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| {
                stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1).map(str::to_owned)) == Some(guardian.to_string())
            })
        })
        .collect();
    assert!(!children.is_empty(), "the supervisor below its guardian {guardian}");
    for pid in children {
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    }
    eventually("every process of the agent ends", || marked(&marker).is_empty());
    eventually("the failure is typed", || {
        let seen = stack.ok(["sandbox", "get", "doomed", "-o", "json"]).unwrap_or_default();
        seen.contains("Error") || seen.contains("ERROR") || seen.contains("error")
    });
    let seen = stack.ok(["get", "openshellsandbox", "doomed", "-o", "yaml"]).unwrap();
    assert!(seen.contains("SupervisorDied"), "{seen}");
}

#[test]
fn one_clear_error_when_the_port_is_taken() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let root = scratch().unwrap();
    let seen = failing_gateway(root.path(), port);
    assert!(seen.contains(&port.to_string()) && seen.contains("taken"), "{seen}");
}

#[test]
fn one_clear_error_when_the_state_directory_cannot_be_used() {
    let root = scratch().unwrap();
    fs::write(root.path().join("state"), "a file").unwrap();
    let seen = failing_gateway(root.path(), 0);
    assert!(seen.contains(&root.path().join("state").display().to_string()), "{seen}");
}

#[test]
fn one_clear_error_when_the_disk_is_full() {
    if !host::is_root() {
        println!("skipped: a small file system needs root");
        return;
    }
    let root = scratch().unwrap();
    let state = root.path().join("state");
    fs::create_dir(&state).unwrap();
    let mount = |args: &[&str]| Command::new(args[0]).args(&args[1..]).status().unwrap().success();
    let path = state.display().to_string();
    assert!(mount(&["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", &path]));
    let seen = std::panic::catch_unwind(|| failing_gateway(root.path(), 0));
    assert!(mount(&["umount", &path]));
    let seen = seen.unwrap();
    assert!(seen.to_lowercase().contains("space") || seen.to_lowercase().contains("full"), "{seen}");
}

#[test]
fn two_gateways_do_not_share_a_state_directory() {
    let stack = Stack::start().unwrap();
    let mut second = Command::new(bins::path("openshell-gateway").unwrap());
    second.envs(stack.env()).env("OPENSHELL_SERVER_PORT", "0").stderr(Stdio::piped());
    let output = run(second, b"").unwrap();
    let seen = text(&output.stderr);
    assert!(!output.status.success() && seen.contains(&stack.gateway_pid().unwrap().to_string()), "{seen}");
    assert!(stack.ok(["status"]).is_ok());
}

/// Starts a gateway that must fail, within a bounded time and with a non-zero exit code.
fn failing_gateway(root: &std::path::Path, port: u16) -> String {
    let mut command = Command::new(bins::path("openshell-gateway").unwrap());
    command.env("XDG_STATE_HOME", root.join("state")).env("XDG_CONFIG_HOME", root.join("config"));
    command.env("OPENSHELL_SERVER_PORT", port.to_string());
    let output = run(command, b"").unwrap();
    let seen = text(&output.stderr);
    assert!(!output.status.success(), "it started: {seen}");
    assert!(!seen.contains("panicked"), "{seen}");
    seen
}
