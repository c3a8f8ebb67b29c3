//! The reconciler dies between any two of its steps; the next one goes on.
//!
//! This binary runs itself as `<binary> crash::reconciler_process --exact` with the failpoint in
//! the environment. The process aborts there (no unwinding: as good as `kill -9`), a second one
//! without a failpoint must reach the goal, and there must be one supervisor or none.

use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::api::DeleteParams;
use openshell_crds::OpenShellSandboxSpec;
use openshell_crds::sandbox::Phase;
use serde_json::json;

use crate::lifecycle::Reconciler;
use crate::rig::{PATIENCE, Rig, eventually, is_empty};

const ROOT: &str = "RIG_ROOT";
const GOAL: &str = "RIG_GOAL";

/// Every place in the code where the process can be made to die.
const PLACES: [&str; 14] = [
    "sandbox-held",
    "sandbox-starting",
    "process-noted",
    "process-cleared",
    "process-prepared",
    "process-bound",
    "process-recorded",
    "sandbox-started",
    "sandbox-status",
    "process-marked",
    "sandbox-deleting",
    "process-put-aside",
    "sandbox-releasing",
    "sandbox-status:3",
];

/// Not a test: the process that dies, when this binary runs itself.
#[tokio::test(flavor = "multi_thread")]
async fn reconciler_process() {
    let (Some(root), Ok(goal)) = (std::env::var_os(ROOT), std::env::var(GOAL)) else { return };
    let rig = Rig::at(PathBuf::from(root));
    let reconciler = Reconciler::start(&rig).await;
    if reconciler.sandboxes().get_opt("demo").await.unwrap().is_none() {
        if rig.root.join("deleted").exists() {
            return;
        }
        reconciler.create("demo", OpenShellSandboxSpec::default()).await;
    }
    let uid = reconciler.get("demo").await.uid().unwrap();
    std::fs::write(rig.root.join("uid"), &uid).unwrap();
    if goal != "ready" && rig.root.join("was-ready").exists() {
        finish(&rig, &reconciler, &goal).await;
        return;
    }
    reconciler.suspend("demo", false).await;
    reconciler.connect(&rig, "demo", &uid, json!({})).await;
    reconciler.phase("demo", Phase::Ready).await;
    std::fs::write(rig.root.join("was-ready"), "").unwrap();
    finish(&rig, &reconciler, &goal).await;
}

async fn finish(rig: &Rig, reconciler: &Reconciler, goal: &str) {
    match goal {
        "stopped" => {
            reconciler.suspend("demo", true).await;
            reconciler.phase("demo", Phase::Stopped).await;
        }
        "deleted" => {
            std::fs::write(rig.root.join("deleted"), "").unwrap();
            let _ = reconciler.sandboxes().delete("demo", &DeleteParams::default()).await;
            eventually("gone", async || reconciler.sandboxes().get_opt("demo").await.unwrap().is_none()).await;
            eventually("removed", async || is_empty(&rig.root.join("sandboxes/.removed"))).await;
        }
        _ => {}
    }
}

/// Runs the process to its end.
async fn run(root: &Path, goal: &str, failpoint: Option<&str>) -> ExitStatus {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["crash::reconciler_process", "--exact", "--nocapture"])
        .env(ROOT, root)
        .env(GOAL, goal)
        .env("RIG_SECRET", "x")
        .env_remove("OPENSHELL_FAILPOINT")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    if let Some(failpoint) = failpoint {
        command.env("OPENSHELL_FAILPOINT", failpoint);
    }
    let mut child = command.spawn().unwrap();
    let begin = std::time::Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if begin.elapsed() > PATIENCE * 2 {
            child.kill().unwrap();
            return child.wait().unwrap();
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn survives(goal: &str) {
    let mut died = Vec::new();
    for place in PLACES {
        let rig = Rig::new();
        let first = run(&rig.root, goal, Some(place)).await;
        if first.signal() == Some(6) {
            died.push(place);
        } else {
            assert!(first.success(), "{place}: the process that was to die at {place} failed otherwise: {first}");
        }
        // Dies there a second time, on the way of the one that takes over.
        let again = run(&rig.root, goal, Some(place)).await;
        assert!(again.signal() == Some(6) || again.success(), "{place}: {again}");
        let last = run(&rig.root, goal, None).await;
        assert!(last.success(), "{goal} is not reached after a death at {place}: {last}; {}", rig.root.display());
        let uid = std::fs::read_to_string(rig.root.join("uid")).unwrap();
        let living = rig.living(&uid).len();
        assert_eq!(living, usize::from(goal == "ready"), "{goal} after a death at {place}: {living} supervisors live");
        if goal == "deleted" {
            assert!(!rig.directory(&uid).exists(), "{place}: the directory is still there");
        }
    }
    eprintln!("{goal}: died at {died:?}");
    assert!(died.len() >= 6, "the failpoints were hardly ever reached: {died:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn create_survives_a_death_anywhere() {
    survives("ready").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_survives_a_death_anywhere() {
    survives("stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_survives_a_death_anywhere() {
    survives("deleted").await;
}
