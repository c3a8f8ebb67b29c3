//! Checks of request fields that several methods share. Every one notes what is wrong under the
//! field's path and goes on, so that a client is told everything at once.

use std::collections::HashMap;

use openshell_policy::Policy;
use openshell_proto::sandbox as wire;
use prost::Message as _;

use crate::convert::meta::RESERVED;
use crate::errors::Violations;
use crate::{convert, limits};

/// Environment variables that the SDK sets for an exec although the prefix is ours.
const PYTHON_FUNCTION: &str = "OPENSHELL_PYFUNC_B64";

/// Which environment it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Environment {
    /// Of a sandbox, for its whole life.
    Sandbox,
    /// Of one exec.
    Exec,
}

pub(super) fn environment(field: &str, which: Environment, variables: &HashMap<String, String>, v: &mut Violations) {
    if variables.len() > limits::ENVIRONMENT_ENTRIES {
        v.add(field, format!("{} variables; at most {}", variables.len(), limits::ENVIRONMENT_ENTRIES));
    }
    let total: usize = variables.iter().map(|(k, v)| k.len() + v.len()).sum();
    if total > limits::ENVIRONMENT_BYTES {
        v.add(field, format!("{total} bytes in all; at most {}", limits::ENVIRONMENT_BYTES));
    }
    for (name, value) in variables {
        let python = which == Environment::Exec && name == PYTHON_FUNCTION;
        let path = || format!("{field}[{name:?}]");
        if let Some(why) = identifier(name) {
            v.add(path(), why);
        } else if name.starts_with("OPENSHELL_") && !python {
            v.add(path(), "names beginning with OPENSHELL_ are reserved; choose another");
        }
        let longest = if python { limits::PYTHON_FUNCTION_BYTES } else { limits::ENVIRONMENT_VALUE_BYTES };
        if value.len() > longest {
            v.add(path(), format!("the value has {} bytes; at most {longest}", value.len()));
        }
        if value.contains('\0') {
            v.add(path(), "the value has a NUL byte");
        }
    }
}

/// Why this is no name of an environment variable.
pub(super) fn identifier(name: &str) -> Option<&'static str> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if first && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') && name.len() <= limits::ENVIRONMENT_KEY_BYTES {
        return None;
    }
    Some("a variable's name has letters, digits and '_', begins with no digit, and has at most 256 of them")
}

/// Bounds of a command line.
pub(super) struct CommandLimits {
    pub(super) args: usize,
    pub(super) bytes: usize,
}

/// Of a main process.
pub(super) const MAIN: CommandLimits = CommandLimits { args: limits::COMMAND_ARGS, bytes: limits::COMMAND_BYTES };
/// Of an exec.
pub(super) const EXEC: CommandLimits = CommandLimits { args: limits::EXEC_ARGS, bytes: limits::EXEC_COMMAND_BYTES };

pub(super) fn command(field: &str, args: &[String], limits: &CommandLimits, v: &mut Violations) {
    if args.len() > limits.args {
        v.add(field, format!("{} arguments; at most {}", args.len(), limits.args));
    }
    let total: usize = args.iter().map(String::len).sum();
    if total > limits.bytes {
        v.add(field, format!("{total} bytes in all; at most {}", limits.bytes));
    }
    if args.first().is_some_and(String::is_empty) {
        v.add(format!("{field}[0]"), "the program's name is empty");
    }
    for (i, arg) in args.iter().enumerate() {
        if arg.len() > crate::limits::ARG_BYTES {
            v.add(format!("{field}[{i}]"), format!("{} bytes; at most {}", arg.len(), crate::limits::ARG_BYTES));
        }
        if arg.contains('\0') {
            v.add(format!("{field}[{i}]"), "it has a NUL byte");
        }
    }
}

/// Labels: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>.
pub(super) fn labels(field: &str, map: &HashMap<String, String>, v: &mut Violations) {
    keys(field, map, v);
    for (key, value) in map {
        let edge = |b: Option<&u8>| b.is_none_or(u8::is_ascii_alphanumeric);
        let bytes = value.as_bytes();
        let inner = bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if bytes.len() > 63 || !inner || !edge(bytes.first()) || !edge(bytes.last()) {
            v.add(
                format!("{field}[{key:?}]"),
                "a label's value has at most 63 letters, digits, '-', '_' and '.', and begins and ends with a letter or digit",
            );
        }
    }
}

pub(super) fn annotations(field: &str, map: &HashMap<String, String>, v: &mut Violations) {
    keys(field, map, v);
    for (key, value) in map {
        if value.len() > limits::ANNOTATION_VALUE_BYTES {
            v.add(format!("{field}[{key:?}]"), format!("the value has {} bytes; at most {}", value.len(), limits::ANNOTATION_VALUE_BYTES));
        }
    }
}

fn keys(field: &str, map: &HashMap<String, String>, v: &mut Violations) {
    if map.len() > limits::METADATA_ENTRIES {
        v.add(field, format!("{} entries; at most {}", map.len(), limits::METADATA_ENTRIES));
    }
    for key in map.keys() {
        if key.starts_with(RESERVED) {
            v.add(format!("{field}[{key:?}]"), format!("keys beginning with {RESERVED} are reserved; choose another"));
        } else if !qualified(key) {
            v.add(format!("{field}[{key:?}]"), "a key is [DNS name/]name with at most 63 letters, digits, '-', '_' and '.' in its name");
        }
    }
}

fn qualified(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(p, n)| (Some(p), n));
    let edge = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = name.as_bytes();
    let name_fits = bytes.len() <= 63
        && edge(bytes.first())
        && edge(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    let label = |l: &str| {
        let b = l.as_bytes();
        edge(b.first()) && edge(b.last()) && b.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
    };
    name_fits && prefix.is_none_or(|p| p.len() <= 253 && p.split('.').all(label))
}

/// The policy of a request, parsed and validated.
pub(super) fn policy(field: &str, message: &wire::SandboxPolicy, v: &mut Violations) -> Option<Policy> {
    let bytes = message.encoded_len();
    if bytes > limits::POLICY_BYTES {
        v.add(field, format!("the policy has {bytes} bytes; at most {}", limits::POLICY_BYTES));
        return None;
    }
    match openshell_proto::policy::from_wire(message) {
        Ok(policy) => Some(policy),
        Err(error) => {
            convert::policy::violations(field, &error, v);
            None
        }
    }
}

/// Size of a terminal.
pub(super) fn terminal(cols: u32, rows: u32, v: &mut Violations) {
    for (field, cells) in [("cols", cols), ("rows", rows)] {
        if cells > limits::TERMINAL_CELLS {
            v.add(field, format!("{cells}; at most {}", limits::TERMINAL_CELLS));
        }
    }
}
