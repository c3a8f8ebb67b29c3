//! The Landlock domain: files by policy, no TCP of its own, signals and abstract sockets inside.

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, LandlockStatus, PathBeneath, PathFd, Ruleset, RulesetAttr as _,
    RulesetCreatedAttr as _, RulesetError, RulesetStatus, Scope,
};
use openshell_policy::model::LandlockCompatibility;

use super::{ablation::Wall, domain::ConfineError, sys};

/// The newest ABI this build knows; what the kernel lacks is left out and reported.
const NEWEST: ABI = ABI::V9;

/// Paths of the rules, opened before anything is given up.
pub(super) struct Grants {
    read_only: Vec<PathFd>,
    read_write: Vec<PathFd>,
    /// Paths that do not exist.
    pub(super) missing: Vec<PathBuf>,
}

impl Grants {
    /// Opens every path. A missing one is left out (`best_effort`) or refused (`hard_requirement`).
    pub(super) fn open(read_only: &[PathBuf], read_write: &[PathBuf], strictness: LandlockCompatibility) -> Result<Self, ConfineError> {
        let mut missing = Vec::new();
        let mut open = |paths: &[PathBuf]| {
            let mut opened = Vec::new();
            for path in paths {
                match PathFd::new(path) {
                    Ok(fd) => opened.push(fd),
                    Err(_) => missing.push(path.clone()),
                }
            }
            opened
        };
        let (read_only, read_write) = (open(read_only), open(read_write));
        if let (LandlockCompatibility::HardRequirement, Some(path)) = (strictness, missing.first()) {
            return Err(ConfineError::new(
                "PathMissing",
                format!(
                    "the policy grants {} which does not exist here, and landlock.compatibility is hard_requirement: create the path, \
                     take it out of the policy, or use best_effort",
                    path.display()
                ),
            ));
        }
        Ok(Self { read_only, read_write, missing })
    }
}

/// Enters the domain. Returns the ABI in force, 0 if there is none.
pub(super) fn enter(grants: Grants, strictness: LandlockCompatibility) -> Result<u32, ConfineError> {
    let abi = sys::landlock_abi();
    let status = restrict(grants).map_err(|error| ConfineError::internal("entering the Landlock domain", error))?;
    if abi == 0 || status == RulesetStatus::NotEnforced {
        return match strictness {
            LandlockCompatibility::HardRequirement => Err(ConfineError::new(
                "LandlockRequired",
                "landlock.compatibility is hard_requirement and this kernel has no Landlock: enable it (`lsm=landlock,…` on the kernel's \
                 command line) or use best_effort",
            )),
            LandlockCompatibility::BestEffort => Ok(0),
        };
    }
    Ok(abi)
}

fn restrict(grants: Grants) -> Result<RulesetStatus, RulesetError> {
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    if Wall::LandlockFs.stands() {
        ruleset = ruleset.handle_access(AccessFs::from_all(NEWEST))?;
    }
    if Wall::LandlockNet.stands() {
        ruleset = ruleset.handle_access(AccessNet::from_all(NEWEST))?;
    }
    if Wall::LandlockScope.stands() {
        ruleset = ruleset.scope(Scope::from_all(NEWEST))?;
    }
    if !Wall::LandlockFs.stands() && !Wall::LandlockNet.stands() && !Wall::LandlockScope.stands() {
        return Ok(RulesetStatus::NotEnforced);
    }
    let mut created = ruleset.create()?;
    if Wall::LandlockFs.stands() {
        created = created.add_rules(rules(grants.read_only, AccessFs::from_read(NEWEST)))?;
        created = created.add_rules(rules(grants.read_write, AccessFs::from_all(NEWEST)))?;
    }
    let status = created.restrict_self()?;
    Ok(match status.landlock {
        LandlockStatus::Available { .. } => status.ruleset,
        _ => RulesetStatus::NotEnforced,
    })
}

/// Rights that a file can have; the rest are a directory's, and the kernel refuses them on a file.
fn rules(paths: Vec<PathFd>, access: landlock::BitFlags<AccessFs>) -> impl Iterator<Item = Result<PathBeneath<PathFd>, RulesetError>> {
    paths.into_iter().map(move |fd| {
        let is_directory = rustix::fs::fstat(&fd).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir());
        let access = if is_directory { access } else { access & AccessFs::from_file(NEWEST) };
        Ok(PathBeneath::new(fd, access))
    })
}

/// Whether `path` lies in or is one of `roots`.
pub(crate) fn covers(roots: &[PathBuf], path: &Path) -> bool {
    roots.iter().any(|root| path.starts_with(root))
}
