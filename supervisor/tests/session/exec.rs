//! Execs over the session.

use std::time::{Duration, Instant};

use openshell_gateway::session::ExecHandle;
use openshell_proto::supervisor::{AttachMain, Eof, Exec, Exit, relay_down, relay_up};
use tokio::time::timeout;

use super::Running;

#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) exit: Option<Exit>,
}

impl Outcome {
    pub(crate) fn code(&self) -> i32 {
        self.exit.as_ref().expect("an exit").code
    }
}

pub(crate) async fn collect(mut handle: ExecHandle) -> Outcome {
    let mut outcome = Outcome::default();
    let all = async {
        while let Some(event) = handle.events.recv().await {
            match event {
                relay_up::Payload::Stdout(bytes) => outcome.stdout.push_str(&String::from_utf8_lossy(&bytes)),
                relay_up::Payload::Stderr(bytes) => outcome.stderr.push_str(&String::from_utf8_lossy(&bytes)),
                relay_up::Payload::Exit(exit) => {
                    outcome.exit = Some(exit);
                    break;
                }
                other => panic!("{other:?}"),
            }
        }
    };
    timeout(Duration::from_secs(20), all).await.expect("the command ends");
    outcome
}

pub(crate) fn command(command: &[&str]) -> Exec {
    Exec { command: command.iter().map(|a| (*a).to_owned()).collect(), ..Exec::default() }
}

pub(crate) fn sh(script: &str) -> Exec {
    command(&["sh", "-c", script])
}

async fn run(running: &Running, exec: Exec) -> Outcome {
    let handle = running.gateway.hub.exec(&running.uid, exec).await.unwrap_or_else(|e| panic!("{e}\n{}", running.supervisor.log()));
    collect(handle).await
}

#[tokio::test(flavor = "multi_thread")]
async fn output_codes_environment_and_directory() {
    let running = Running::start("exec", &[]).await;
    let outcome = run(&running, sh("echo out; echo err >&2; exit 3")).await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.code()), ("out\n", "err\n", 3));

    let mut env = sh("echo $HOME $PWD $USER $OPENSHELL_SANDBOX $OWN $HTTPS_PROXY; test -r $SSL_CERT_FILE && echo bundle");
    env.environment = [("OWN".to_owned(), "value".to_owned())].into();
    let workspace = running.supervisor.directory.join("workspace");
    let workspace = workspace.display();
    assert_eq!(run(&running, env).await.stdout, format!("{workspace} {workspace} sandbox 1 value http://198.18.0.1:3128\nbundle\n"));

    let mut elsewhere = sh("pwd");
    elsewhere.workdir = "/usr".into();
    assert_eq!(run(&running, elsewhere).await.stdout, "/usr\n");

    assert_eq!(run(&running, sh("kill -9 $$")).await.code(), 137);
    let outcome = run(&running, sh("echo again > /dev/stderr; cat /proc/self/fd/0 < /dev/null; touch here && ls")).await;
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("here\n", "again\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_never_ran_says_why() {
    let running = Running::start("never-ran", &[]).await;
    let exit = run(&running, command(&["no-such-program"])).await.exit.unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (127, "NotFound"), "{}", exit.message);
    let exit = run(&running, command(&["/etc/passwd"])).await.exit.unwrap();
    assert_eq!((exit.code, exit.reason.as_str()), (126, "PermissionDenied"), "{}", exit.message);
    let refused = running.gateway.hub.exec(&running.uid, Exec::default()).await.unwrap_err();
    assert!(matches!(&refused, openshell_gateway::session::RelayError::Refused { code, .. } if code == "BadRequest"), "{refused}");
    let attach = running.gateway.hub.attach_main(&running.uid, AttachMain::default()).await.unwrap_err();
    assert!(matches!(&attach, openshell_gateway::session::RelayError::Refused { code, .. } if code == "NoMainProcess"), "{attach}");
}

#[tokio::test(flavor = "multi_thread")]
async fn input_streams_and_ends() {
    let running = Running::start("stdin", &[]).await;
    let mut handle = running.gateway.hub.exec(&running.uid, command(&["cat"])).await.unwrap();
    handle.stdin.send(relay_down::Payload::Stdin(b"one".to_vec())).await.unwrap();
    let first = timeout(Duration::from_secs(5), handle.events.recv()).await.unwrap().unwrap();
    assert_eq!(first, relay_up::Payload::Stdout(b"one".to_vec()));
    handle.stdin.send(relay_down::Payload::Eof(Eof::default())).await.unwrap();
    assert_eq!(collect(handle).await.code(), 0);
    // Much more than any buffer on the way, in both directions at once.
    let handle = running.gateway.hub.exec(&running.uid, command(&["cat"])).await.unwrap();
    let ExecHandle { stdin, events } = handle;
    let writing = tokio::spawn(async move {
        for _ in 0..256 {
            stdin.send(relay_down::Payload::Stdin(vec![b'x'; 32 * 1024])).await.unwrap();
        }
    });
    let (nobody, _) = tokio::sync::mpsc::channel(1);
    let outcome = collect(ExecHandle { stdin: nobody, events }).await;
    writing.await.unwrap();
    assert_eq!((outcome.stdout.len(), outcome.code()), (256 * 32 * 1024, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_the_command_and_loses_nothing() {
    let running = Running::start("backpressure", &[]).await;
    let handle = running.gateway.hub.exec(&running.uid, sh("head -c 20000000 /dev/zero; echo end >&2")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let outcome = collect(handle).await;
    assert_eq!((outcome.stdout.len(), outcome.stderr.as_str(), outcome.code()), (20_000_000, "end\n", 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_ends_the_group_with_124() {
    let running = Running::start("timeout", &[]).await;
    let mut exec = sh("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000");
    exec.timeout = Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 });
    let began = Instant::now();
    let outcome = run(&running, exec).await;
    assert_eq!(outcome.code(), 124);
    assert!(began.elapsed() < Duration::from_secs(30), "{:?}", began.elapsed());
    let left = run(&running, sh(&format!("kill -0 {} 2>/dev/null && echo alive", outcome.stdout.trim()))).await;
    assert_eq!(left.stdout, "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_goes_takes_the_command_with_it() {
    let running = Running::start("gone", &[]).await;
    let mut handle = running.gateway.hub.exec(&running.uid, sh("trap '' HUP; echo $$; exec sleep 1000")).await.unwrap();
    let Some(relay_up::Payload::Stdout(pid)) = handle.events.recv().await else { panic!("no pid") };
    drop(handle);
    let alive = format!("kill -0 {} 2>/dev/null && echo alive", String::from_utf8_lossy(&pid).trim());
    for _ in 0..60 {
        if run(&running, sh(&alive)).await.stdout.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("the command outlived its client");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_has_a_size_and_echoes() {
    let running = Running::start("pty", &[]).await;
    let exec = Exec {
        tty: true,
        cols: 120,
        rows: 40,
        ..sh("stty size; tty >/dev/null && echo tty; read line; stty size; echo got $line; exit 7")
    };
    let mut handle = running.gateway.hub.exec(&running.uid, exec).await.unwrap();
    let mut shown = String::new();
    while !shown.contains("tty") {
        match timeout(Duration::from_secs(5), handle.events.recv()).await.unwrap() {
            Some(relay_up::Payload::Stdout(bytes)) => shown.push_str(&String::from_utf8_lossy(&bytes)),
            other => panic!("{other:?} after {shown:?}"),
        }
    }
    handle.stdin.send(relay_down::Payload::Resize(openshell_proto::supervisor::Resize { cols: 90, rows: 30 })).await.unwrap();
    handle.stdin.send(relay_down::Payload::Stdin(b"hello\r".to_vec())).await.unwrap();
    let outcome = collect(handle).await;
    shown.push_str(&outcome.stdout);
    assert!(shown.contains("40 120") && shown.contains("30 90") && shown.contains("got hello"), "{shown:?}");
    assert_eq!(outcome.code(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_a_time_up_to_the_bound() {
    let running = Running::start("many", &[]).await;
    let all = (0..40).map(|n| run(&running, sh(&format!("sleep 0.2; exit {n}"))));
    let codes: Vec<i32> = futures::future::join_all(all).await.iter().map(Outcome::code).collect();
    assert_eq!(codes, (0..40).collect::<Vec<_>>());
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(running.gateway.hub.exec(&running.uid, command(&["sleep", "100"])).await.unwrap());
    }
    let refused = running.gateway.hub.exec(&running.uid, command(&["true"])).await.unwrap_err();
    assert!(matches!(refused, openshell_gateway::session::RelayError::LimitReached(64)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_holds_no_exec_open() {
    let running = Running::start("daemon", &[]).await;
    let began = Instant::now();
    let outcome = run(&running, sh("sleep 1000 & echo started")).await;
    assert_eq!((outcome.stdout.as_str(), outcome.code()), ("started\n", 0));
    assert!(began.elapsed() < Duration::from_secs(30));
}
