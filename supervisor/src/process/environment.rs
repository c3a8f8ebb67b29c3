//! The environment of every process of the agent, and checks of what a command may be.
//!
//! From the weakest to the strongest:
//!
//! 1. `HOME` and `PWD` (the workspace), `USER`, `LOGNAME`, `SHELL`, `PATH`, `LANG`, `TERM`;
//! 2. proxy and CA variables ([`crate::egress::env`]): conveniences, nothing is enforced by them;
//! 3. the configuration: the sandbox's own variables, providers' settings, placeholders;
//! 4. the exec's own;
//! 5. `OPENSHELL_SANDBOX=1`. Names beginning with `OPENSHELL_` cannot be set, but for the one in
//!    which the SDK carries a Python function to an exec.
//!
//! Nothing is inherited from the supervisor, whose environment is the driver's.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::OsString,
    path::{Path, PathBuf},
    time::Duration,
};

use openshell_proto::supervisor;

use super::{Command, Exec, Size};
use crate::limits::session::{ARGUMENTS, ARGUMENTS_BYTES, ENVIRONMENT, ENVIRONMENT_BYTES};

/// Where programs are looked for, unless the sandbox's environment says otherwise.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Name of the agent's user, as the policy calls it.
const USER: &str = "sandbox";
/// Names that nobody but us sets.
const RESERVED: &str = "OPENSHELL_";
/// But for this one: a pickled Python function of the SDK's `exec_python`.
const PYTHON_FUNCTION: &str = "OPENSHELL_PYFUNC_B64";

/// A command that cannot be run as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadCommand(String);

/// What every process of the sandbox sees, before its own additions.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    workspace: PathBuf,
    variables: BTreeMap<String, String>,
}

impl Environment {
    /// From the weakest: the base, `trust` (proxy and CA variables), the configuration's.
    pub fn new(workspace: &Path, trust: &[(String, String)], configured: &HashMap<String, String>) -> Result<Self, BadCommand> {
        let home = workspace.to_string_lossy().into_owned();
        let shell = if Path::new("/bin/bash").exists() { "/bin/bash" } else { "/bin/sh" };
        let base = [
            ("HOME", home.as_str()),
            ("PWD", &home),
            ("USER", USER),
            ("LOGNAME", USER),
            ("SHELL", shell),
            ("PATH", PATH),
            ("LANG", "C.UTF-8"),
        ];
        let mut variables: BTreeMap<String, String> = base.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        variables.extend(trust.iter().cloned());
        add(&mut variables, configured)?;
        Ok(Self { workspace: workspace.to_owned(), variables })
    }

    /// A command of an exec.
    pub fn exec(&self, wanted: supervisor::Exec) -> Result<Exec, BadCommand> {
        let mut variables = self.variables.clone();
        add(&mut variables, &wanted.environment)?;
        let timeout = match wanted.timeout {
            None => None,
            Some(timeout) => {
                let timeout =
                    Duration::try_from(timeout).map_err(|_| BadCommand("the timeout is negative; leave it out for none".into()))?;
                (!timeout.is_zero()).then_some(timeout)
            }
        };
        let terminal = wanted.tty.then(|| Size::new(wanted.cols, wanted.rows));
        Ok(Exec { command: self.command(wanted.command, &wanted.workdir, variables, terminal.is_some())?, terminal, timeout })
    }

    /// The command of the main process.
    pub fn main(&self, command: Vec<String>, workdir: &str, terminal: bool) -> Result<Command, BadCommand> {
        self.command(command, workdir, self.variables.clone(), terminal)
    }

    fn command(
        &self,
        argv: Vec<String>,
        workdir: &str,
        mut variables: BTreeMap<String, String>,
        terminal: bool,
    ) -> Result<Command, BadCommand> {
        let bad = |why: String| Err(BadCommand(why));
        if argv.first().is_none_or(String::is_empty) {
            return bad("the command is empty; name a program".into());
        }
        if argv.len() > ARGUMENTS || argv.iter().map(String::len).sum::<usize>() > ARGUMENTS_BYTES {
            return bad(format!(
                "the command has more than {ARGUMENTS} arguments or {ARGUMENTS_BYTES} bytes; pass the data on standard input"
            ));
        }
        if argv.iter().any(|a| a.contains('\0')) || workdir.contains('\0') {
            return bad("the command or its directory has a NUL byte".into());
        }
        // Relative to the workspace; an absolute one replaces it.
        let cwd = if workdir.is_empty() { self.workspace.clone() } else { self.workspace.join(workdir) };
        variables.insert("PWD".into(), cwd.to_string_lossy().into_owned());
        variables.entry("TERM".into()).or_insert_with(|| if terminal { "xterm-256color" } else { "dumb" }.into());
        variables.insert("OPENSHELL_SANDBOX".into(), "1".into());
        if variables.len() > ENVIRONMENT {
            return bad(format!("the environment has more than {ENVIRONMENT} variables"));
        }
        Ok(Command {
            argv: argv.into_iter().map(OsString::from).collect(),
            env: variables.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
            cwd,
        })
    }
}

fn add(variables: &mut BTreeMap<String, String>, more: &HashMap<String, String>) -> Result<(), BadCommand> {
    for (name, value) in more {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(BadCommand(format!("{name:?} is no name of an environment variable")));
        }
        if name.starts_with(RESERVED) && name != PYTHON_FUNCTION {
            return Err(BadCommand(format!("{name}: names beginning with {RESERVED} are reserved")));
        }
        if value.contains('\0') || name.len() + value.len() > ENVIRONMENT_BYTES {
            return Err(BadCommand(format!("the value of {name} has a NUL byte or more than {ENVIRONMENT_BYTES} bytes")));
        }
        variables.insert(name.clone(), value.clone());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(configured: &[(&str, &str)]) -> Environment {
        let trust = [("HTTPS_PROXY".to_owned(), "http://198.18.0.1:3128".to_owned()), ("LANG".to_owned(), "weak".to_owned())];
        let configured = configured.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        Environment::new(Path::new("/w"), &trust, &configured).unwrap()
    }

    fn value(command: &Command, name: &str) -> Option<String> {
        command.env.iter().find(|(k, _)| k == name).map(|(_, v)| v.to_string_lossy().into_owned())
    }

    #[test]
    fn the_stronger_wins_and_nothing_is_inherited() {
        let environment = environment(&[("LANG", "de_DE.UTF-8"), ("TOKEN", "placeholder")]);
        let wanted = supervisor::Exec {
            command: vec!["env".into()],
            workdir: "sub".into(),
            environment: [("TOKEN".to_owned(), "own".to_owned())].into(),
            ..supervisor::Exec::default()
        };
        let exec = environment.exec(wanted).unwrap();
        let command = exec.command;
        assert_eq!(value(&command, "HOME").as_deref(), Some("/w"));
        assert_eq!(value(&command, "PWD").as_deref(), Some("/w/sub"));
        assert_eq!(value(&command, "LANG").as_deref(), Some("de_DE.UTF-8"));
        assert_eq!(value(&command, "TOKEN").as_deref(), Some("own"));
        assert_eq!(value(&command, "TERM").as_deref(), Some("dumb"));
        assert_eq!(value(&command, "OPENSHELL_SANDBOX").as_deref(), Some("1"));
        assert_eq!(value(&command, "CARGO_MANIFEST_DIR"), None);
        assert_eq!((exec.timeout, exec.terminal), (None, None));
    }

    #[test]
    fn refuses_what_cannot_be_run() {
        let environment = environment(&[]);
        let refused = |wanted: supervisor::Exec| environment.exec(wanted).unwrap_err().to_string();
        let true_ = supervisor::Exec { command: vec!["true".into()], ..supervisor::Exec::default() };
        assert!(refused(supervisor::Exec::default()).contains("empty"));
        assert!(refused(supervisor::Exec { command: vec!["a\0".into()], ..true_.clone() }).contains("NUL"));
        assert!(
            refused(supervisor::Exec { environment: [("OPENSHELL_X".to_owned(), String::new())].into(), ..true_.clone() })
                .contains("reserved")
        );
        assert!(refused(supervisor::Exec { environment: [("a=b".to_owned(), String::new())].into(), ..true_.clone() }).contains("no name"));
        assert!(refused(supervisor::Exec { timeout: Some(prost_types::Duration { seconds: -1, nanos: 0 }), ..true_ }).contains("negative"));
    }
}
