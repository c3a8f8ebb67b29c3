//! What each method asks of its caller, read from the method options of the descriptors.

use std::collections::HashMap;

use openshell_proto::options::AuthorizationRule;
use prost::Message;

use super::{Principal, Role};

/// Who may call a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Anybody.
    Unauthenticated,
    /// Users.
    User,
    /// Supervisors.
    Sandbox,
    /// Users, and supervisors about their own sandbox.
    Dual,
}

/// What a method asks of its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Who may call it.
    pub mode: Mode,
    /// The role that a user needs.
    pub role: Option<Role>,
    /// The scope that a user needs.
    pub scope: Option<String>,
}

/// The rules of all methods, by path (`/openshell.v1.OpenShell/Health`).
#[derive(Debug)]
pub struct Rules(HashMap<String, Rule>);

/// Why the rules cannot be read. A gateway that has them does not start.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// The descriptors do not decode.
    #[error("the descriptors of the API cannot be read: {0}")]
    Descriptors(String),
    /// A method without the option, or one with a value that has no meaning.
    #[error("method {method} has no usable authorization option: {reason}")]
    Method {
        /// Full name.
        method: String,
        /// What is wrong.
        reason: String,
    },
}

impl Rules {
    /// Reads the rules of every service in `descriptors`.
    pub fn read(descriptors: &[u8]) -> Result<Self, RulesError> {
        let broken = |e: &dyn std::fmt::Display| RulesError::Descriptors(e.to_string());
        let files = Files::decode(descriptors).map_err(|e| broken(&e))?.files;
        let mut rules = HashMap::new();
        for (package, service) in files.iter().flat_map(|file| file.services.iter().map(|service| (&file.package, service))) {
            for method in &service.methods {
                let path = format!("/{package}.{}/{}", service.name, method.name);
                let fail = |reason: String| RulesError::Method { method: path.clone(), reason };
                let option = method.options.as_ref().and_then(|options| options.authorization.as_ref());
                let rule = rule(option.ok_or_else(|| fail("it is missing".to_owned()))?).map_err(fail)?;
                rules.insert(path, rule);
            }
        }
        if rules.is_empty() {
            return Err(broken(&"there is no method in them"));
        }
        Ok(Self(rules))
    }

    /// The rule of a method.
    pub fn get(&self, path: &str) -> Option<&Rule> {
        self.0.get(path)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Rule)> {
        self.0.iter().map(|(path, rule)| (path.as_str(), rule))
    }
}

/// The part of `google.protobuf.FileDescriptorSet` that leads to our option: all of it would take megabytes.
#[derive(Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "4")]
    options: Option<Options>,
}

/// `google.protobuf.MethodOptions` with the extension `openshell.options.v1.authorization`.
#[derive(Message)]
struct Options {
    #[prost(message, optional, tag = "50000")]
    authorization: Option<AuthorizationRule>,
}

fn rule(option: &AuthorizationRule) -> Result<Rule, String> {
    let mode = match option.auth_mode.as_str() {
        "unauthenticated" => Mode::Unauthenticated,
        "bearer" => Mode::User,
        "sandbox" => Mode::Sandbox,
        "dual" => Mode::Dual,
        other => return Err(format!("auth_mode '{other}' is not known")),
    };
    let role = match (option.global_role.as_str(), option.workspace_role.as_str()) {
        ("platform_admin", _) => Some(Role::PlatformAdmin),
        // Membership is looked at by the handler, which knows the workspace.
        ("", "user" | "admin") => Some(Role::User),
        ("", "") => None,
        (global, workspace) => return Err(format!("role '{global}{workspace}' is not known")),
    };
    let scope = Some(option.scope.clone()).filter(|s| !s.is_empty());
    Ok(Rule { mode, role, scope })
}

/// Why a call is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Nobody has proven anything.
    #[error("{0}")]
    Unauthenticated(String),
    /// It is known who it is, and it may not.
    #[error("{0}")]
    Forbidden(String),
}

impl Rule {
    /// May `principal` call the method at `path`?
    pub fn check(&self, path: &str, principal: Option<&Principal>) -> Result<(), Denied> {
        let method = path.rsplit('/').next().unwrap_or(path);
        match (self.mode, principal) {
            (Mode::Unauthenticated, _) | (Mode::Sandbox | Mode::Dual, Some(Principal::Sandbox(_))) => Ok(()),
            (Mode::Sandbox, None) => {
                Err(Denied::Unauthenticated(format!("{method} needs a sandbox token in the metadata 'authorization'")))
            }
            (_, None) => Err(Denied::Unauthenticated(format!(
                "{method} needs a client certificate of this gateway: use the bundle in gateways/openshell/mtls of the configuration directory"
            ))),
            (Mode::User, Some(principal @ Principal::Sandbox(_))) => {
                Err(Denied::Forbidden(format!("{method} is for users; {} may not call it", principal.describe())))
            }
            (Mode::Sandbox, Some(principal @ Principal::User(_))) => {
                Err(Denied::Forbidden(format!("{method} is for the supervisors of sandboxes; {} may not call it", principal.describe())))
            }
            (Mode::User | Mode::Dual, Some(Principal::User(user))) => {
                if let Some(role) = self.role.filter(|&role| !user.has_role(role)) {
                    return Err(Denied::Forbidden(format!(
                        "{method} needs the role '{}', which user '{}' does not have",
                        role.as_str(),
                        user.subject
                    )));
                }
                if let Some(scope) = self.scope.as_deref().filter(|scope| !user.has_scope(scope)) {
                    return Err(Denied::Forbidden(format!(
                        "{method} needs the scope '{scope}', which user '{}' does not have",
                        user.subject
                    )));
                }
                Ok(())
            }
        }
    }
}
