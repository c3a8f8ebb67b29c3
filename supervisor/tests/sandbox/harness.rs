//! Starting a helper and reading what came of it.

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use openshell_supervisor::confine::{Domain, Host, LandlockCompatibility, Loopback, Namespaces, RunAs};

use crate::helper::{ARGUMENT, Also, Plan};

/// A sandbox that is going to run one program.
pub struct Sandbox {
    pub plan: Plan,
    pub user: Option<u32>,
    pub directory: tempfile::TempDir,
    pub environment: Vec<(String, String)>,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
    pub log: String,
}

impl Sandbox {
    pub fn new<S: AsRef<str>>(argv: &[S]) -> Self {
        let directory = tempfile::Builder::new().prefix("openshell-test-").tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let inside = |name: &str| directory.path().join(name);
        for name in ["workspace", "tmp", "log"] {
            fs::create_dir(inside(name)).unwrap();
        }
        let root = rustix::process::geteuid().is_root();
        let run_as = root.then_some(RunAs { uid: 64_101, gid: 64_101 });
        let paths = |list: &[&str]| list.iter().map(PathBuf::from).collect::<Vec<_>>();
        let mut sandbox = Self {
            plan: Plan {
                domain: Domain {
                    read_only: paths(&["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc", "/proc", "/dev/urandom", "/dev/zero"]),
                    read_write: paths(&["/tmp", "/dev/null"]),
                    landlock: LandlockCompatibility::BestEffort,
                    run_as,
                    workspace: inside("workspace"),
                    directory: directory.path().to_owned(),
                    protected: Vec::new(),
                    loopback: Loopback::Private,
                    namespaces: Namespaces::default(),
                    host: Host::Shared,
                },
                argv: argv.iter().map(|argument| argument.as_ref().to_owned()).collect(),
                allow: std::collections::BTreeMap::default(),
                names: std::collections::BTreeMap::default(),
                delay_ms: 0,
                log: inside("log/log"),
                also: Also::Nothing,
            },
            user: None,
            directory,
            environment: Vec::new(),
        };
        if let Some(run_as) = run_as {
            sandbox.give_to(run_as.uid);
        }
        sandbox
    }

    fn give_to(&mut self, uid: u32) {
        for name in ["workspace", "tmp", "log"] {
            std::os::unix::fs::chown(self.directory.path().join(name), Some(uid), Some(uid)).unwrap();
        }
    }

    pub fn python(program: &str) -> Self {
        Self::new(&["/usr/bin/python3", "-c", program])
    }

    pub fn without_namespaces(mut self) -> Self {
        self.plan.domain.namespaces = Namespaces::NONE;
        self
    }

    /// The whole sandbox, supervisor and all, as an ordinary user (from root).
    pub fn as_user(mut self) -> Self {
        if rustix::process::geteuid().is_root() {
            let uid = 64_102;
            self.user = Some(uid);
            self.plan.domain.run_as = None;
            self.give_to(uid);
            std::os::unix::fs::chown(self.directory.path(), Some(uid), Some(uid)).unwrap();
        }
        self
    }

    pub fn allow(mut self, destination: &str, target: std::net::SocketAddr) -> Self {
        self.plan.allow.insert(destination.to_owned(), target);
        self
    }

    pub fn name(mut self, name: &str, address: [u8; 4]) -> Self {
        self.plan.names.insert(name.to_owned(), address.into());
        self
    }

    pub fn workspace(&self) -> &Path {
        &self.plan.domain.workspace
    }

    pub fn start(&self) -> std::process::Child {
        let own = std::env::current_exe().unwrap();
        let mut command = if let Some(uid) = self.user {
            let mut command = Command::new("/usr/bin/setpriv");
            let uid = uid.to_string();
            command.args(["--reuid", &uid, "--regid", &uid, "--clear-groups", "--inh-caps=-all", "--bounding-set=-all"]);
            command.arg(readable_copy(&own));
            command
        } else {
            Command::new(own)
        };
        command.arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("HOME", self.workspace()).envs(self.environment.iter().cloned());
        let mut child = command.spawn().unwrap();
        let plan = serde_json::to_vec(&self.plan).unwrap();
        child.stdin.take().unwrap().write_all(&plan).unwrap();
        child
    }

    pub fn run(self) -> Outcome {
        let output = self.start().wait_with_output().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            log: fs::read_to_string(&self.plan.log).unwrap_or_default(),
        }
    }
}

/// This executable may lie where an ordinary user cannot read it.
fn readable_copy(own: &Path) -> PathBuf {
    use std::sync::OnceLock;
    static COPY: OnceLock<PathBuf> = OnceLock::new();
    COPY.get_or_init(|| {
        let path = std::env::temp_dir().join(format!("openshell-sandbox-tests-{}", std::process::id()));
        fs::copy(own, &path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    })
    .clone()
}
