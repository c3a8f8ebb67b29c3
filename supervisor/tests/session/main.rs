//! A supervisor and a gateway that come and go: the real binary against the real hub.

#![allow(clippy::unwrap_used)]

mod dependencies;
mod exchange;
mod exec;
mod fake;
mod gateway;
mod hub;
mod lifecycle;
mod supervisor;

use std::{path::PathBuf, time::Duration};

use gateway::{Gateway, Ground};
use supervisor::Supervisor;

/// What ordinary programs need.
pub(crate) const POLICY: &str = "\
version: 1
filesystem_policy:
  include_workdir: true
  read_only: [/usr, /lib, /lib64, /bin, /sbin, /etc, /proc, /dev/urandom, /dev/zero]
  read_write: [/tmp, /dev/null, /dev/tty]
";

/// A directory of its own for a test; removed when it passes.
pub(crate) struct Room(PathBuf);

impl Room {
    fn new(name: &str) -> Self {
        // The build's own directory need not be this user's.
        let parent = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from);
        let path = parent.join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn ground(&self) -> Ground {
        Ground::new(self.0.clone())
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// A running sandbox: gateway, object, supervisor.
pub(crate) struct Running {
    pub(crate) gateway: Gateway,
    pub(crate) supervisor: Supervisor,
    pub(crate) ground: Ground,
    pub(crate) uid: String,
    _room: Room,
}

pub(crate) const NAME: &str = "demo";

impl Running {
    pub(crate) async fn start(test: &str, command: &[&str]) -> Self {
        Self::start_with(test, gateway::spec(command, POLICY)).await
    }

    pub(crate) async fn start_with(test: &str, spec: openshell_crds::OpenShellSandboxSpec) -> Self {
        let room = Room::new(test);
        let ground = room.ground();
        let gateway = ground.start().await;
        let uid = gateway.create(NAME, spec).await.metadata.uid.unwrap();
        let supervisor = Supervisor::start(&ground, &uid);
        Self { gateway, supervisor, ground, uid, _room: room }
    }

    pub(crate) async fn connected(&self) {
        for _ in 0..1000 {
            if self.gateway.hub.connected(&self.uid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("not connected:\n{}", self.supervisor.log());
    }
}
