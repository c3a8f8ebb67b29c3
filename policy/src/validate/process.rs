//! Who the agent runs as: never root, never the "unchanged" id.

use super::Report;
use crate::model::ProcessPolicy;

pub(super) fn validate(section: &ProcessPolicy, report: &mut Report<'_>) {
    for (key, identity) in [("run_as_user", &section.run_as_user), ("run_as_group", &section.run_as_group)] {
        let Some(identity) = identity else { continue };
        // 0 is root; 4294967295 is -1, which system calls read as "leave it as it is".
        let number = identity.bytes().all(|b| b.is_ascii_digit()).then(|| identity.parse::<u32>().ok()).flatten();
        if identity != "sandbox" && number.is_none_or(|n| n == 0 || n == u32::MAX) {
            report.at(
                key,
                "invalid-process-identity",
                format!("`{identity}` is not possible; use `sandbox` or a number from 1 to 4294967294"),
            );
        }
    }
}
