//! Why a sandbox cannot be what its objects ask for.

use std::fmt;

use kube::ResourceExt as _;
use kube::core::DeserializeGuard;
use openshell_policy::Finding;

/// Objects that do not make a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BlueprintError {
    /// Stable; the reason of a condition.
    pub reason: Reason,
    /// What is wrong, and what to do about it.
    pub message: String,
    /// For [`Reason::PolicyRefused`]: each thing that is wrong with the policy.
    pub findings: Vec<Finding>,
}

/// Stable reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The object is not one we can read.
    InvalidObject,
    /// `policy` and `policyRef` are both there.
    PolicyAmbiguous,
    /// `policyRef` names no `Policy`.
    PolicyNotFound,
    /// The policy is not a valid one.
    PolicyRefused,
    /// Several selectors match a sandbox that names no policy.
    PolicyConflict,
    /// A name in `providerRefs` is no `Provider`.
    ProviderNotFound,
    /// A provider cannot be used as it is.
    ProviderRefused,
    /// The same variable comes from two places.
    ProviderConflict,
    /// A variable has a name that is ours.
    EnvironmentReserved,
    /// A variable cannot be one.
    EnvironmentInvalid,
    /// What is asked of the pod is nothing that a pod can be.
    PodInvalid,
    /// The gateway's bound on sandboxes is reached.
    QuotaExceeded,
}

impl Reason {
    /// The reason as a condition has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidObject => "InvalidObject",
            Self::PolicyAmbiguous => "PolicyAmbiguous",
            Self::PolicyNotFound => "PolicyNotFound",
            Self::PolicyRefused => "PolicyRefused",
            Self::PolicyConflict => "PolicyConflict",
            Self::ProviderNotFound => "ProviderNotFound",
            Self::ProviderRefused => "ProviderRefused",
            Self::ProviderConflict => "ProviderConflict",
            Self::EnvironmentReserved => "EnvironmentReserved",
            Self::EnvironmentInvalid => "EnvironmentInvalid",
            Self::PodInvalid => "PodInvalid",
            Self::QuotaExceeded => "QuotaExceeded",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl BlueprintError {
    /// An error without findings.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), findings: Vec::new() }
    }

    /// The object `name` that cannot be read for `why`, to whoever needs it.
    pub fn unreadable_other<K: kube::Resource<DynamicType = ()>>(name: &str, why: &str) -> Self {
        Self::unreadable(&format!("{} \"{name}\"", K::kind(&())), why)
    }

    /// What the object `name` is, if it is there; an error if it cannot be read.
    pub fn unless_unreadable<K>(found: Option<&DeserializeGuard<K>>, name: &str) -> Result<Option<K>, Self>
    where
        K: kube::Resource<DynamicType = ()> + Clone,
    {
        match found {
            Some(DeserializeGuard(Ok(object))) => Ok(Some(object.clone())),
            Some(DeserializeGuard(Err(invalid))) => Err(Self::unreadable_other::<K>(name, &invalid.error)),
            None => Ok(None),
        }
    }

    /// All of them; an error if one cannot be read, as it might be the one that matters.
    pub fn unless_any_unreadable<'a, K>(all: impl IntoIterator<Item = &'a DeserializeGuard<K>>) -> Result<Vec<K>, Self>
    where
        K: kube::Resource<DynamicType = ()> + Clone + 'a,
    {
        let read = |found: &'a DeserializeGuard<K>| Self::unless_unreadable(Some(found), &found.name_any()).transpose();
        all.into_iter().filter_map(read).collect()
    }

    /// An object, as the sentence names it, that cannot be read for `why`.
    pub(crate) fn unreadable(object: &str, why: &str) -> Self {
        Self::new(Reason::InvalidObject, format!("{object} cannot be read: {why}; apply it again as the API documents it"))
    }
}
