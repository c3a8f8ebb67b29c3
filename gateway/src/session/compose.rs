//! What a supervisor is told.

use openshell_proto::supervisor::Config;

use super::sandbox::{Problem, Task};

/// Why there is no configuration.
pub(super) enum Failure {
    /// The objects do not make one.
    Problem(Problem),
    /// The sandbox is not there.
    Absent,
}

pub(super) async fn compose(task: &mut Task) -> Result<Config, Failure> {
    let _sandbox = task.sandbox().ok_or(Failure::Absent)?;
    Err(Failure::Absent)
}
