//! A state directory with a driver, and what can be seen in it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use openshell_operator::driver::process::{BootstrapError, BootstrapSource, GatewayAccess, ProcessDriver, ProcessDriverConfig};

use crate::stand_in::{STARTS, start_time_of};

/// How long anything may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

struct Tokens;

impl BootstrapSource for Tokens {
    fn bootstrap(&self, uid: &str, _name: &str) -> Result<GatewayAccess, BootstrapError> {
        Ok(GatewayAccess {
            endpoint: "https://127.0.0.1:1".to_owned(),
            server_name: "localhost".to_owned(),
            ca_pem: "-".repeat(100 << 10),
            token: format!("token of {uid}"),
        })
    }
}

/// A state directory of its own. Whatever still runs in it is killed at the end.
pub(crate) struct Rig {
    pub(crate) root: PathBuf,
    own: Option<tempfile::TempDir>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let own = tempfile::tempdir().unwrap();
        Self { root: own.path().to_owned(), own: Some(own) }
    }

    /// Over the directory of another rig, which cleans up.
    #[cfg(feature = "failpoints")]
    pub(crate) fn at(root: PathBuf) -> Self {
        Self { root, own: None }
    }

    pub(crate) fn config(&self) -> ProcessDriverConfig {
        let mut config = ProcessDriverConfig::new(
            self.root.join("sandboxes"),
            std::env::current_exe().unwrap(),
            vec![self.root.clone()],
            Arc::new(Tokens),
        );
        config.grace.stop = Duration::from_millis(300);
        config.grace.delete = Duration::from_millis(300);
        config
    }

    pub(crate) fn driver(&self) -> ProcessDriver {
        ProcessDriver::new(self.config()).unwrap()
    }

    pub(crate) fn directory(&self, uid: &str) -> PathBuf {
        self.root.join("sandboxes").join(uid)
    }

    /// Pids of all stand-ins of a sandbox that live.
    pub(crate) fn living(&self, uid: &str) -> Vec<u32> {
        self.starts()
            .into_iter()
            .filter(|(of, pid, start)| of == uid && start_time_of(*pid) == Some(*start))
            .map(|(_, pid, _)| pid)
            .collect()
    }

    /// How many stand-ins were ever started for a sandbox.
    pub(crate) fn started(&self, uid: &str) -> usize {
        self.starts().iter().filter(|(of, ..)| of == uid).count()
    }

    fn starts(&self) -> Vec<(String, u32, u64)> {
        let text = std::fs::read_to_string(self.root.join(STARTS)).unwrap_or_default();
        text.lines()
            .filter_map(|line| {
                let mut parts = line.split(' ');
                Some((parts.next()?.to_owned(), parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
            })
            .collect()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.own.is_none() {
            return;
        }
        for (_, pid, start) in self.starts() {
            if start_time_of(pid) == Some(start) {
                kill(pid);
            }
        }
    }
}

pub(crate) fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// Waits until it holds.
pub(crate) async fn eventually<F, Fut>(what: &str, mut holds: F)
where
    F: FnMut() -> Fut,
    Fut: Future<Output = bool>,
{
    let begin = Instant::now();
    while !holds().await {
        assert!(begin.elapsed() < PATIENCE, "did not come to be: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Whether nothing is left below a path.
pub(crate) fn is_empty(path: &Path) -> bool {
    std::fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none())
}
