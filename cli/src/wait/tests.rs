//! What a snapshot means for what is waited for.

use openshell_proto::v1::{Sandbox, SandboxCondition, SandboxPhase, SandboxStatus};

use super::{Goal, Verdict, judge, never};

fn sandbox(phase: SandboxPhase, exit_code: Option<i32>) -> Sandbox {
    Sandbox { status: Some(SandboxStatus { phase: phase.into(), exit_code, ..SandboxStatus::default() }), ..Sandbox::default() }
}

#[test]
fn every_phase_for_every_goal() {
    use SandboxPhase::{Completed, Deleting, Error, Provisioning, Ready, Starting, Stopped, Stopping, Unknown, Unspecified};
    use Verdict::{Never, There, Wait};
    for (phase, ready, started, stopped) in [
        (Unspecified, Wait, Wait, Wait),
        (Provisioning, Wait, Wait, Wait),
        (Unknown, Wait, Wait, Wait),
        (Starting, Wait, Wait, Wait),
        (Stopping, Wait, Wait, Wait),
        (Ready, There, There, Wait),
        (Completed, There, There, Wait),
        (Stopped, Never, Wait, There),
        (Error, Never, Never, Never),
        (Deleting, Never, Never, Never),
    ] {
        let sandbox = sandbox(phase, None);
        let verdicts = [Goal::Ready, Goal::Started, Goal::Stopped].map(|goal| judge(goal, &sandbox));
        assert_eq!(verdicts, [ready, started, stopped], "{phase:?}");
    }
}

#[test]
fn a_main_process_that_failed_did_run() {
    assert_eq!(judge(Goal::Ready, &sandbox(SandboxPhase::Error, Some(3))), Verdict::There);
    assert_eq!(judge(Goal::Stopped, &sandbox(SandboxPhase::Error, Some(3))), Verdict::Never);
    assert_eq!(judge(Goal::Ready, &Sandbox::default()), Verdict::Wait);
}

#[test]
fn a_reduced_level_is_not_named_as_the_cause_of_a_failure() {
    let condition = |kind: &str, message: &str| SandboxCondition {
        r#type: kind.into(),
        status: "False".into(),
        message: message.into(),
        ..SandboxCondition::default()
    };
    let mut sandbox = sandbox(SandboxPhase::Error, None);
    sandbox.status.get_or_insert_default().conditions = vec![condition("Started", "no such thing"), condition("Enforced", "shared-tmp")];
    let text = never("s", Goal::Ready, &sandbox).plain();
    assert!(text.contains("no such thing") && !text.contains("shared-tmp"), "{text}");
}
