//! The plan's properties, against a world that moves and a process that dies between actions.

use std::sync::LazyLock;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use openshell_crds::conditions::{self, is_true};
use openshell_crds::sandbox::{MainProcessState, MainProcessStatus, Phase, PolicyInForce, SessionStatus};
use openshell_crds::{OpenShellGateway, OpenShellGatewaySpec, OpenShellSandbox, OpenShellSandboxSpec, OpenShellSandboxStatus};
use openshell_proto::ENDED_WITH_SANDBOX;
use proptest::prelude::*;

use super::*;
use crate::blueprint::compose;
use crate::driver::{Retry, Waiting};
use crate::limits;

/// Composed once: the properties ask for it a million times.
fn blueprint() -> SandboxBlueprint {
    static BLUEPRINT: LazyLock<SandboxBlueprint> = LazyLock::new(composed);
    BLUEPRINT.clone()
}

fn composed() -> SandboxBlueprint {
    let mut sandbox = OpenShellSandbox::new("demo", OpenShellSandboxSpec { command: vec!["agent".into()], ..Default::default() });
    sandbox.metadata.uid = Some("u".into());
    compose(&sandbox, &OpenShellGateway::new("local", OpenShellGatewaySpec::default()), &[], &[]).unwrap()
}

fn start() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// What someone may want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Run,
    /// As long as something happens in it.
    Busy,
    /// For an hour.
    Brief,
    Suspend,
    Refused,
    Remove,
}

/// How long nothing may happen in a sandbox that is wanted as long as something does.
const IDLE: SignedDuration = SignedDuration::from_mins(10);

impl Wish {
    fn desired(self) -> Desired {
        let intent = match self {
            Self::Run | Self::Busy | Self::Brief => Intent::Run(Box::new(blueprint())),
            Self::Suspend => Intent::Suspend,
            Self::Refused => Intent::Refused(Refusal { reason: "PolicyRefused".into(), message: "no".into() }),
            Self::Remove => Intent::Remove,
        };
        let lifetime = Lifetime {
            until: (self == Self::Brief).then(|| start() + SignedDuration::from_hours(1)),
            idle: matches!(self, Self::Busy | Self::Refused).then(|| IDLE.try_into().unwrap()),
        };
        Desired { generation: 1, made_at: Some(start() - limits::FIRST_STATUS), intent, lifetime }
    }
}

/// What can happen by itself.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A started supervisor identifies itself.
    Identified,
    /// Its session comes up, with a policy that is acknowledged.
    Connected,
    Disconnected,
    /// The supervisor refused its first policy.
    PolicyRejected,
    MainExited(i32),
    /// The supervisor dies.
    Died,
    /// Its node ends it.
    Evicted,
    /// Somebody deletes its pod, for which the platform makes another one.
    Replaced,
    /// What was stopping has stopped.
    Stopped,
    /// The machine is restarted.
    Rebooted,
    Minutes(i64),
    /// Somebody does something in it, or starts it.
    Active,
}

/// A world with one sandbox.
#[derive(Clone, Debug)]
struct World {
    now: Timestamp,
    /// With owner references, it is a cluster: its workload is made anew whoever ends it.
    cleanup: Cleanup,
    exists: bool,
    deleted: bool,
    hold: Hold,
    workload: WorkloadState,
    /// Whether a stopping workload is removed in the end.
    removing: bool,
    /// Whether another one is made for it in the end.
    replaced: bool,
    /// Whether the driver holds anything on disk.
    directory: bool,
    status: OpenShellSandboxStatus,
    starts: u32,
}

impl World {
    fn new() -> Self {
        Self {
            now: start(),
            cleanup: Cleanup::Finalizer,
            exists: true,
            deleted: false,
            hold: Hold::Free,
            workload: WorkloadState::Absent,
            removing: false,
            replaced: false,
            directory: false,
            status: OpenShellSandboxStatus::default(),
            starts: 0,
        }
    }

    fn observed(&self) -> Observed {
        Observed {
            driver: "process".into(),
            cleanup: self.cleanup,
            hold: self.hold,
            workload: self.workload.clone(),
            status: self.status.clone(),
            sideload_method: None,
            failure: None,
        }
    }

    fn plan(&self, wish: Wish) -> Plan {
        let wish = if self.deleted { Wish::Remove } else { wish };
        plan(&wish.desired(), &self.observed(), self.now)
    }

    fn in_cluster(&self) -> bool {
        self.cleanup == Cleanup::OwnerReferences
    }

    /// A workload begins.
    fn begin(&mut self) {
        self.workload = WorkloadState::Starting { waiting: None };
        self.directory = true;
        self.starts += 1;
    }

    /// In a cluster everything goes with its object.
    fn collect(&mut self) {
        if self.in_cluster() {
            (self.exists, self.workload, self.directory) = (false, WorkloadState::Absent, false);
        }
    }

    /// Carries one action out, as the driver's contract says.
    fn act(&mut self, action: &Action) {
        match action {
            Action::Hold => self.hold = Hold::Held,
            Action::Release => {
                assert_eq!(self.workload, WorkloadState::Absent, "an object is let go while its workload is there");
                assert!(!self.directory, "an object is let go while the driver still holds something of it");
                self.hold = Hold::Free;
                self.exists = false;
            }
            Action::Expire => {
                assert!(!self.deleted, "deleted twice");
                self.deleted = true;
                self.exists = self.hold == Hold::Held;
                self.collect();
            }
            Action::Ensure(_) => {
                assert!(self.hold == Hold::Held || self.in_cluster(), "a workload begins that nothing would clean up");
                match self.workload {
                    WorkloadState::Absent | WorkloadState::Suspended | WorkloadState::Lost { .. } => self.begin(),
                    ref other => panic!("a second workload beside one that is {other:?}"),
                }
            }
            Action::Suspend => {
                self.replaced = false;
                match self.workload {
                    WorkloadState::Starting { .. } | WorkloadState::Running { .. } => self.workload = WorkloadState::Stopping,
                    WorkloadState::Failed { .. } | WorkloadState::Lost { .. } => self.workload = WorkloadState::Suspended,
                    _ => {}
                }
            }
            Action::Delete => match self.workload {
                WorkloadState::Starting { .. } | WorkloadState::Running { .. } | WorkloadState::Stopping => {
                    self.workload = WorkloadState::Stopping;
                    self.removing = true;
                }
                _ => {
                    self.workload = WorkloadState::Absent;
                    self.directory = false;
                }
            },
        }
    }

    fn happen(&mut self, event: Event) {
        match (event, &self.workload) {
            (Event::Identified, WorkloadState::Starting { .. }) => {
                self.workload = WorkloadState::Running { id: "1".into(), instance: Some(format!("i{}", self.starts)), since: None };
            }
            (Event::Connected, WorkloadState::Running { instance: Some(instance), .. }) => {
                if self.status.session.as_ref().is_none_or(|session| session.instance_id != *instance) {
                    self.status.main_process = Some(MainProcessStatus { state: MainProcessState::Running, ..Default::default() });
                    self.status.session = Some(SessionStatus { last_activity: Some(Time(self.now)), ..Default::default() });
                }
                let last_activity = self.status.session.as_ref().and_then(|session| session.last_activity.clone());
                self.status.session =
                    Some(SessionStatus { instance_id: instance.clone(), connected: true, last_activity, ..Default::default() });
                self.status.policy =
                    Some(PolicyInForce { revision: 1, hash: "h".into(), acknowledged_revision: Some(1), ..Default::default() });
            }
            (Event::PolicyRejected, WorkloadState::Running { instance: Some(instance), .. }) => {
                if self.status.session.as_ref().is_none_or(|session| session.instance_id != *instance) {
                    self.status.main_process = None;
                }
                self.status.session = Some(SessionStatus { instance_id: instance.clone(), connected: true, ..Default::default() });
                self.status.policy = Some(PolicyInForce { revision: 1, hash: "h".into(), error: Some("no".into()), ..Default::default() });
            }
            (Event::Disconnected, _) => {
                if let Some(session) = &mut self.status.session {
                    session.connected = false;
                }
            }
            (Event::MainExited(code), WorkloadState::Running { instance: Some(instance), .. })
                if self.status.session.as_ref().is_some_and(|session| session.instance_id == *instance) =>
            {
                let ended_at = Some(Time(self.now));
                self.status.main_process =
                    Some(MainProcessStatus { state: MainProcessState::Exited, exit_code: Some(code), ended_at, ..Default::default() });
            }
            (Event::Active, _) => {
                if let Some(session) = &mut self.status.session {
                    session.last_activity = Some(Time(self.now));
                }
            }
            (Event::Died, WorkloadState::Starting { .. } | WorkloadState::Running { .. }) => {
                self.workload = WorkloadState::Failed { code: "SupervisorDied".into(), message: "it died".into(), at: self.now };
            }
            (Event::Evicted, WorkloadState::Starting { .. } | WorkloadState::Running { .. }) => {
                self.workload =
                    WorkloadState::Lost { code: "Evicted".into(), message: "the node was short of memory".into(), at: self.now };
            }
            (Event::Replaced, WorkloadState::Starting { .. } | WorkloadState::Running { .. }) if self.in_cluster() => {
                self.workload = WorkloadState::Stopping;
                self.replaced = true;
            }
            (Event::Stopped | Event::Rebooted, WorkloadState::Stopping) if self.replaced => {
                self.replaced = false;
                self.begin();
            }
            (Event::Stopped, WorkloadState::Stopping) => {
                self.workload = if self.removing { WorkloadState::Absent } else { WorkloadState::Suspended };
                self.directory = !self.removing;
                self.removing = false;
            }
            (Event::Rebooted, WorkloadState::Starting { .. } | WorkloadState::Running { .. }) if self.in_cluster() => self.begin(),
            (Event::Rebooted, WorkloadState::Starting { .. } | WorkloadState::Running { .. }) => self.workload = WorkloadState::Absent,
            (Event::Rebooted, WorkloadState::Stopping) => {
                self.workload = WorkloadState::Suspended;
                self.removing = false;
            }
            (Event::Minutes(minutes), _) => self.now += SignedDuration::from_mins(minutes),
            _ => {}
        }
    }

    /// One reconcile that dies before action `until`, or does not.
    fn reconcile(&mut self, wish: Wish, until: Option<usize>) {
        if !self.exists {
            return;
        }
        let plan = self.plan(wish);
        for (i, action) in plan.actions.iter().enumerate() {
            if until == Some(i) {
                return;
            }
            self.act(action);
        }
        if wish == Wish::Remove {
            self.collect();
        }
        if self.exists && until.is_none() {
            self.status = self.plan(wish).status;
        }
    }

    /// Lets the world go on without trouble until nothing changes.
    fn settle(&mut self, wish: Wish) {
        for _ in 0..10 {
            self.now += SignedDuration::from_secs(1);
            self.reconcile(wish, None);
            self.happen(Event::Stopped);
            self.happen(Event::Identified);
            if matches!(wish, Wish::Run | Wish::Busy | Wish::Brief) {
                self.happen(Event::Connected);
            }
        }
    }
}

fn wishes() -> impl Strategy<Value = Wish> {
    prop_oneof![4 => Just(Wish::Run), 4 => Just(Wish::Busy), 1 => Just(Wish::Brief), 2 => Just(Wish::Suspend), 1 => Just(Wish::Refused)]
}

fn events() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Identified),
        4 => Just(Event::Connected),
        1 => Just(Event::Disconnected),
        1 => Just(Event::PolicyRejected),
        1 => (0..3).prop_map(Event::MainExited),
        1 => Just(Event::Died),
        1 => Just(Event::Evicted),
        1 => Just(Event::Replaced),
        3 => Just(Event::Stopped),
        1 => Just(Event::Rebooted),
        2 => (0_i64..15).prop_map(Event::Minutes),
        1 => Just(Event::Active),
    ]
}

/// What happens to a sandbox that is rarely used.
fn calm() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => (1_i64..8).prop_map(Event::Minutes),
        2 => Just(Event::Active),
        1 => Just(Event::Disconnected),
        1 => Just(Event::Connected),
        1 => Just(Event::MainExited(1)),
        1 => Just(Event::Died),
    ]
}

/// Reconciles (some cut short), events, in any order, locally or in a cluster.
type History = (Cleanup, Vec<(Wish, Option<usize>, Event)>);

fn history() -> impl Strategy<Value = History> {
    let steps = prop::collection::vec((wishes(), prop::option::weighted(0.3, 0_usize..3), events()), 0..40);
    (prop_oneof![Just(Cleanup::Finalizer), Just(Cleanup::OwnerReferences)], steps)
}

fn lived((cleanup, steps): &History) -> World {
    let mut world = World { cleanup: *cleanup, ..World::new() };
    for (wish, until, event) in steps {
        world.reconcile(*wish, *until);
        world.happen(*event);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(384))]

    /// The same question has the same answer, and the answer asks for no further change once it
    /// is carried out, but for an ending that is asked for until it is over.
    #[test]
    fn idempotent(history in history(), wish in prop_oneof![3 => wishes(), 1 => Just(Wish::Remove)]) {
        let mut world = lived(&history);
        prop_assert_eq!(world.plan(wish), world.plan(wish));
        world.reconcile(wish, None);
        let wish = if world.deleted { Wish::Remove } else { wish };
        if world.exists {
            let again = world.plan(wish);
            let rearms = world.workload == WorkloadState::Stopping && matches!(again.actions[..], [Action::Suspend | Action::Delete]);
            let then_releases = wish == Wish::Remove && world.workload == WorkloadState::Absent;
            let begins = again.actions == [Action::Suspend] && world.status.idle_since.is_some();
            let then_deletes = world.deleted && again.actions == [Action::Delete];
            prop_assert!(again.actions.is_empty() || rearms || then_releases || begins || then_deletes, "{:?}", again.actions);
            prop_assert_eq!(&again.status, &world.status, "a status that is not what was just written");
        }
    }

    /// From any state, through any crash, a removed sandbox goes and leaves nothing.
    #[test]
    fn removal_converges(history in history(), cuts in prop::collection::vec((prop::option::of(0_usize..3), events()), 0..10)) {
        let mut world = lived(&history);
        for (until, event) in cuts {
            world.reconcile(Wish::Remove, until);
            world.happen(event);
        }
        world.settle(Wish::Remove);
        prop_assert_eq!(&world.workload, &WorkloadState::Absent);
        prop_assert!(world.hold == Hold::Free && !world.directory);
    }

    /// From any state a stopped sandbox comes to rest, and a started one after it to `Ready`.
    #[test]
    fn stop_and_start_converge(history in history()) {
        let mut world = lived(&history);
        prop_assume!(!world.deleted);
        world.settle(Wish::Suspend);
        prop_assert!(matches!(world.workload, WorkloadState::Absent | WorkloadState::Suspended));
        prop_assert_eq!(world.status.phase, Some(Phase::Stopped));
        let starts = world.starts;
        world.settle(Wish::Run);
        prop_assert_eq!(world.status.phase, Some(Phase::Ready), "{:?}", world.status);
        prop_assert_eq!(world.starts, starts + 1, "started exactly once");
    }

    /// From any state a sandbox that shall run comes to a phase that says what it is: ready,
    /// finished, or in error with a reason.
    #[test]
    fn running_converges(history in history()) {
        let mut world = lived(&history);
        prop_assume!(!world.deleted);
        world.settle(Wish::Run);
        let status = &world.status;
        let said = |kind| conditions::find(&status.conditions, kind);
        match status.phase {
            Some(Phase::Ready) => prop_assert!(is_true(&status.conditions, conditions::READY) && is_true(&status.conditions, conditions::STARTED)),
            // As the rules of kstatus have it: whoever is at rest is not on the way to anything.
            Some(Phase::Completed) => {
                prop_assert_eq!(said(conditions::STARTED).unwrap().reason.as_str(), "Completed");
                prop_assert_eq!((said(conditions::READY), said(conditions::RECONCILING)), (None, None));
            }
            Some(Phase::Error) => {
                prop_assert!(is_true(&status.conditions, conditions::STALLED) && !said(conditions::READY).unwrap().message.is_empty());
            }
            other => prop_assert!(false, "{other:?}: {status:?}"),
        }
    }

    /// What has finished does not run again by itself, whatever its platform does, until someone stops
    /// and starts it.
    #[test]
    fn finished_stays_finished(history in history(), code in 0_i32..2, steps in prop::collection::vec(
        (prop_oneof![3 => Just(Wish::Run), 1 => Just(Wish::Refused)], events()), 0..12)
    ) {
        let mut world = lived(&history);
        prop_assume!(!world.deleted);
        world.settle(Wish::Suspend);
        world.settle(Wish::Run);
        world.happen(Event::MainExited(code));
        world.reconcile(Wish::Run, None);
        let ended = world.status.main_process.clone();
        for (wish, event) in steps {
            if !matches!(event, Event::MainExited(_)) {
                world.happen(event);
            }
            world.reconcile(wish, None);
            prop_assert_eq!(&world.status.main_process, &ended, "it ran again");
        }
        for wish in [Wish::Refused, Wish::Run] {
            world.settle(wish);
            prop_assert_eq!(&world.status.main_process, &ended, "it ran again");
        }
    }

    /// A refusal starts nothing and stops nothing.
    #[test]
    fn refusals_start_and_stop_nothing(history in history()) {
        let world = lived(&history);
        prop_assume!(!world.deleted);
        let plan = world.plan(Wish::Refused);
        let holds_back = world.in_cluster() && plan.actions == [Action::Suspend] && world.plan(Wish::Run).actions == plan.actions;
        prop_assert!(plan.actions.is_empty() || holds_back, "{:?}", plan.actions);
        let ran = is_true(&world.status.conditions, conditions::READY) && matches!(world.workload, WorkloadState::Running { .. })
            && world.status.session.as_ref().is_some_and(|session| session.connected);
        if ran && world.plan(Wish::Run).status.phase == Some(Phase::Ready) {
            prop_assert_eq!(plan.status.phase, Some(Phase::Ready), "what runs goes on");
            prop_assert!(is_true(&plan.status.conditions, conditions::STALLED));
        }
    }

    /// `Ready` is true only with the running supervisor's own session and an acknowledged policy.
    #[test]
    fn ready_needs_session_and_policy(history in history(), wish in prop_oneof![3 => wishes(), 1 => Just(Wish::Remove)]) {
        let world = lived(&history);
        let plan = world.plan(wish);
        if is_true(&plan.status.conditions, conditions::READY) {
            let WorkloadState::Running { instance, .. } = &world.workload else { panic!("ready without a supervisor") };
            let session = world.status.session.as_ref().unwrap();
            prop_assert!(session.connected && Some(&session.instance_id) == instance.as_ref());
            prop_assert!(world.status.policy.as_ref().unwrap().acknowledged_revision.is_some());
        }
        prop_assert_eq!(&plan.status.session, &world.status.session, "the gateway's part is not ours to write");
        prop_assert_eq!(&plan.status.policy, &world.status.policy);
        prop_assert_eq!(&plan.status.main_process, &world.status.main_process);
    }

    /// Only a sandbox in which nothing has happened for its whole idle period is suspended for that,
    /// whatever went before; and it is written before it is done.
    #[test]
    fn idle_is_what_was_left_alone(history in history(), calm in prop::collection::vec(calm(), 0..8)) {
        let mut world = lived(&history);
        world.settle(Wish::Busy);
        for event in std::iter::once(Event::MainExited(0)).chain(calm) {
            world.happen(event);
        }
        world.status.idle_since = None;
        let plan = world.plan(Wish::Busy);
        let Some(since) = &plan.status.idle_since else { return Ok(()) };
        let session = world.status.session.as_ref().unwrap();
        prop_assert!(session.connected && plan.actions.is_empty());
        let WorkloadState::Running { instance, .. } = &world.workload else { panic!("idle without a supervisor") };
        prop_assert_eq!(instance.as_ref(), Some(&session.instance_id));
        prop_assert!(session.last_activity.as_ref().unwrap() <= since && world.now >= since.0 + IDLE);
        let main = world.status.main_process.as_ref();
        prop_assert!(main.is_none_or(|main| main.state != MainProcessState::Running && main.ended_at.as_ref().is_none_or(|at| at <= since)));
        // Activity that came in the meantime wins; none, and it is done.
        world.status = plan.status.clone();
        prop_assert_eq!(world.plan(Wish::Busy).actions, vec![Action::Suspend]);
        world.now += SignedDuration::from_secs(1);
        world.happen(Event::Active);
        prop_assert!(world.plan(Wish::Busy).actions.is_empty() && world.plan(Wish::Busy).status.idle_since.is_none());
    }

    /// From any state a sandbox whose time is over goes, and is not touched a moment before.
    #[test]
    fn expiry_converges(history in history()) {
        let mut world = lived(&history);
        let end = start() + SignedDuration::from_hours(1);
        if !world.deleted && world.exists {
            let before = plan(&Wish::Brief.desired(), &world.observed(), end - SignedDuration::from_nanos(1));
            prop_assert!(!before.actions.contains(&Action::Expire) && before.recheck_at.unwrap() <= end);
            prop_assert_eq!(plan(&Wish::Brief.desired(), &world.observed(), end).actions, vec![Action::Expire]);
        }
        world.now = world.now.max(end);
        world.settle(Wish::Brief);
        prop_assert_eq!(&world.workload, &WorkloadState::Absent);
        prop_assert!(!world.exists && !world.directory);
    }
}

/// One that was left alone with its main process ended, and that has come to rest.
fn left_alone() -> World {
    let mut world = World::new();
    world.settle(Wish::Busy);
    assert_eq!(world.status.phase, Some(Phase::Ready));
    world.happen(Event::Minutes(60));
    assert!(world.plan(Wish::Busy).status.idle_since.is_none(), "a main process that runs is activity");
    world.happen(Event::MainExited(0));
    let (plan, end) = (world.plan(Wish::Busy), world.now + IDLE);
    assert_eq!((plan.status.phase, plan.recheck_at), (Some(Phase::Completed), Some(end)), "looked at when the period ends, not before");
    world.now = end;
    world.settle(Wish::Busy);
    world
}

#[test]
fn what_is_left_alone_is_suspended_until_someone_wakes_it() {
    let mut world = left_alone();
    let started = |world: &World| conditions::find(&world.status.conditions, conditions::STARTED).unwrap().clone();
    assert_eq!((world.workload.clone(), world.status.phase), (WorkloadState::Suspended, Some(Phase::Stopped)));
    assert_eq!(started(&world).reason, "IdleTimeout");
    assert!(started(&world).message.contains("for 10m"), "{}", started(&world).message);
    // Time, a restart of the machine, and a policy that is refused and mended do not wake it.
    for (event, wish) in [(Event::Minutes(600), Wish::Busy), (Event::Rebooted, Wish::Refused), (Event::Disconnected, Wish::Busy)] {
        world.happen(event);
        world.settle(wish);
        assert_eq!((world.starts, world.status.idle_since.is_some()), (1, true), "{event:?}");
    }
    assert_eq!(world.status.phase, Some(Phase::Stopped));
    world.happen(Event::Active);
    let plan = world.plan(Wish::Busy);
    assert!(matches!(plan.actions[..], [Action::Ensure(_)]) && plan.status.idle_since.is_none());
    assert_eq!(plan.status.phase, Some(Phase::Starting));
    world.settle(Wish::Busy);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 2));
}

#[test]
fn what_was_suspended_for_idleness_is_started_by_stop_and_start_and_without_the_timeout() {
    let mut world = left_alone();
    world.settle(Wish::Suspend);
    assert_eq!(world.status.idle_since, None);
    assert_eq!(conditions::find(&world.status.conditions, conditions::STARTED).unwrap().reason, "Suspended");
    assert_eq!(conditions::find(&world.status.conditions, conditions::READY), None);
    world.settle(Wish::Busy);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 2));
    let mut world = left_alone();
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 2));
}

#[test]
fn silence_is_no_idleness() {
    for forget in [
        |world: &mut World| world.status.session.as_mut().unwrap().last_activity = None,
        |world: &mut World| world.happen(Event::Disconnected),
    ] {
        let mut world = World::new();
        world.settle(Wish::Busy);
        world.happen(Event::MainExited(0));
        world.happen(Event::Minutes(600));
        forget(&mut world);
        let plan = world.plan(Wish::Busy);
        assert!(plan.actions.is_empty() && plan.status.idle_since.is_none());
    }
}

#[test]
fn time_runs_while_it_is_stopped_refused_or_broken_and_ends_with_a_deletion() {
    let end = start() + SignedDuration::from_hours(1);
    for wish in [Wish::Suspend, Wish::Refused, Wish::Run] {
        let mut desired = wish.desired();
        desired.lifetime.until = Some(end);
        let mut observed = World::new().observed();
        observed.failure = (wish == Wish::Run).then(|| DriverError::never("SupervisorMissing", "not there"));
        assert_eq!(plan(&desired, &observed, start()).recheck_at, Some(end));
        assert_eq!(plan(&desired, &observed, end).actions, [Action::Expire]);
    }
    let mut removing = Wish::Remove.desired();
    removing.lifetime.until = Some(end);
    assert!(!plan(&removing, &World::new().observed(), end).actions.contains(&Action::Expire));
}

#[test]
fn a_failed_supervisor_is_not_started_again_until_someone_stops_and_starts_it() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::Died);
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Error), 1));
    let ready = conditions::find(&world.status.conditions, conditions::READY).unwrap();
    assert_eq!(ready.reason, "SupervisorDied");
    world.settle(Wish::Suspend);
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 2));
}

#[test]
fn a_restart_of_the_machine_starts_what_should_run_and_not_what_is_finished() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::Rebooted);
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 2));
    world.happen(Event::MainExited(0));
    world.reconcile(Wish::Run, None);
    assert_eq!(world.status.phase, Some(Phase::Completed));
    world.happen(Event::Rebooted);
    world.reconcile(Wish::Run, None);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Completed), 2));
}

#[test]
fn what_is_started_again_and_refused_on_the_way_is_not_finished_by_its_earlier_end() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::MainExited(0));
    world.settle(Wish::Suspend);
    world.reconcile(Wish::Run, None);
    world.happen(Event::Evicted);
    world.reconcile(Wish::Refused, None);
    for _ in 0..2 {
        world.reconcile(Wish::Run, None);
        assert_eq!(world.status.phase, Some(Phase::Starting));
    }
    world.now += SignedDuration::try_from(limits::LOST_PAUSE).unwrap();
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 3));
}

#[test]
fn what_is_started_again_waits_for_its_session_however_long_that_takes() {
    let mut world = World { cleanup: Cleanup::OwnerReferences, ..World::new() };
    world.settle(Wish::Run);
    world.happen(Event::MainExited(0));
    world.settle(Wish::Suspend);
    assert_eq!(world.status.stopped_instance.as_deref(), Some("i1"));
    for event in [Event::Minutes(0), Event::Identified, Event::Minutes(60), Event::Rebooted, Event::Identified] {
        world.happen(event);
        world.reconcile(Wish::Run, None);
        assert!(!matches!(world.plan(Wish::Run).actions[..], [Action::Suspend]), "{event:?}");
    }
    world.happen(Event::Minutes(60));
    world.reconcile(Wish::Run, None);
    assert_eq!(conditions::find(&world.status.conditions, conditions::STALLED).unwrap().reason, "SessionTimeout");
    world.settle(Wish::Run);
    assert_eq!(world.status.phase, Some(Phase::Ready));
}

#[test]
fn what_was_to_be_stopped_and_was_not_is_finished_when_it_ends() {
    let denied = |world: &mut World| world.status = world.plan(Wish::Suspend).status;
    let left = |world: &mut World| {
        world.now += SignedDuration::from_hours(1);
        world.status.main_process = None;
        world.reconcile(Wish::Busy, None);
        assert!(world.status.idle_since.is_some() && matches!(world.workload, WorkloadState::Running { .. }));
        world.happen(Event::Active);
    };
    for begin in [&denied as &dyn Fn(&mut World), &left] {
        let mut world = World { cleanup: Cleanup::OwnerReferences, ..World::new() };
        world.settle(Wish::Busy);
        begin(&mut world);
        assert_eq!((world.status.phase, world.status.stopped_instance.as_deref()), (Some(Phase::Stopping), Some("i1")));
        world.reconcile(Wish::Busy, None);
        world.happen(Event::MainExited(0));
        world.reconcile(Wish::Busy, None);
        assert_eq!((world.status.phase, &world.status.stopped_instance), (Some(Phase::Completed), &None));
        world.happen(Event::Replaced);
        world.settle(Wish::Busy);
        assert_eq!((world.workload.clone(), world.status.phase, world.starts), (WorkloadState::Suspended, Some(Phase::Completed), 1));
    }
}

#[test]
fn a_first_session_after_a_start_is_no_earlier_one() {
    let mut world = World { cleanup: Cleanup::OwnerReferences, ..World::new() };
    world.settle(Wish::Suspend);
    for event in [Event::Identified, Event::Connected, Event::MainExited(0), Event::Replaced] {
        if world.starts == 0 {
            world.reconcile(Wish::Run, None);
        }
        world.happen(event);
    }
    world.settle(Wish::Run);
    assert_eq!((world.workload.clone(), world.status.phase), (WorkloadState::Suspended, Some(Phase::Completed)));
}

#[test]
fn what_is_completed_and_refused_is_not_ready() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::MainExited(0));
    world.reconcile(Wish::Refused, None);
    assert_eq!(world.status.phase, Some(Phase::Completed));
    assert_eq!(conditions::find(&world.status.conditions, conditions::READY).unwrap().status, "False");
    assert!(is_true(&world.status.conditions, conditions::STALLED));
    world.reconcile(Wish::Run, None);
    assert_eq!(conditions::find(&world.status.conditions, conditions::READY), None);
}

#[test]
fn a_session_that_does_not_come_is_an_error_after_its_deadline_and_recovers() {
    let mut world = World::new();
    world.reconcile(Wish::Run, None);
    world.happen(Event::Identified);
    world.reconcile(Wish::Run, None);
    let plan = world.plan(Wish::Run);
    assert_eq!(plan.status.phase, Some(Phase::Provisioning));
    assert_eq!(plan.recheck_at, Some(world.now + SignedDuration::try_from(limits::SESSION_DEADLINE).unwrap()));
    world.now = plan.recheck_at.unwrap();
    world.reconcile(Wish::Run, None);
    assert_eq!(world.status.phase, Some(Phase::Error));
    assert_eq!(conditions::find(&world.status.conditions, conditions::STALLED).unwrap().reason, "SessionTimeout");
    world.happen(Event::Connected);
    world.reconcile(Wish::Run, None);
    assert_eq!(world.status.phase, Some(Phase::Ready));
    assert!(conditions::find(&world.status.conditions, conditions::STALLED).is_none());
}

#[test]
fn a_lost_session_says_so_and_counts_from_when_it_was_lost() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.now += SignedDuration::from_hours(5);
    world.happen(Event::Disconnected);
    world.reconcile(Wish::Run, None);
    assert_eq!(conditions::find(&world.status.conditions, conditions::READY).unwrap().reason, "SessionLost");
    assert_eq!(world.status.phase, Some(Phase::Provisioning));
    assert!(world.plan(Wish::Run).recheck_at.unwrap() > world.now);
}

#[test]
fn the_session_of_an_earlier_supervisor_counts_for_nothing() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::MainExited(1));
    world.settle(Wish::Suspend);
    world.reconcile(Wish::Run, None);
    world.happen(Event::Identified);
    // The status still tells of the old session and of how the old main process ended.
    world.reconcile(Wish::Run, None);
    assert_eq!(world.status.phase, Some(Phase::Starting));
    world.happen(Event::Connected);
    world.reconcile(Wish::Run, None);
    assert_eq!(world.status.phase, Some(Phase::Ready));
}

#[test]
fn failures_of_the_driver_are_said_and_told_apart() {
    let mut observed = World::new().observed();
    observed.failure = Some(DriverError::later("DirectoryUnusable", "the disk is full"));
    let later = plan(&Wish::Run.desired(), &observed, start());
    assert_eq!(later.status.phase, Some(Phase::Provisioning));
    assert_eq!(conditions::find(&later.status.conditions, conditions::READY).unwrap().reason, "DirectoryUnusable");
    assert!(is_true(&later.status.conditions, conditions::RECONCILING));
    observed.failure = Some(DriverError { code: "SupervisorMissing", message: "not there".into(), retry: Retry::Never });
    let never = plan(&Wish::Run.desired(), &observed, start());
    assert_eq!(never.status.phase, Some(Phase::Error));
    assert!(is_true(&never.status.conditions, conditions::STALLED));
    let removing = plan(&Wish::Remove.desired(), &observed, start());
    assert_eq!(removing.status.phase, Some(Phase::Deleting));
}

#[test]
fn workloads_that_the_api_collects_need_no_finalizer() {
    let mut observed = World::new().observed();
    observed.cleanup = Cleanup::OwnerReferences;
    assert!(matches!(plan(&Wish::Run.desired(), &observed, start()).actions[..], [Action::Ensure(_)]));
    observed.workload = WorkloadState::Starting { waiting: None };
    assert!(plan(&Wish::Remove.desired(), &observed, start()).actions.is_empty());
}

/// Whoever ends a pod ends its main process, and the supervisor tells so.
#[test]
fn what_was_ended_with_its_pod_is_started_again() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::MainExited(143));
    world.status.main_process.as_mut().unwrap().reason = Some(ENDED_WITH_SANDBOX.into());
    world.reconcile(Wish::Run, None);
    let mut observed = world.observed();
    observed.cleanup = Cleanup::OwnerReferences;
    let another = WorkloadState::Running { id: "demo".into(), instance: Some("another".into()), since: None };
    for state in [WorkloadState::Stopping, WorkloadState::Starting { waiting: None }, another] {
        observed.workload = state;
        assert!(plan(&Wish::Run.desired(), &observed, world.now).actions.is_empty(), "the platform starts it again, and is let");
    }
    world.happen(Event::Rebooted);
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 2));
}

/// A world in which a driver that can see more than that has just begun.
fn begun() -> World {
    let mut world = World::new();
    world.reconcile(Wish::Run, None);
    let waiting = Waiting { reason: "Starting".into(), message: "the workload is being started".into(), from: Timestamp::UNIX_EPOCH };
    world.workload = WorkloadState::Starting { waiting: Some(waiting) };
    world.status = OpenShellSandboxStatus::default();
    world.status = world.plan(Wish::Run).status;
    world
}

#[test]
fn what_keeps_a_start_is_said_when_it_has_lasted() {
    let mut world = begun();
    let said = world.status.clone();
    let from = world.now + SignedDuration::from_secs(1);
    let waiting = Waiting { reason: "ImagePullFailed".into(), message: "no such image".into(), from };
    world.workload = WorkloadState::Starting { waiting: Some(waiting) };
    let early = world.plan(Wish::Run);
    assert_eq!((&early.status, early.recheck_at), (&said, Some(from)), "most of it passes in a moment");
    world.now = from;
    world.reconcile(Wish::Run, None);
    for kind in [conditions::READY, conditions::STARTED, conditions::RECONCILING] {
        assert_eq!(conditions::find(&world.status.conditions, kind).unwrap().reason, "ImagePullFailed", "{kind}");
    }
    assert_eq!(world.status.phase, Some(Phase::Provisioning));
}

#[test]
fn a_session_that_comes_at_once_costs_one_status_less() {
    let mut world = begun();
    let said = world.status.clone();
    let since = Some(world.now);
    world.workload = WorkloadState::Running { id: "demo".into(), instance: Some("i".into()), since };
    let early = world.plan(Wish::Run);
    assert_eq!(early.status, said, "nothing to write");
    world.now = early.recheck_at.unwrap();
    world.reconcile(Wish::Run, None);
    assert!(is_true(&world.status.conditions, conditions::STARTED));
    assert_eq!(conditions::find(&world.status.conditions, conditions::READY).unwrap().reason, "SessionNotConnected");
}

#[test]
fn the_start_of_a_new_sandbox_is_said_when_it_lasts_and_what_is_against_it_at_once() {
    let mut world = World::new();
    let new = |wish: Wish, made_at| Desired { made_at: Some(made_at), ..wish.desired() };
    let begun = plan(&new(Wish::Run, start()), &world.observed(), start());
    begun.actions.iter().for_each(|action| world.act(action));
    assert_eq!(begun.status, OpenShellSandboxStatus::default(), "nothing to write");
    let lasts = begun.recheck_at.unwrap();
    assert_eq!(lasts, start() + limits::FIRST_STATUS);
    let said = plan(&new(Wish::Run, start()), &world.observed(), lasts).status;
    assert_eq!(conditions::find(&said.conditions, conditions::READY).unwrap().reason, "SessionNotConnected");

    let ahead = start() + SignedDuration::from_hours(1);
    assert_ne!(plan(&new(Wish::Run, ahead), &world.observed(), start()).status, begun.status, "a clock that is ahead keeps nobody waiting");
    let refused = plan(&new(Wish::Refused, start()), &World::new().observed(), start()).status;
    assert_eq!(refused.phase, Some(Phase::Error));
    let failed = Observed { failure: Some(DriverError::later("NoRoom", "the disk is full")), ..world.observed() };
    let failed = plan(&new(Wish::Run, start()), &failed, start()).status;
    assert_eq!(conditions::find(&failed.conditions, conditions::READY).unwrap().reason, "NoRoom");
    world.status = said;
    world.status.phase = Some(Phase::Stopped);
    let resumed = plan(&new(Wish::Run, start()), &world.observed(), start()).status;
    assert_eq!(resumed.phase, Some(Phase::Starting), "what was said before is not left standing");
}

#[test]
fn what_was_lost_is_started_again_after_a_pause_and_what_was_finished_is_not() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::Evicted);
    let plan = world.plan(Wish::Run);
    assert!(plan.actions.is_empty(), "a node in trouble is given time");
    assert_eq!(conditions::find(&plan.status.conditions, conditions::READY).unwrap().reason, "Evicted");
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Ready), 2));
    world.happen(Event::MainExited(0));
    world.reconcile(Wish::Run, None);
    world.happen(Event::Evicted);
    world.settle(Wish::Run);
    assert_eq!((world.status.phase, world.starts), (Some(Phase::Completed), 2));
}

#[test]
fn what_was_finished_is_held_back_where_the_platform_would_start_it_again() {
    let mut world = World::new();
    world.settle(Wish::Run);
    world.happen(Event::MainExited(0));
    world.reconcile(Wish::Run, None);
    let mut observed = world.observed();
    observed.cleanup = Cleanup::OwnerReferences;
    assert!(plan(&Wish::Run.desired(), &observed, world.now).actions.is_empty(), "its own supervisor stays");
    let another = WorkloadState::Running { id: "demo".into(), instance: Some("another".into()), since: None };
    for state in [WorkloadState::Stopping, WorkloadState::Starting { waiting: None }, another] {
        observed.workload = state;
        for wish in [Wish::Run, Wish::Refused] {
            let plan = plan(&wish.desired(), &observed, world.now);
            assert_eq!((plan.actions, plan.status.phase), (vec![Action::Suspend], Some(Phase::Completed)));
        }
    }
    observed.workload = WorkloadState::Suspended;
    for wish in [Wish::Run, Wish::Refused] {
        let rest = plan(&wish.desired(), &observed, world.now);
        assert_eq!((rest.actions, rest.status.phase), (Vec::new(), Some(Phase::Completed)));
    }
    // Someone stops it, and starts it.
    observed.status = plan(&Wish::Suspend.desired(), &observed, world.now).status;
    assert!(matches!(plan(&Wish::Run.desired(), &observed, world.now).actions[..], [Action::Ensure(_)]));
}
