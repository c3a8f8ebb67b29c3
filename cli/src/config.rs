//! The configuration directory: which gateways are registered, and which is the active one.
//!
//! ```text
//! $XDG_CONFIG_HOME/openshell/           /etc/openshell/   (read only, for the whole machine)
//!     active_gateway                        active_gateway
//!     gateways/<name>/                      gateways/<name>/
//!         metadata.json                         metadata.json
//!         mtls/{ca.crt,tls.crt,tls.key}         mtls/…
//!         last_sandbox
//! ```
//!
//! The published SDK reads the same files. A user's entry hides the machine's of the same name.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::env::Environment;
use crate::error::CliError;
use crate::limits;

/// Name under which the gateway of this machine registers itself.
pub(crate) const LOCAL: &str = "openshell";

/// `metadata.json`, of which we use a part; the rest belongs to other programs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) gateway_endpoint: String,
    #[serde(default)]
    pub(crate) is_remote: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) remote_host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resolved_host: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) auth_mode: Option<String>,
    /// The cluster through whose API server it is reached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kubernetes: Option<Cluster>,
}

/// A gateway in a Kubernetes cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Cluster {
    /// Context of the kubeconfig.
    pub(crate) context: String,
    /// Namespace of the `OpenShellGateway`.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) gateway: String,
}

/// Where an entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The user's directory.
    User,
    /// The machine's.
    System,
}

impl Source {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::System => "system",
        }
    }
}

/// A registered gateway.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) metadata: Metadata,
    pub(crate) source: Source,
    /// `gateways/<name>`.
    pub(crate) directory: PathBuf,
}

/// A client bundle, as PEM.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Bundle {
    pub(crate) ca: Option<Vec<u8>>,
    /// Certificate and key.
    pub(crate) identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl std::fmt::Debug for Bundle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundle").field("ca", &self.ca.is_some()).field("identity", &self.identity.is_some()).finish()
    }
}

/// What was asked for, by precedence: flag before environment before files, and within a level
/// an address before a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// An address.
    Endpoint(String),
    /// A registered gateway, and who named it.
    Named(String, &'static str),
    /// Nothing is configured: the gateway of this machine.
    Nothing,
}

/// The directories.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    user: PathBuf,
    system: PathBuf,
}

impl Config {
    pub(crate) fn new(environment: &Environment) -> Result<Self, CliError> {
        let user = environment.config_dir.clone().ok_or_else(|| {
            CliError::new("no-home", "There is no place for the configuration.")
                .because("neither XDG_CONFIG_HOME nor HOME is an absolute path")
                .next("Set HOME.")
        })?;
        Ok(Self { user, system: environment.system_config.clone() })
    }

    /// The user's directory.
    pub(crate) fn user_dir(&self) -> &Path {
        &self.user
    }

    /// Which gateway is wanted.
    pub(crate) fn wanted(&self, flags: &crate::args::Global, environment: &Environment) -> Result<Wanted, CliError> {
        if let Some(named) = Self::named(flags, environment) {
            return Ok(named);
        }
        Ok(self.active()?.map_or(Wanted::Nothing, |name| Wanted::Named(name, "active_gateway")))
    }

    /// The gateway that flags or environment name.
    pub(crate) fn named(flags: &crate::args::Global, environment: &Environment) -> Option<Wanted> {
        if let Some(endpoint) = &flags.gateway_endpoint {
            return Some(Wanted::Endpoint(endpoint.clone()));
        }
        if let Some(name) = &flags.gateway {
            return Some(Wanted::Named(name.clone(), "--gateway"));
        }
        if let Some(endpoint) = &environment.gateway_endpoint {
            return Some(Wanted::Endpoint(endpoint.clone()));
        }
        if let Some(name) = &environment.gateway {
            return Some(Wanted::Named(name.clone(), "OPENSHELL_GATEWAY"));
        }
        None
    }

    /// The active gateway, if one is chosen.
    pub(crate) fn active(&self) -> Result<Option<String>, CliError> {
        for directory in [&self.user, &self.system] {
            if let Some(bytes) = read_if_there(&directory.join("active_gateway"))? {
                let name = String::from_utf8_lossy(&bytes).trim().to_owned();
                if !name.is_empty() {
                    return Ok(Some(name));
                }
            }
        }
        Ok(None)
    }

    /// Chooses the active gateway.
    pub(crate) fn select(&self, name: &str) -> Result<(), CliError> {
        fs::create_dir_all(&self.user).map_err(|e| unwritable(&self.user, &e))?;
        replace(&self.user.join("active_gateway"), format!("{name}\n").as_bytes())
    }

    /// Registers a gateway with its client bundle, in the place of one of the same name.
    pub(crate) fn register(&self, name: &str, metadata: &Metadata, bundle: &Bundle) -> Result<(), CliError> {
        let directory = self.user.join("gateways").join(name);
        let mtls = directory.join("mtls");
        DirBuilder::new().recursive(true).mode(0o700).create(&mtls).map_err(|e| unwritable(&mtls, &e))?;
        let (certificate, key) = bundle.identity.as_ref().map(|(certificate, key)| (certificate, key)).unzip();
        for (file, bytes) in [("ca.crt", bundle.ca.as_ref()), ("tls.key", key), ("tls.crt", certificate)] {
            match bytes {
                Some(bytes) => replace(&mtls.join(file), bytes)?,
                // A file of a gateway that had the name before.
                None => drop(fs::remove_file(mtls.join(file))),
            }
        }
        let text =
            serde_json::to_vec_pretty(metadata).map_err(|e| CliError::new("metadata", "The registration cannot be written.").because(e))?;
        replace(&directory.join("metadata.json"), &text)
    }

    /// Forgets a registered gateway of the user.
    pub(crate) fn forget_gateway(&self, name: &str) -> Result<(), CliError> {
        let directory = self.user.join("gateways").join(name);
        fs::remove_dir_all(&directory).map_err(|e| unwritable(&directory, &e))
    }

    /// One registered gateway.
    pub(crate) fn gateway(&self, name: &str) -> Result<Option<Registered>, CliError> {
        if !valid_name(name) {
            return Err(CliError::usage(format!("`{name}` is no name of a gateway.")).next("See `openshell gateway list`."));
        }
        for (root, source) in [(&self.user, Source::User), (&self.system, Source::System)] {
            let directory = root.join("gateways").join(name);
            let file = directory.join("metadata.json");
            let Some(bytes) = read_if_there(&file)? else { continue };
            let metadata = serde_json::from_slice(&bytes).map_err(|e| {
                CliError::new("bad-registration", format!("The registration of gateway {name} cannot be read."))
                    .because(format_args!("{}: {e}", file.display()))
                    .next("Correct the file, or remove its directory and register the gateway again.")
            })?;
            return Ok(Some(Registered { name: name.to_owned(), metadata, source, directory }));
        }
        Ok(None)
    }

    /// Every registered gateway, by name.
    pub(crate) fn gateways(&self) -> Result<Vec<Registered>, CliError> {
        let mut names = std::collections::BTreeSet::new();
        for root in [&self.user, &self.system] {
            let directory = root.join("gateways");
            let entries = match fs::read_dir(&directory) {
                Ok(entries) => entries,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(unreadable(&directory, &e)),
            };
            names.extend(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).filter(|n| valid_name(n)));
        }
        let mut found = Vec::new();
        for name in names {
            found.extend(self.gateway(&name)?);
        }
        Ok(found)
    }

    /// The last sandbox used with a gateway in a workspace.
    pub(crate) fn last_sandbox(&self, gateway: &str, workspace: &str) -> Option<String> {
        let bytes = read_if_there(&self.user.join("gateways").join(gateway).join("last_sandbox")).ok()??;
        let text = String::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        (lines.next() == Some(workspace)).then(|| lines.next().map(str::to_owned))?.filter(|n| !n.is_empty())
    }

    /// Remembers it. Failing to is no failure of the command.
    pub(crate) fn remember_sandbox(&self, gateway: &str, workspace: &str, sandbox: &str) {
        let directory = self.user.join("gateways").join(gateway);
        let written = fs::create_dir_all(&directory).map_err(|e| unwritable(&directory, &e));
        if let Err(error) = written.and_then(|()| replace(&directory.join("last_sandbox"), format!("{workspace}\n{sandbox}\n").as_bytes()))
        {
            tracing::debug!(%error, "the last sandbox is not remembered");
        }
    }

    /// Forgets it if it is this one.
    pub(crate) fn forget_sandbox(&self, gateway: &str, workspace: &str, sandbox: &str) {
        if self.last_sandbox(gateway, workspace).as_deref() == Some(sandbox) {
            // Already gone is as good.
            let _ = fs::remove_file(self.user.join("gateways").join(gateway).join("last_sandbox"));
        }
    }
}

impl Registered {
    /// Its client bundle.
    pub(crate) fn bundle(&self) -> Result<Bundle, CliError> {
        let directory = self.directory.join("mtls");
        let ca = read_if_there(&directory.join("ca.crt"))?;
        let certificate = read_if_there(&directory.join("tls.crt"))?;
        let key = read_if_there(&directory.join("tls.key"))?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (certificate, _) => {
                let missing = if certificate.is_none() { "tls.crt" } else { "tls.key" };
                return Err(CliError::new("bad-registration", format!("The client certificate of gateway {} is not complete.", self.name))
                    .because(format_args!("{} is missing", directory.join(missing).display()))
                    .next("Copy the missing file from where the gateway was registered."));
            }
        };
        Ok(Bundle { ca, identity })
    }

    /// Whether it is the gateway of this machine, which we may start.
    pub(crate) fn is_local(&self) -> bool {
        self.name == LOCAL && !self.metadata.is_remote && self.source == Source::User
    }

    /// `local` or `remote`.
    pub(crate) fn kind(&self) -> &'static str {
        if self.metadata.is_remote { "remote" } else { "local" }
    }

    /// How it authenticates clients; absent means mutual TLS for https.
    pub(crate) fn auth(&self) -> &str {
        match self.metadata.auth_mode.as_deref() {
            Some(mode) if !mode.is_empty() => mode,
            _ if self.metadata.gateway_endpoint.starts_with("http://") => "plaintext",
            _ => "mtls",
        }
    }
}

/// A name is one path component that is not hidden.
pub(crate) fn valid_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && !name.starts_with('.')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':'))
}

/// A file of at most [`limits::CONFIG_BYTES`], or nothing if there is none.
fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, CliError> {
    let file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(unreadable(path, &e)),
    };
    let mut bytes = Vec::new();
    file.take(limits::CONFIG_BYTES + 1).read_to_end(&mut bytes).map_err(|e| unreadable(path, &e))?;
    if bytes.len() as u64 > limits::CONFIG_BYTES {
        return Err(CliError::new("file-too-large", format!("{} is too large to be what it should be.", path.display())));
    }
    Ok(Some(bytes))
}

/// Replaces a file in one step, so that a reader sees the old or the new bytes. Only the user reads it.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), CliError> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(temporary);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        fs::rename(&temporary, path)
    };
    write().map_err(|e| {
        // Nothing half-written stays; the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        unwritable(path, &e)
    })
}

fn unreadable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new("unreadable", format!("{} cannot be read.", path.display())).because(error)
}

fn unwritable(path: &Path, error: &std::io::Error) -> CliError {
    CliError::new("unwritable", format!("{} cannot be written.", path.display())).because(error)
}

#[cfg(test)]
mod tests;
