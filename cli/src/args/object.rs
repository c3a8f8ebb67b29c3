//! `openshell apply`, `get` and `delete`: objects as files, the same files that `kubectl` takes.

use std::path::PathBuf;

use clap::{ArgAction, ArgGroup, Args};

use super::OutputArgs;

/// `apply`.
#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    /// File with objects (YAML with any number of documents, or JSON); `-` is standard input.
    /// Repeat for more
    #[arg(short, long = "filename", value_name = "FILE", required = true, action = ArgAction::Append)]
    pub(crate) files: Vec<PathBuf>,
    /// Namespace of objects that name none
    #[arg(short, long, default_value = "openshell")]
    pub(crate) namespace: String,
    /// Take over fields that another manager owns
    #[arg(long)]
    pub(crate) force_conflicts: bool,
}

/// `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// Kind, plural or short name: openshellsandboxes (ossb), policies (ospol), providers (osprov),
    /// openshellgateways (osg), secrets
    pub(crate) kind: String,
    /// Object [default: all of the kind]
    pub(crate) name: Option<String>,
    /// Namespace
    #[arg(short, long, default_value = "openshell")]
    pub(crate) namespace: String,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR", conflicts_with = "name")]
    pub(crate) selector: Option<String>,
    #[command(flatten)]
    pub(crate) output: OutputArgs,
}

/// `delete`.
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).args(["files", "kind"]))]
pub(crate) struct DeleteArgs {
    /// File whose objects are deleted; `-` is standard input. Repeat for more
    #[arg(short, long = "filename", value_name = "FILE", action = ArgAction::Append)]
    pub(crate) files: Vec<PathBuf>,
    /// Kind, plural or short name
    #[arg(requires = "names")]
    pub(crate) kind: Option<String>,
    /// Objects of that kind
    #[arg(value_name = "NAME")]
    pub(crate) names: Vec<String>,
    /// Namespace of objects that name none
    #[arg(short, long, default_value = "openshell")]
    pub(crate) namespace: String,
    /// Do not fail when an object does not exist
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}
