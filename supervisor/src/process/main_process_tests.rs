use super::*;

#[test]
fn the_report_has_the_end_before_anybody_who_waits_for_it() {
    let (publish, state) = watch::channel(supervisor::MainProcess::default());
    let waited = state.clone();
    let tell = teller(publish, move |main| {
        assert_eq!(main.state(), State::Exited);
        assert_ne!(waited.borrow().state(), State::Exited, "a waiter could end the session before the report has the exit code");
    });
    tell(supervisor::MainProcess { state: State::Exited.into(), ..supervisor::MainProcess::default() });
    assert_eq!(state.borrow().state(), State::Exited);
}
