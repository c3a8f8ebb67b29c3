//! The process driver's contract, with real processes.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use openshell_operator::driver::{ComputeDriver, Retry, WorkloadState};

use crate::objects::blueprint;
use crate::rig::{Rig, eventually, is_empty, kill};

const UID: &str = "0b9f1f4e-6f5a-4f0e-8d29-5d1f6c1f7a11";

async fn state(driver: &dyn ComputeDriver) -> WorkloadState {
    driver.observe(UID).await.unwrap()
}

async fn running(driver: &dyn ComputeDriver) {
    eventually("running", async || matches!(state(driver).await, WorkloadState::Running { .. })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn starts_once_however_often_it_is_asked() {
    let rig = Rig::new();
    let driver = rig.driver();
    assert_eq!(state(&driver).await, WorkloadState::Absent);
    let wanted = blueprint("demo", UID);
    let all = futures::future::join_all((0..16).map(|_| driver.ensure(&wanted))).await;
    assert!(all.iter().all(Result::is_ok), "{all:?}");
    running(&driver).await;
    driver.ensure(&wanted).await.unwrap();
    assert_eq!(rig.living(UID).len(), 1);
    assert_eq!(rig.started(UID), 1);
    let WorkloadState::Running { id, instance, .. } = state(&driver).await else { panic!("not running") };
    assert_eq!(id, rig.living(UID)[0].to_string());
    assert!(instance.unwrap().starts_with(UID));
    assert_eq!(driver.list().await.unwrap(), [UID]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_driver_finds_what_the_first_one_started() {
    let rig = Rig::new();
    let first = rig.driver();
    first.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&first).await;
    drop(first);
    let second = rig.driver();
    let mut changes = second.watch();
    running(&second).await;
    second.ensure(&blueprint("demo", UID)).await.unwrap();
    assert_eq!(rig.started(UID), 1);
    // And it notices the end of a process that is not its child.
    let begin = Instant::now();
    kill(rig.living(UID)[0]);
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap(), UID);
    assert!(begin.elapsed() < Duration::from_secs(5), "noticed after {:?}", begin.elapsed());
    let WorkloadState::Failed { code, .. } = state(&second).await else { panic!("not failed: {:?}", state(&second).await) };
    assert_eq!(code, "SupervisorDied");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_that_is_killed_is_a_failure_until_someone_acts() {
    let rig = Rig::new();
    let driver = rig.driver();
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    kill(rig.living(UID)[0]);
    eventually("failed", async || matches!(state(&driver).await, WorkloadState::Failed { .. })).await;
    let before = state(&driver).await;
    let WorkloadState::Failed { code, message, .. } = &before else { panic!("not failed") };
    assert_eq!(code, "SupervisorDied");
    assert!(message.contains("signal 9"), "{message}");
    drop(driver);
    let driver = rig.driver();
    assert_eq!(state(&driver).await, before, "the failure is the same after a restart of the driver");
    driver.suspend(UID).await.unwrap();
    assert_eq!(state(&driver).await, WorkloadState::Suspended);
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    assert_eq!(rig.living(UID).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn typed_failures_of_the_supervisor_are_kept() {
    let rig = Rig::new();
    let driver = rig.driver();
    driver.ensure(&blueprint("fails-here", UID)).await.unwrap();
    eventually("failed", async || matches!(state(&driver).await, WorkloadState::Failed { .. })).await;
    let WorkloadState::Failed { code, message, at } = state(&driver).await else { panic!("not failed") };
    assert_eq!((code.as_str(), message.as_str()), ("LandlockUnavailable", "no Landlock here"));
    assert_eq!(at.to_string(), "2026-01-02T03:04:05Z");

    let other = "11111111-6f5a-4f0e-8d29-5d1f6c1f7a11";
    driver.ensure(&blueprint("dies-here", other)).await.unwrap();
    eventually("failed", async || matches!(driver.observe(other).await.unwrap(), WorkloadState::Failed { .. })).await;
    let WorkloadState::Failed { code, message, .. } = driver.observe(other).await.unwrap() else { panic!("not failed") };
    assert_eq!(code, "SupervisorFailed");
    assert!(message.contains("exit code 3"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn suspends_keeps_the_workspace_and_starts_again() {
    let rig = Rig::new();
    let driver = rig.driver();
    let mut changes = driver.watch();
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    std::fs::write(rig.directory(UID).join("workspace/notes"), "kept").unwrap();
    driver.suspend(UID).await.unwrap();
    assert!(matches!(state(&driver).await, WorkloadState::Stopping | WorkloadState::Suspended));
    eventually("suspended", async || state(&driver).await == WorkloadState::Suspended).await;
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), changes.next()).await.unwrap().unwrap(), UID);
    assert!(rig.living(UID).is_empty());
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    assert_eq!(std::fs::read_to_string(rig.directory(UID).join("workspace/notes")).unwrap(), "kept");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_go_when_asked_is_killed_and_nothing_starts_meanwhile() {
    let rig = Rig::new();
    let driver = rig.driver();
    let wanted = blueprint("stubborn-one", UID);
    driver.ensure(&wanted).await.unwrap();
    running(&driver).await;
    let begin = Instant::now();
    driver.suspend(UID).await.unwrap();
    let refused = driver.ensure(&wanted).await.unwrap_err();
    assert_eq!((refused.code, refused.retry), ("StillStopping", Retry::Later));
    eventually("suspended", async || state(&driver).await == WorkloadState::Suspended).await;
    assert!(begin.elapsed() >= Duration::from_millis(290), "killed before its grace was over: {:?}", begin.elapsed());
    assert_eq!(rig.started(UID), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ending_that_was_cut_short_is_taken_up_again() {
    let rig = Rig::new();
    let driver = rig.driver();
    driver.ensure(&blueprint("stubborn-one", UID)).await.unwrap();
    running(&driver).await;
    // As left by a gateway that was killed after it had marked the sandbox.
    std::fs::write(rig.directory(UID).join("suspended"), "").unwrap();
    let next = rig.driver();
    assert_eq!(state(&next).await, WorkloadState::Stopping);
    next.suspend(UID).await.unwrap();
    eventually("suspended", async || state(&next).await == WorkloadState::Suspended).await;
    assert!(rig.living(UID).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_leaves_nothing_and_follows_no_link() {
    let rig = Rig::new();
    let driver = rig.driver();
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    let outside = rig.root.join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("precious"), "x").unwrap();
    hostile(&rig.directory(UID).join("workspace"), &outside);
    driver.delete(UID).await.unwrap();
    driver.delete(UID).await.unwrap();
    eventually("absent", async || state(&driver).await == WorkloadState::Absent).await;
    assert!(!rig.directory(UID).exists());
    let removed = rig.root.join("sandboxes/.removed");
    eventually("removed", async || is_empty(&removed)).await;
    assert_eq!(std::fs::read_to_string(outside.join("precious")).unwrap(), "x");
    assert!(driver.list().await.unwrap().is_empty());
}

/// A tree made to hurt whoever removes it.
fn hostile(workspace: &Path, outside: &Path) {
    symlink(outside, workspace.join("link")).unwrap();
    symlink("/", workspace.join("root")).unwrap();
    symlink("nowhere", workspace.join("dangling")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, workspace.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    let odd = <std::ffi::OsString as std::os::unix::ffi::OsStringExt>::from_vec(vec![0xff, 0xfe, b'\n', b'-']);
    std::fs::write(workspace.join(odd), "x").unwrap();
    // Deeper than a path may be long, with links beside each step.
    let mut directory =
        rustix::fs::open(workspace, rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&directory, "d", rustix::fs::Mode::RWXU).unwrap();
        directory =
            rustix::fs::openat(&directory, "d", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty())
                .unwrap();
        rustix::fs::symlinkat(outside, &directory, "out").unwrap();
    }
    let closed = workspace.join("closed");
    std::fs::create_dir_all(closed.join("inner/deeper")).unwrap();
    std::fs::write(closed.join("inner/file"), "x").unwrap();
    std::fs::set_permissions(closed.join("inner/deeper"), PermissionsExt::from_mode(0o000)).unwrap();
    std::fs::set_permissions(closed.join("inner"), PermissionsExt::from_mode(0o500)).unwrap();
    std::fs::set_permissions(&closed, PermissionsExt::from_mode(0o000)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_goes_on_after_a_restart_and_needs_no_process() {
    let rig = Rig::new();
    let driver = rig.driver();
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    driver.suspend(UID).await.unwrap();
    eventually("suspended", async || state(&driver).await == WorkloadState::Suspended).await;
    driver.delete(UID).await.unwrap();
    assert_eq!(state(&driver).await, WorkloadState::Absent, "nothing to wait for: it is gone when delete returns");
    // What an earlier process had put aside and not removed yet.
    // The first one's remover may be taking the directory away that this is made in.
    let old = rig.root.join("sandboxes/.removed/old.1/workspace/a");
    eventually("it is there", async || std::fs::create_dir_all(&old).is_ok()).await;
    let next = rig.driver();
    next.list().await.unwrap();
    eventually("removed", async || is_empty(&rig.root.join("sandboxes/.removed"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_were_left_behind_mislead_nobody() {
    let rig = Rig::new();
    let driver = rig.driver();
    let directory = rig.directory(UID);
    std::fs::create_dir_all(&directory).unwrap();
    // A supervisor of an earlier boot whose process id belongs to someone else now.
    let mine = std::process::id();
    std::fs::write(directory.join("supervisor.json"), format!(r#"{{"pid":{mine},"start_time":1,"instance":"old"}}"#)).unwrap();
    std::fs::write(directory.join("driver.json"), r#"{"version":1,"name":"demo","boot_id":"another","process":{"pid":1,"start_time":1}}"#)
        .unwrap();
    assert_eq!(state(&driver).await, WorkloadState::Absent, "the machine was restarted: nothing failed");
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    assert_eq!(rig.living(UID).len(), 1);
    // Torn and hostile records.
    driver.suspend(UID).await.unwrap();
    eventually("suspended", async || state(&driver).await == WorkloadState::Suspended).await;
    std::fs::write(directory.join("driver.json"), "{").unwrap();
    std::fs::remove_file(directory.join("suspended")).unwrap();
    let _ = std::fs::remove_file(directory.join("supervisor.json"));
    symlink("/dev/zero", directory.join("supervisor.json")).unwrap();
    assert_eq!(state(&driver).await, WorkloadState::Absent);
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
    assert_eq!(rig.living(UID).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_starts_where_the_lock_is_held() {
    let rig = Rig::new();
    let driver = rig.driver();
    let directory = rig.directory(UID);
    std::fs::create_dir_all(&directory).unwrap();
    let lock = std::fs::File::create(directory.join("lock")).unwrap();
    lock.lock().unwrap();
    assert_eq!(state(&driver).await, WorkloadState::Starting { waiting: None }, "someone is there who has not said who");
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    assert_eq!(rig.started(UID), 0);
    // Closing would not do: a process that is just being started may have a copy.
    lock.unlock().unwrap();
    driver.ensure(&blueprint("demo", UID)).await.unwrap();
    running(&driver).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_that_start_one_goes_and_that_is_no_failure() {
    let rig = Rig::new();
    let wanted = blueprint("slow-one", UID);
    rig.driver().ensure(&wanted).await.unwrap();
    // As left by a gateway that was killed between the spawn and its note of it: the supervisor
    // is on its way to the lock, and nobody knows of it.
    std::fs::write(rig.directory(UID).join("driver.json"), r#"{"version":1,"name":"slow-one","boot_id":"x"}"#).unwrap();
    let driver = rig.driver();
    driver.ensure(&wanted).await.unwrap();
    running(&driver).await;
    eventually("two were started", async || rig.started(UID) == 2).await;
    eventually("one is left", async || rig.living(UID).len() == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let WorkloadState::Running { id, .. } = state(&driver).await else { panic!("{:?}", state(&driver).await) };
    assert_eq!(id, rig.living(UID)[0].to_string());
}

#[tokio::test(flavor = "multi_thread")]
async fn refuses_what_it_cannot_do_and_says_what_to_do() {
    let rig = Rig::new();
    let mut config = rig.config();
    config.supervisor = rig.root.join("missing");
    let driver = openshell_operator::driver::process::ProcessDriver::new(config).unwrap();
    let error = driver.ensure(&blueprint("demo", UID)).await.unwrap_err();
    assert_eq!((error.code, error.retry), ("SupervisorMissing", Retry::Never));
    assert!(error.message.contains("--supervisor"), "{error}");
    let error = driver.observe("../../etc").await.unwrap_err();
    assert_eq!(error.code, "InvalidUid");

    let mut wants = blueprint("demo", UID);
    wants.policy = openshell_policy::from_yaml("version: 1\nprocess: { run_as_user: \"4711\" }\n").unwrap();
    assert_eq!(driver.admit(&wants).unwrap_err().code, "RunAsUnsupported");

    let mut wants = blueprint("demo", UID);
    wants.pod.image = Some("ghcr.io/example/agent:1".into());
    let error = driver.admit(&wants).unwrap_err();
    assert_eq!(error.code, "PodUnsupported");
    wants.pod.resources = serde_json::from_value(serde_json::json!({ "gpu": { "count": 1 } })).unwrap();
    let gpu = driver.admit(&wants).unwrap_err();
    assert_eq!((gpu.code, gpu.message.contains("resources.gpu")), ("GpuUnsupported", true));
    assert!(error.message.starts_with("image: "), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_may_not_grant_the_directories_of_others() {
    // Not below /tmp, of which every sandbox has its own.
    let own = tempfile::Builder::new().prefix(".sandboxes-").tempdir_in("/dev/shm").unwrap();
    let rig = Rig::new();
    let mut config = rig.config();
    config.state_dir = own.path().join("sandboxes");
    config.protected_paths = vec![own.path().to_owned()];
    let driver = openshell_operator::driver::process::ProcessDriver::new(config).unwrap();
    let link = rig.root.join("link");
    symlink(own.path(), &link).unwrap();
    for grant in [
        "/".to_owned(),
        own.path().display().to_string(),
        format!("{}/sandboxes/x", own.path().display()),
        format!("{}/./..", own.path().display()),
    ] {
        let mut wants = blueprint("demo", UID);
        let mut filesystem = wants.policy.filesystem_policy.clone().unwrap();
        filesystem.read_only = vec![grant.clone()];
        wants.policy.filesystem_policy = Some(filesystem);
        let error = driver.admit(&wants).unwrap_err();
        assert_eq!(error.code, "PolicyGrantsProtectedPath", "{grant}");
        assert!(error.message.contains(&grant) && error.message.contains(&own.path().display().to_string()), "{error}");
    }
    driver.admit(&blueprint("demo", UID)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_each_sandbox_has_an_identity_of_its_own() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let rig = Rig::new();
    let mut config = rig.config();
    config.uids.first = 70_000;
    config.uids.count = 2;
    let driver = openshell_operator::driver::process::ProcessDriver::new(config.clone()).unwrap();
    let uids: Vec<String> = (0..3).map(|i| format!("{i}{}", &UID[1..])).collect();
    for uid in &uids[..2] {
        driver.ensure(&blueprint("demo", uid)).await.unwrap();
    }
    let owner = |uid: &str| std::fs::metadata(rig.directory(uid).join("workspace")).unwrap().uid();
    assert_eq!((owner(&uids[0]), owner(&uids[1])), (70_000, 70_001));
    assert_eq!(driver.ensure(&blueprint("demo", &uids[2])).await.unwrap_err().code, "UidsExhausted");
    drop(driver);
    let driver = openshell_operator::driver::process::ProcessDriver::new(config).unwrap();
    assert_eq!(
        driver.ensure(&blueprint("demo", &uids[2])).await.unwrap_err().code,
        "UidsExhausted",
        "what is in use is known after a restart"
    );
    driver.delete(&uids[0]).await.unwrap();
    eventually("the uid is free", async || driver.ensure(&blueprint("demo", &uids[2])).await.is_ok()).await;
    assert_eq!(owner(&uids[2]), 70_000);
    assert!(rig.directory(&uids[0]).symlink_metadata().is_err());
}
