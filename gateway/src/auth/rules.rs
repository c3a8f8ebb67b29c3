//! What each method asks of its caller, read from the method options of the descriptors.

use std::collections::HashMap;

use prost_reflect::{DescriptorPool, DynamicMessage, Value};

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
        let pool = DescriptorPool::decode(descriptors).map_err(|e| broken(&e))?;
        let extension = pool
            .get_extension_by_name("openshell.options.v1.authorization")
            .ok_or_else(|| broken(&"the option openshell.options.v1.authorization is not in them"))?;
        let mut rules = HashMap::new();
        for method in pool.services().flat_map(|service| service.methods().collect::<Vec<_>>()) {
            let fail = |reason: String| RulesError::Method { method: method.full_name().to_owned(), reason };
            let options = method.options();
            if !options.has_extension(&extension) {
                return Err(fail("it is missing".to_owned()));
            }
            let value = options.get_extension(&extension);
            let option = value.as_message().ok_or_else(|| fail("it is no message".to_owned()))?;
            let rule = rule(option).map_err(fail)?;
            rules.insert(format!("/{}/{}", method.parent_service().full_name(), method.name()), rule);
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

fn text(message: &DynamicMessage, field: &str) -> String {
    message.get_field_by_name(field).and_then(|v| if let Value::String(s) = &*v { Some(s.clone()) } else { None }).unwrap_or_default()
}

fn rule(option: &DynamicMessage) -> Result<Rule, String> {
    let mode = match text(option, "auth_mode").as_str() {
        "unauthenticated" => Mode::Unauthenticated,
        "bearer" => Mode::User,
        "sandbox" => Mode::Sandbox,
        "dual" => Mode::Dual,
        other => return Err(format!("auth_mode '{other}' is not known")),
    };
    let role = match (text(option, "global_role").as_str(), text(option, "workspace_role").as_str()) {
        ("platform_admin", _) => Some(Role::PlatformAdmin),
        // Membership is looked at by the handler, which knows the workspace.
        ("", "user" | "admin") => Some(Role::User),
        ("", "") => None,
        (global, workspace) => return Err(format!("role '{global}{workspace}' is not known")),
    };
    let scope = Some(text(option, "scope")).filter(|s| !s.is_empty());
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
