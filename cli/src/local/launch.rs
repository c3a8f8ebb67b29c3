//! The step between us and a background gateway: a session of its own, so that closing the
//! terminal does not end it. `setsid` needs a process that leads no group, hence a child of ours
//! that becomes the gateway.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::error::CliError;

/// First argument of such a child. Not a command for people, and not in the help.
pub(crate) const WORD: &str = "__launch-gateway";

/// If `args` ask for it, becomes the gateway; returns only if that fails.
pub(crate) fn requested(args: &[OsString]) -> Option<CliError> {
    let (word, rest) = args.get(1..)?.split_first()?;
    let (program, arguments) = (word == WORD).then(|| rest.split_first())??;
    if let Err(error) = rustix::process::setsid() {
        return Some(CliError::new("gateway-start", "The gateway got no session of its own.").because(error));
    }
    let error = Command::new(program).args(arguments).exec();
    Some(CliError::new("gateway-start", format!("{} could not be started.", program.display())).because(error))
}
