//! Starting a helper and reading what came of it.

use std::{
    ffi::OsString,
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use openshell_supervisor::confine::{Domain, Host, LandlockCompatibility, Loopback, Namespaces, RunAs};

use crate::helper::{ARGUMENT, Also, Plan};

/// A test.
pub(crate) type Case = fn(Setting);

/// Who runs the supervisor, and what it can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) user: User,
    pub(crate) namespaces: Has,
}

/// Who runs the supervisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Ordinary,
}

/// Whether there are namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Has {
    All,
    None,
}

impl Setting {
    pub(crate) fn all() -> Vec<Self> {
        let root = rustix::process::geteuid().is_root();
        let users = if root { vec![User::Ordinary, User::Root] } else { vec![User::Ordinary] };
        let both = |user| [Has::All, Has::None].map(|namespaces| Self { user, namespaces });
        users.into_iter().flat_map(both).collect()
    }

    pub(crate) fn name(self) -> &'static str {
        match (self.user, self.namespaces) {
            (User::Root, Has::All) => "root",
            (User::Root, Has::None) => "root, no namespaces",
            (User::Ordinary, Has::All) => "user",
            (User::Ordinary, Has::None) => "user, no namespaces",
        }
    }
}

/// An address of this machine that is not loopback.
pub(crate) fn own_address() -> std::net::IpAddr {
    let probe = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent; the kernel only chooses a route.
    probe.connect("192.0.2.1:9").unwrap();
    probe.local_addr().unwrap().ip()
}

/// A server outside that answers every connection with a word and what it read, until the test ends.
pub(crate) fn server(word: &'static str) -> std::net::SocketAddr {
    let listener = std::net::TcpListener::bind((own_address(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, word));
        }
    });
    address
}

fn answer(mut stream: std::net::TcpStream, word: &str) {
    use std::io::Read as _;
    let mut request = [0; 4096];
    let Ok(length) = stream.read(&mut request) else { return };
    let request = String::from_utf8_lossy(&request[..length]);
    if request.starts_with("GET ") {
        let _ =
            stream.write_all(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{word}", word.len()).as_bytes());
    } else {
        let _ = stream.write_all(format!("{word}:{request}").as_bytes());
    }
}

/// A sandbox that is going to run one program.
pub(crate) struct Sandbox {
    pub(crate) plan: Plan,
    pub(crate) user: Option<u32>,
    pub(crate) directory: tempfile::TempDir,
    pub(crate) environment: Vec<(String, String)>,
    /// Soft limit of descriptors that the supervisor starts with.
    pub(crate) descriptors: Option<u64>,
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) log: String,
}

impl Sandbox {
    pub(crate) fn new<S: AsRef<str>>(argv: &[S]) -> Self {
        Self::within(tempfile::Builder::new().prefix("openshell-test-").tempdir().unwrap(), argv)
    }

    /// In this directory.
    pub(crate) fn within<S: AsRef<str>>(directory: tempfile::TempDir, argv: &[S]) -> Self {
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
            descriptors: None,
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

    /// A Python program, with the few words that every one of them needs.
    pub(crate) fn python(program: &str) -> Self {
        const BEGIN: &str = "import errno, os, socket, sys, threading, time, ctypes, signal, struct, subprocess\n\
            def expect(number, call):\n    try: r = call()\n    except OSError as e: assert e.errno == number, (e, number); return\n    \
            raise AssertionError('expected %s, got %r' % (errno.errorcode[number], r))\n\
            libc = ctypes.CDLL(None, use_errno=True)\n\
            def syscall(*a):\n    r = libc.syscall(*[ctypes.c_long(x) if isinstance(x, int) else x for x in a])\n    \
            if r < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n    return r\n\
            TMP = os.environ.get('TMPDIR', '/tmp')\n";
        Self::new(&["/usr/bin/python3", "-c", &format!("{BEGIN}{program}")])
    }

    /// In this setting.
    pub(crate) fn set(mut self, setting: Setting) -> Self {
        if setting.namespaces == Has::None {
            self.plan.domain.namespaces = Namespaces::NONE;
        }
        if setting.user == User::Ordinary { self.for_user() } else { self }
    }

    /// The whole sandbox, supervisor and all, as an ordinary user (from root).
    fn for_user(mut self) -> Self {
        if rustix::process::geteuid().is_root() {
            let uid = 64_102;
            self.user = Some(uid);
            self.plan.domain.run_as = None;
            self.give_to(uid);
            std::os::unix::fs::chown(self.directory.path(), Some(uid), Some(uid)).unwrap();
        }
        self
    }

    pub(crate) fn allow(mut self, destination: &str, target: std::net::SocketAddr) -> Self {
        self.plan.allow.insert(destination.to_owned(), target);
        self
    }

    pub(crate) fn name(mut self, name: &str, address: [u8; 4]) -> Self {
        self.plan.names.insert(name.to_owned(), address.into());
        self
    }

    pub(crate) fn workspace(&self) -> &Path {
        &self.plan.domain.workspace
    }

    pub(crate) fn start(&self) -> std::process::Child {
        let own = std::env::current_exe().unwrap();
        let mut words: Vec<OsString> = Vec::new();
        if let Some(soft) = self.descriptors {
            words.extend(["/usr/bin/prlimit".into(), format!("--nofile={soft}:").into(), "--".into()]);
        }
        if let Some(uid) = self.user {
            words.push("/usr/bin/setpriv".into());
            words.extend([format!("--reuid={uid}"), format!("--regid={uid}")].map(Into::into));
            words.extend(["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--"].map(Into::into));
            words.push(readable_copy(&own).into());
        } else {
            words.push(own.into());
        }
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg(ARGUMENT).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env("HOME", self.workspace()).envs(self.environment.iter().cloned());
        let mut child = command.spawn().unwrap();
        let plan = serde_json::to_vec(&self.plan).unwrap();
        child.stdin.take().unwrap().write_all(&plan).unwrap();
        child
    }

    pub(crate) fn run(self) -> Outcome {
        let output = self.start().wait_with_output().unwrap();
        Outcome {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            log: fs::read_to_string(&self.plan.log).unwrap_or_default(),
        }
    }
}

impl Outcome {
    /// The program ended with 0; what it said otherwise is the failure.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert!(self.code == 0, "code {}\n{}{}\n{}", self.code, self.stdout, self.stderr, self.log);
        self
    }

    /// A line of the log has this.
    #[track_caller]
    pub(crate) fn logged(self, text: &str) -> Self {
        assert!(self.log.contains(text), "no {text} in\n{}{}{}", self.log, self.stdout, self.stderr);
        self
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
