//! Who a caller is.

use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::session::SandboxPrincipal;

/// A caller that has proven who it is.
#[derive(Clone, Debug)]
pub enum Principal {
    /// A person or a program of theirs.
    User(User),
    /// The supervisor of one sandbox.
    Sandbox(SandboxPrincipal),
}

impl Principal {
    /// For messages and logs.
    pub fn describe(&self) -> String {
        match self {
            Self::User(user) => format!("user '{}'", user.subject),
            Self::Sandbox(sandbox) => format!("sandbox {}", sandbox.sandbox_id),
        }
    }
}

/// A person or a program of theirs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Stable identity within its provider.
    pub subject: String,
    /// For people.
    pub display_name: String,
    /// `mtls` or `local_dev`.
    pub provider: &'static str,
    /// What it may do.
    pub roles: Vec<Role>,
    /// Where within that; `openshell:all` is everything.
    pub scopes: Vec<String>,
}

/// A role that methods ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May do everything, in every workspace.
    PlatformAdmin,
    /// May use workspaces.
    User,
}

impl Role {
    /// The name under which identity providers and `GetCurrentUser` know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PlatformAdmin => "openshell-admin",
            Self::User => "openshell-user",
        }
    }
}

/// The scope that includes every other.
pub(super) const ALL_SCOPES: &str = "openshell:all";

/// The subject of a verified client certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateSubject {
    /// Common name.
    pub common_name: String,
    /// Organizational units.
    pub units: Vec<String>,
}

impl CertificateSubject {
    /// Reads it from a certificate that TLS has verified.
    pub fn from_der(der: &[u8]) -> Option<Self> {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        let subject = certificate.subject();
        let text = |a: &x509_parser::x509::AttributeTypeAndValue<'_>| a.as_str().ok().map(str::to_owned);
        Some(Self {
            common_name: subject.iter_common_name().next().and_then(text)?,
            units: subject.iter_organizational_unit().filter_map(text).collect(),
        })
    }
}

impl User {
    /// The holder of a certificate. On a gateway of one machine its user may do everything; a
    /// certificate that is not the user's may do nothing.
    pub fn from_certificate(subject: &CertificateSubject) -> Self {
        let known = subject.units.iter().any(|unit| unit == super::USER_UNIT);
        Self {
            subject: subject.common_name.clone(),
            display_name: subject.common_name.clone(),
            provider: "mtls",
            roles: if known { vec![Role::PlatformAdmin, Role::User] } else { Vec::new() },
            scopes: if known { vec![ALL_SCOPES.to_owned()] } else { Vec::new() },
        }
    }

    /// Everybody, where TLS is switched off.
    pub fn local_development() -> Self {
        Self {
            subject: "unauthenticated-local-dev".to_owned(),
            display_name: "anyone on this machine".to_owned(),
            provider: "local_dev",
            roles: vec![Role::PlatformAdmin, Role::User],
            scopes: vec![ALL_SCOPES.to_owned()],
        }
    }

    /// Whether it has the role, or the one that includes it.
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role) || self.roles.contains(&Role::PlatformAdmin)
    }

    /// Whether it has the scope, or the one that includes it.
    pub fn has_scope(&self, scope: &str) -> bool {
        self.scopes.iter().any(|s| s == scope || s == ALL_SCOPES)
    }
}
