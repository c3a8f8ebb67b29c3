//! A command in a sandbox as if it ran here: bytes, exit codes, signals, and a real terminal.

use std::io::{Read as _, Write as _};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Done, Fake};
use openshell_proto::v1::SandboxPhase;
use rustix::process::{Pid, Signal, kill_process};

fn fake() -> Fake {
    let fake = Fake::start();
    fake.sandbox("box", SandboxPhase::Ready);
    fake
}

#[test]
fn the_exit_code_is_the_commands() {
    let fake = fake();
    for code in [0, 1, 2, 7, 124, 127, 255] {
        let done = fake.run(&["sandbox", "exec", "-n", "box", "--", "exit", &code.to_string()]);
        assert_eq!(done.code, Some(code), "{done:?}");
    }
    // What is no exit code must not look like success.
    assert_eq!(fake.run(&["sandbox", "exec", "-n", "box", "exit", "256"]).code, Some(255));
    let done = fake.run(&["sandbox", "exec", "-n", "box", "--", "nothing-like-it"]);
    assert_eq!((done.code, done.err.as_str()), (Some(127), "[\"nothing-like-it\"]: not found\n"));
}

#[test]
fn standard_input_arrives_whole_and_ends() {
    let fake = fake();
    let bytes: Vec<u8> = (0..1_000_000u32).map(|i| (i % 251) as u8).collect();
    let done = fake.run_with(&["sandbox", "exec", "-n", "box", "--no-tty", "--", "cat"], &bytes);
    assert_eq!(done.code, Some(0), "{}", done.err);
    assert!(done.raw == bytes, "binary output differs: {} of {} bytes", done.raw.len(), bytes.len());
    let empty = fake.run(&["sandbox", "exec", "-n", "box", "--", "cat"]).good();
    assert_eq!(empty.out, "");
}

#[test]
fn the_request_says_what_was_asked_for() {
    let fake = fake();
    fake.run(&["sandbox", "exec", "-n", "box", "--workdir", "/w", "--timeout", "5", "--env", "A=b", "--", "exit", "0"]).good();
    let state = fake.state.lock().unwrap();
    let start = &state.started[0];
    assert_eq!((start.workdir.as_str(), start.tty, start.environment["A"].as_str()), ("/w", false, "b"));
    assert_eq!(start.execution_timeout.as_ref().unwrap().seconds, 5);
    assert!(!start.environment.contains_key("TERM"));
}

#[test]
fn a_session_that_ends_early_is_an_error() {
    let fake = fake();
    let done = fake.run(&["sandbox", "exec", "-n", "box", "--", "vanish"]);
    assert_eq!((done.code, done.out.as_str()), (Some(1), "partial\n"));
    assert!(done.err.contains("openshell::session-ended"), "{}", done.err);
}

#[test]
fn a_reader_that_leaves_ends_the_command_quietly() {
    let fake = fake();
    let mut child = fake
        .openshell(&["sandbox", "exec", "-n", "box", "--", "flood"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut some = [0; 1000];
    let mut out = child.stdout.take().unwrap();
    out.read_exact(&mut some).unwrap();
    drop(out);
    let done = ended(child);
    assert_eq!((done.code, done.err.as_str()), (Some(141), ""));
}

#[test]
fn interrupts_end_our_side() {
    let fake = fake();
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143), (Signal::HUP, 129)] {
        let mut child = fake
            .openshell(&["sandbox", "exec", "-n", "box", "--", "hang"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        wait_for(child.stdout.as_mut().unwrap(), "hanging");
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(ended(child).code, Some(code));
    }
}

#[test]
fn an_interrupt_deletes_a_sandbox_that_is_not_kept() {
    let fake = Fake::start();
    // It never gets ready, so the interrupt comes while it is waited for.
    fake.state.lock().unwrap().phases = vec![SandboxPhase::Provisioning];
    let child = fake
        .openshell(&["sandbox", "create", "--name", "half", "--no-keep", "--", "work"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    until("the sandbox is created", || !fake.state.lock().unwrap().created.is_empty());
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    let done = ended(child);
    assert_eq!(done.code, Some(130), "{done:?}");
    assert_eq!(fake.state.lock().unwrap().deleted, ["half"]);
}

#[test]
fn a_terminal_is_raw_has_a_size_and_comes_back() {
    let fake = fake();
    let mut terminal = Terminal::open(100, 30);
    let before = terminal.settings();
    let mut child = terminal.run(&fake, &["sandbox", "exec", "-n", "box", "--", "keys"]);
    terminal.expect("size 100x30 tty true");
    // Ctrl-C, Ctrl-D, Ctrl-Z and Return are keys of the sandbox now.
    terminal.expect_after(b"\x03", "got [3]");
    terminal.expect_after(b"\x04", "got [4]");
    terminal.expect_after(b"\x1a", "got [26]");
    terminal.expect_after(b"\r", "got [13]");
    terminal.resize(120, 40);
    terminal.expect("resized 120x40");
    terminal.expect_after(b"q", "got [113]");
    let status = wait_child(&mut child);
    assert_eq!(status.code(), Some(7));
    assert_eq!(terminal.settings(), before, "the terminal is as it was");
    let state = fake.state.lock().unwrap();
    assert_eq!(state.started[0].environment["TERM"], "xterm-test");
    assert_eq!(state.resizes, [(120, 40)]);
}

#[test]
fn a_terminal_comes_back_after_a_signal_and_after_an_error() {
    let fake = fake();
    let mut terminal = Terminal::open(80, 24);
    let before = terminal.settings();
    let mut child = terminal.run(&fake, &["sandbox", "exec", "-n", "box", "--", "hang"]);
    terminal.expect("hanging");
    until("raw mode", || terminal.settings() != before);
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(wait_child(&mut child).code(), Some(143));
    assert_eq!(terminal.settings(), before);
    let mut child = terminal.run(&fake, &["sandbox", "exec", "-n", "box", "--", "vanish"]);
    assert_eq!(wait_child(&mut child).code(), Some(1));
    terminal.expect("openshell::session-ended");
    assert_eq!(terminal.settings(), before);
}

#[test]
fn a_shell_is_opened_where_there_is_a_terminal() {
    let fake = fake();
    let terminal = Terminal::open(80, 24);
    // The scripted gateway has no such program: its answer shows what was asked for.
    let mut child = terminal.run(&fake, &["sandbox", "connect", "box"]);
    assert_eq!(wait_child(&mut child).code(), Some(127));
    let start = fake.state.lock().unwrap().started[0].clone();
    assert!(start.tty && start.command[0] == "/bin/sh" && start.command[2].contains("/bin/bash -l"), "{start:?}");
}

/// A pseudo terminal with what came out of it.
struct Terminal {
    master: std::fs::File,
    slave: std::fs::File,
    seen: String,
}

impl Terminal {
    fn open(cols: u16, rows: u16) -> Self {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = std::fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        let terminal = Self { master: master.into(), slave, seen: String::new() };
        terminal.set_size(cols, rows);
        terminal
    }

    /// `setsid --ctty` makes it the controlling terminal, so that a resize is signalled.
    fn run(&self, fake: &Fake, arguments: &[&str]) -> Child {
        let plain = fake.openshell(arguments);
        let mut command = std::process::Command::new("setsid");
        command.args(["--ctty", "--wait"]).arg(plain.get_program()).args(plain.get_args()).env_clear();
        for (key, value) in plain.get_envs() {
            command.env(key, value.unwrap());
        }
        // Without a fork of its own, `setsid` becomes the command: its pid is the child's.
        let stdio = || Stdio::from(self.slave.try_clone().unwrap());
        command.stdin(stdio()).stdout(stdio()).stderr(stdio()).spawn().unwrap()
    }

    fn set_size(&self, cols: u16, rows: u16) {
        let size = rustix::termios::Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&self.master, size).unwrap();
    }

    fn resize(&self, cols: u16, rows: u16) {
        self.set_size(cols, rows);
    }

    fn settings(&self) -> String {
        let t = rustix::termios::tcgetattr(&self.slave).unwrap();
        format!("{:?} {:?} {:?}", t.input_modes, t.output_modes, t.local_modes)
    }

    fn expect_after(&mut self, keys: &[u8], text: &str) {
        self.master.write_all(keys).unwrap();
        self.expect(text);
    }

    #[track_caller]
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + Duration::from_secs(20);
        let mut buffer = [0; 4096];
        while !self.seen.contains(text) {
            assert!(Instant::now() < deadline, "no {text:?} in {:?}", self.seen);
            match self.master.read(&mut buffer) {
                Ok(n) => self.seen.push_str(&String::from_utf8_lossy(&buffer[..n])),
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(5)),
                Err(e) => panic!("{e}: no {text:?} in {:?}", self.seen),
            }
        }
    }
}

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn wait_for(from: &mut impl std::io::Read, text: &str) {
    let mut seen = Vec::new();
    let mut byte = [0];
    while !String::from_utf8_lossy(&seen).contains(text) {
        from.read_exact(&mut byte).unwrap();
        seen.push(byte[0]);
    }
}

#[track_caller]
fn wait_child(child: &mut Child) -> std::process::ExitStatus {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            panic!("the command does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn ended(mut child: Child) -> Done {
    wait_child(&mut child);
    Done::of(child.wait_with_output().unwrap())
}
