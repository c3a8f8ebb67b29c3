//! The environment, read once. No other module looks at a variable.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::CliError;
use crate::limits;

/// What the environment says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Environment {
    /// `OPENSHELL_GATEWAY`.
    pub(crate) gateway: Option<String>,
    /// `OPENSHELL_GATEWAY_ENDPOINT`.
    pub(crate) gateway_endpoint: Option<String>,
    /// `OPENSHELL_GATEWAY_INSECURE`.
    pub(crate) gateway_insecure: bool,
    /// `OPENSHELL_GATEWAY_BIN`: the gateway to start locally.
    pub(crate) gateway_binary: Option<PathBuf>,
    /// `OPENSHELL_SUPERVISOR_BIN`: the supervisor that `doctor` asks.
    pub(crate) supervisor_binary: Option<PathBuf>,
    /// `OPENSHELL_COMMUNITY_REGISTRY`: what comes before the name of a sandbox that is no image reference.
    pub(crate) community_registry: Option<String>,
    /// `OPENSHELL_SANDBOX_POLICY`: policy file of sandboxes created without `--policy`.
    pub(crate) sandbox_policy: Option<PathBuf>,
    /// `OPENSHELL_SYSTEM_GATEWAY_DIR`, else `/etc/openshell`.
    pub(crate) system_config: PathBuf,
    /// `$XDG_CONFIG_HOME/openshell`.
    pub(crate) config_dir: Option<PathBuf>,
    /// `$XDG_STATE_HOME/openshell`.
    pub(crate) state_dir: Option<PathBuf>,
    /// `PATH`.
    pub(crate) path: Vec<PathBuf>,
    /// `TERM`.
    pub(crate) term: Option<String>,
    /// `OPENSHELL_PROVISION_TIMEOUT` in seconds.
    pub(crate) provision_timeout: Duration,
    /// `OPENSHELL_LIFECYCLE_TIMEOUT` in seconds.
    pub(crate) lifecycle_timeout: Duration,
    /// Everything, for credentials that are named without a value.
    pub(crate) variables: BTreeMap<String, String>,
}

impl Environment {
    /// Of this process. Variables that are no UTF-8 are as good as absent.
    pub(crate) fn read() -> Result<Self, CliError> {
        Self::from_variables(std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?))).collect())
    }

    /// From given variables. One that cannot be meant is an error: a time that is no number, or a
    /// word that neither asks for certificates to be verified nor not to be.
    pub(crate) fn from_variables(variables: BTreeMap<String, String>) -> Result<Self, CliError> {
        let get = |name: &str| variables.get(name).filter(|v| !v.is_empty()).cloned();
        // The base directory specification ignores relative paths.
        let absolute = |name: &str| get(name).map(PathBuf::from).filter(|p| p.is_absolute());
        let home = absolute("HOME");
        let base = |variable: &str, below_home: &str| {
            absolute(variable).or_else(|| home.as_ref().map(|h| h.join(below_home))).map(|d| d.join("openshell"))
        };
        let seconds = |name: &str, default| match get(name) {
            None => Ok(default),
            Some(value) => value
                .parse()
                .map(Duration::from_secs)
                .map_err(|_| CliError::usage(format!("{name} is `{value}`: give a number of seconds, or unset it."))),
        };
        let insecure = "OPENSHELL_GATEWAY_INSECURE";
        let gateway_insecure = match get(insecure) {
            None => false,
            Some(value) => match value.to_ascii_lowercase().as_str() {
                "1" | "true" | "yes" | "on" => true,
                "0" | "false" | "no" | "off" => false,
                _ => return Err(CliError::usage(format!("{insecure} is `{value}`: give true or false, or unset it."))),
            },
        };
        Ok(Self {
            gateway: get("OPENSHELL_GATEWAY"),
            gateway_endpoint: get("OPENSHELL_GATEWAY_ENDPOINT"),
            gateway_insecure,
            gateway_binary: get("OPENSHELL_GATEWAY_BIN").map(PathBuf::from),
            supervisor_binary: get("OPENSHELL_SUPERVISOR_BIN").map(PathBuf::from),
            community_registry: get("OPENSHELL_COMMUNITY_REGISTRY"),
            sandbox_policy: get("OPENSHELL_SANDBOX_POLICY").map(PathBuf::from),
            system_config: absolute("OPENSHELL_SYSTEM_GATEWAY_DIR").unwrap_or_else(|| PathBuf::from("/etc/openshell")),
            config_dir: base("XDG_CONFIG_HOME", ".config"),
            state_dir: base("XDG_STATE_HOME", ".local/state"),
            path: get("PATH").map(|p| std::env::split_paths(&p).collect()).unwrap_or_default(),
            term: get("TERM"),
            provision_timeout: seconds("OPENSHELL_PROVISION_TIMEOUT", limits::PROVISION_IDLE)?,
            lifecycle_timeout: seconds("OPENSHELL_LIFECYCLE_TIMEOUT", limits::LIFECYCLE)?,
            variables,
        })
    }
}

/// Whether `NO_COLOR` asks for plain text (<https://no-color.org>). Apart from the rest because
/// errors are rendered before and after everything else.
pub(crate) fn no_color() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
}
