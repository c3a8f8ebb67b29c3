//! A gateway of one's own, and the command line against it.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::bins;

/// How long anything in a suite may take before it has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A gateway in directories of its own.
pub struct Stack {
    root: tempfile::TempDir,
    port: u16,
    extra_env: Vec<(String, String)>,
    gateway: Option<Child>,
}

impl Stack {
    /// Starts a gateway and waits until it answers.
    pub fn start() -> anyhow::Result<Self> {
        Self::with_env(&[])
    }

    /// As [`Stack::start`], with more environment for the gateway (and so for its supervisors).
    pub fn with_env(env: &[(&str, &str)]) -> anyhow::Result<Self> {
        Self::below(scratch()?, env)
    }

    /// As [`Stack::with_env`], in a directory of the caller's choice.
    pub fn below(root: tempfile::TempDir, env: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut stack = Self { root, port: free_port()?, extra_env: Vec::new(), gateway: None };
        stack.set_env(env);
        stack.start_gateway()?;
        Ok(stack)
    }

    /// Directory of everything that belongs to this stack.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// Port of the gateway.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The state directory (`$XDG_STATE_HOME/openshell`).
    pub fn state(&self) -> PathBuf {
        self.root.path().join("state/openshell")
    }

    /// Environment in which clients find this gateway.
    pub fn env(&self) -> Vec<(String, String)> {
        let dir = |name: &str| self.root.path().join(name).display().to_string();
        vec![
            ("XDG_STATE_HOME".into(), dir("state")),
            ("XDG_CONFIG_HOME".into(), dir("config")),
            ("OPENSHELL_SERVER_PORT".into(), self.port.to_string()),
        ]
    }

    /// Starts (again) the gateway; it must not be running.
    pub fn start_gateway(&mut self) -> anyhow::Result<()> {
        ensure!(self.gateway.is_none(), "the gateway of this stack runs already");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.root.path().join("gateway.log"))?;
        let mut child = Command::new(bins::gateway()?)
            .envs(self.env())
            .envs(self.extra_env.iter().map(|(k, v)| (k, v)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("starting openshell-gateway")?;
        let stdout = child.stdout.take().context("the gateway's standard output")?;
        self.gateway = Some(child);
        let (tell, told) = std::sync::mpsc::channel();
        // Reads to the end, so that the gateway never blocks on a full pipe.
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("ready ") {
                    let _ = tell.send(line);
                }
            }
        });
        if told.recv_timeout(PATIENCE).is_err() {
            bail!("the gateway did not become ready:\n{}", self.gateway_log());
        }
        Ok(())
    }

    /// `kill -9` of the gateway, as a crash would do it.
    pub fn kill_gateway(&mut self) -> anyhow::Result<()> {
        let mut child = self.gateway.take().context("the gateway does not run")?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// How the gateway ended, if it has by itself; then it can be started again.
    pub fn gateway_ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let child = self.gateway.as_mut().context("the gateway does not run")?;
        let ended = child.try_wait()?;
        if ended.is_some() {
            self.gateway = None;
        }
        Ok(ended)
    }

    /// Environment of the gateway from its next start on.
    pub fn set_env(&mut self, env: &[(&str, &str)]) {
        self.extra_env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    }

    /// Asks the gateway to end.
    pub fn stop_gateway(&mut self) -> anyhow::Result<()> {
        let mut child = self.gateway.take().context("the gateway does not run")?;
        kill_process(Pid::from_child(&child), Signal::TERM)?;
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                bail!("the gateway did not end within {PATIENCE:?} of SIGTERM");
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Process id of the gateway.
    pub fn gateway_pid(&self) -> Option<u32> {
        self.gateway.as_ref().map(Child::id)
    }

    /// What the gateway wrote to its log so far.
    pub fn gateway_log(&self) -> String {
        fs::read_to_string(self.root.path().join("gateway.log")).unwrap_or_default()
    }

    /// Writes a file beside the stack and gives its path.
    pub fn file(&self, name: &str, content: &str) -> anyhow::Result<PathBuf> {
        let path = self.root.path().join(name);
        fs::write(&path, content)?;
        Ok(path)
    }

    /// `openshell` with these arguments, not started yet.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<Command> {
        let mut command = Command::new(bins::path("openshell")?);
        command.args(args).envs(self.env()).stdin(Stdio::null());
        Ok(command)
    }

    /// Runs `openshell` and returns what it printed, whatever its exit code.
    pub fn cli<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<Output> {
        run(self.command(args)?, b"")
    }

    /// Runs `openshell`; anything but exit code 0 is an error that shows what it printed.
    pub fn ok<S: AsRef<std::ffi::OsStr>>(&self, args: impl IntoIterator<Item = S>) -> anyhow::Result<String> {
        let output = self.cli(args)?;
        ensure!(output.status.success(), "openshell ended with {}:\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// Creates a sandbox that waits for execs, with a policy given as text.
    pub fn sandbox(&self, name: &str, policy: &str, more: &[&str]) -> anyhow::Result<()> {
        let file = self.file(&format!("{name}.policy.yaml"), policy)?;
        let file = file.display().to_string();
        let mut args = vec!["sandbox", "create", "--name", name, "--policy", &file, "--detach"];
        args.extend_from_slice(more);
        self.ok(args).map(drop)
    }

    /// Runs a command in a sandbox.
    pub fn exec(&self, name: &str, command: &[&str]) -> anyhow::Result<Output> {
        self.exec_with_input(name, command, b"")
    }

    /// Runs a command in a sandbox with this standard input.
    pub fn exec_with_input(&self, name: &str, command: &[&str], input: &[u8]) -> anyhow::Result<Output> {
        let mut args = vec!["sandbox", "exec", "--name", name, "--no-tty", "--"];
        args.extend_from_slice(command);
        run(self.command(args)?, input)
    }

    /// Runs a Python program in a sandbox and returns its standard output; it must end with 0.
    pub fn python(&self, name: &str, program: &str) -> anyhow::Result<String> {
        let output = self.exec(name, &["python3", "-c", program])?;
        ensure!(output.status.success(), "python ended with {}:\n{}\n{}", output.status, text(&output.stdout), text(&output.stderr));
        Ok(text(&output.stdout))
    }

    /// Process ids of the supervisors (their guardians) that this stack's driver recorded.
    pub fn supervisors(&self) -> Vec<Pid> {
        let Ok(entries) = fs::read_dir(self.state().join("sandboxes")) else { return Vec::new() };
        entries
            .filter_map(|entry| {
                let record = fs::read(entry.ok()?.path().join("supervisor.json")).ok()?;
                let record: serde_json::Value = serde_json::from_slice(&record).ok()?;
                Pid::from_raw(i32::try_from(record.get("pid")?.as_i64()?).ok()?)
            })
            .filter(|pid| is_supervisor(*pid))
            .collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if let Some(mut child) = self.gateway.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let supervisors = self.supervisors();
        for pid in &supervisors {
            let _ = kill_process(*pid, Signal::TERM);
        }
        let deadline = Instant::now() + Duration::from_secs(5);
        while supervisors.iter().any(|pid| is_supervisor(*pid)) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(10));
        }
        for pid in supervisors.into_iter().filter(|pid| is_supervisor(*pid)) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if thread::panicking() || std::env::var_os("OPENSHELL_E2E_LOGS").is_some() {
            let _ = writeln!(std::io::stderr(), "--- gateway log\n{}", self.gateway_log());
            for entry in fs::read_dir(self.state().join("sandboxes")).into_iter().flatten().flatten() {
                let log = fs::read_to_string(entry.path().join("supervisor.log")).unwrap_or_default();
                let _ = writeln!(std::io::stderr(), "--- {}\n{log}", entry.path().display());
            }
        }
    }
}

/// Runs a command with this input and collects its output; killed after [`PATIENCE`].
pub fn run(mut command: Command, input: &[u8]) -> anyhow::Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("standard input")?;
    let input = input.to_vec();
    let feeder = thread::spawn(move || {
        let _ = stdin.write_all(&input);
    });
    let (mut out, mut err) = (child.stdout.take().context("standard output")?, child.stderr.take().context("standard error")?);
    let stdout = thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).map(|_| bytes)
    });
    let stderr = thread::spawn(move || {
        let mut bytes = Vec::new();
        err.read_to_end(&mut bytes).map(|_| bytes)
    });
    let deadline = Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() > deadline {
            child.kill()?;
            child.wait()?;
            let (out, err) = (stdout.join().ok(), stderr.join().ok());
            let show = |bytes: Option<std::io::Result<Vec<u8>>>| text(&bytes.and_then(Result::ok).unwrap_or_default());
            bail!("{command:?} did not end within {PATIENCE:?}:\n{}\n{}", show(out), show(err));
        }
        thread::sleep(Duration::from_millis(2));
    };
    let _ = feeder.join();
    let joined = |handle: thread::JoinHandle<std::io::Result<Vec<u8>>>| handle.join().unwrap_or_else(|_| Ok(Vec::new()));
    Ok(Output { status, stdout: joined(stdout)?, stderr: joined(stderr)? })
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A directory for a stack, where a person's would be: below the home directory. Not below `/tmp`
/// or `/var/tmp`, of which a sandbox has its own.
pub fn scratch() -> anyhow::Result<tempfile::TempDir> {
    let home = std::env::var_os("HOME").map(PathBuf::from).filter(|home| home.is_absolute()).context("HOME is not set")?;
    let parent = home.join(".cache");
    fs::create_dir_all(&parent)?;
    Ok(tempfile::Builder::new().prefix("openshell-e2e-").tempdir_in(parent)?)
}

/// A directory that every user can look into, where root makes one: for suites that take away the
/// mount namespace, without which an agent's workspace must not lie below a closed directory.
pub fn open_scratch() -> anyhow::Result<tempfile::TempDir> {
    if !crate::host::is_root() {
        return scratch();
    }
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    Ok(tempfile::Builder::new().prefix("openshell-e2e-").permissions(permissions).tempdir_in("/srv")?)
}

fn is_supervisor(pid: Pid) -> bool {
    fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).is_ok_and(|line| text(&line).contains("openshell-sandbox"))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
