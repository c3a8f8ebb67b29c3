//! The real binary, started as a driver starts it.

use std::{
    fs,
    io::Write as _,
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::gateway::Ground;

/// An unused uid, for runs as root.
const UID: u32 = 61_234;

pub(crate) struct Supervisor {
    child: Child,
    pub(crate) directory: PathBuf,
}

impl Supervisor {
    pub(crate) fn start(ground: &Ground, uid: &str) -> Self {
        Self::start_in(ground, uid, &ground.directory.join("sandboxes").join(uid))
    }

    pub(crate) fn start_in(ground: &Ground, uid: &str, directory: &Path) -> Self {
        let workspace = directory.join("workspace");
        let tmp = directory.join("tmp");
        fs::create_dir_all(&workspace).unwrap();
        fs::create_dir_all(&tmp).unwrap();
        let root = rustix::process::geteuid().is_root();
        let mut document = serde_json::json!({
            "version": 1, "sandbox_id": uid, "sandbox_name": "test",
            "gateway": { "endpoint": format!("https://{}", ground.address), "server_name": "localhost", "ca_pem": ground.ca_pem },
            "token": uid, "directory": directory, "workspace": workspace,
            "protected_paths": [],
        });
        if root {
            document["run_as"] = serde_json::json!({ "uid": UID, "gid": UID });
            for path in [&workspace, &tmp] {
                chown(path, Some(UID), Some(UID)).unwrap();
            }
            fs::set_permissions(directory, fs::Permissions::from_mode(0o711)).unwrap();
        }
        Self::spawn(directory, &document.to_string())
    }

    pub(crate) fn spawn(directory: &Path, document: &str) -> Self {
        let log = fs::File::options().create(true).append(true).open(directory.join("supervisor.log")).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_openshell-sandbox"))
            .arg("supervise")
            .env_clear()
            .env("PATH", "/usr/bin:/bin")
            .env("RUST_LOG", "info,openshell_supervisor=debug")
            .stdin(Stdio::piped())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(document.as_bytes()).unwrap();
        Self { child, directory: directory.to_owned() }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.directory.join("supervisor.log")).unwrap_or_default()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// The exit code, within ten seconds.
    pub(crate) fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
            }
            assert!(Instant::now() < deadline, "the supervisor does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- supervisor.log\n{}", self.log());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
