//! The supervisor that waits for the next sandbox.

use std::path::{Path, PathBuf};

use openshell_operator::driver::{ComputeDriver, WorkloadState};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::objects::blueprint;
use crate::rig::{Rig, eventually, kill};

const UID: &str = "0b9f1f4e-6f5a-4f0e-8d29-5d1f6c1f7a11";

/// Processes that were started in a spare directory of this rig and live, with that directory.
fn waiting(rig: &Rig) -> Vec<(u32, PathBuf)> {
    let place = rig.root.join("sandboxes/.spare-");
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let command = String::from_utf8(std::fs::read(entry.path().join("cmdline")).ok()?).ok()?;
            let directory = command.split('\0').nth(2)?;
            directory.starts_with(place.to_str().unwrap()).then(|| (pid, PathBuf::from(directory)))
        })
        .collect()
}

async fn one(rig: &Rig) -> (u32, PathBuf) {
    eventually("one waits", async || waiting(rig).len() == 1).await;
    waiting(rig).remove(0)
}

/// Whether a child of ours has ended with its last thread, reaped or not.
fn is_dead(pid: u32) -> bool {
    let child = WaitId::Pid(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap());
    !matches!(waitid(child, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG), Ok(None))
}

async fn running(driver: &dyn ComputeDriver) {
    eventually("running", async || matches!(driver.observe(UID).await.unwrap(), WorkloadState::Running { .. })).await;
}

fn spare_directories(rig: &Rig) -> usize {
    let entries = std::fs::read_dir(rig.root.join("sandboxes")).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(".spare-")).count()
}

fn log(directory: &Path) -> Option<String> {
    std::fs::read_to_string(directory.join("supervisor.log")).ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_sandbox_takes_the_one_that_waits_and_another_takes_its_place() {
    let rig = Rig::new();
    let driver = rig.driver();
    let (pid, directory) = one(&rig).await;
    std::fs::write(directory.join("supervisor.log"), "what was said while it waited").unwrap();
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    assert_eq!(rig.living(UID), [pid]);
    assert!(!directory.exists(), "its directory is the sandbox's now");
    assert!(log(&rig.directory(UID)).unwrap().starts_with("what was said while it waited"));
    eventually("another waits", async || waiting(&rig).iter().any(|(other, _)| *other != pid)).await;
    assert_eq!(spare_directories(&rig), 1);
    assert_eq!(driver.list().await.unwrap(), [UID], "one that waits is no sandbox");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_goes_with_its_driver_and_leaves_nothing() {
    let rig = Rig::new();
    let driver = rig.driver();
    one(&rig).await;
    drop(driver);
    eventually("nobody waits", async || waiting(&rig).is_empty()).await;
    assert_eq!(spare_directories(&rig), 0);
    // As an earlier driver leaves it that was killed.
    std::fs::create_dir_all(rig.root.join("sandboxes/.spare-old/workspace")).unwrap();
    let _driver = rig.driver();
    one(&rig).await;
    assert_eq!(spare_directories(&rig), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_died_is_not_taken() {
    let rig = Rig::new();
    let driver = rig.driver();
    let (pid, _) = one(&rig).await;
    kill(pid);
    eventually("it is dead", async || is_dead(pid)).await;
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    assert_ne!(rig.living(UID), [pid]);
    assert_eq!(rig.started(UID), 1);
    eventually("another waits", async || waiting(&rig).iter().any(|(other, _)| !rig.living(UID).contains(other))).await;
    eventually("nothing is left of the dead one", async || spare_directories(&rig) == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_starts_again_keeps_the_log_of_the_run_before() {
    let rig = Rig::new();
    let driver = rig.driver();
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    let directory = rig.directory(UID);
    std::fs::write(directory.join("supervisor.log"), "the first run").unwrap();
    driver.suspend(UID).await.unwrap();
    eventually("suspended", async || driver.observe(UID).await.unwrap() == WorkloadState::Suspended).await;
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    assert_eq!(std::fs::read_to_string(directory.join("supervisor.log.1")).unwrap(), "the first run");
    assert!(!log(&directory).unwrap().contains("the first run"));
}
