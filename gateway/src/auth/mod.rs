//! Who is calling, and may it call this method?
//!
//! ```text
//!   request ─▸ origin: is the request meant for this gateway? (foreign Host or Origin: 403)
//!           ─▸ principal: sandbox token in `authorization`, else the client's certificate
//!           ─▸ rules: what the method's descriptor asks for
//!           ─▸ the handler, with the principal in the request's extensions
//! ```
//!
//! Loopback proves nothing: a browser, a container and a sandbox can all reach it. A caller is
//! somebody because it holds a key. The rules are read from the descriptors when the gateway
//! starts; a method that says nothing about authorization keeps the gateway from starting.

mod guard;
mod origin;
mod principal;
mod rules;

pub(crate) use guard::status_response;
pub use guard::{Guard, guard};
pub use openshell_operator::pki::USER_UNIT;
pub use origin::Hosts;
pub use principal::{CertificateSubject, Principal, Role, User};
pub use rules::{Mode, Rule, Rules, RulesError};

#[cfg(test)]
mod tests;
