//! Filesystem grants: absolute, plain, bounded, never the whole machine.

use super::Report;
use crate::limits::{MAX_PATH, MAX_PATHS};
use crate::model::FilesystemPolicy;

pub(super) fn validate(section: &FilesystemPolicy, report: &mut Report<'_>) {
    let paths = section.read_only.len() + section.read_write.len();
    if paths > MAX_PATHS {
        report.here("too-many", format!("has {paths} paths; at most {MAX_PATHS} are possible in both lists together"));
    }
    for (key, list) in [("read_only", &section.read_only), ("read_write", &section.read_write)] {
        let mut report = report.key(key);
        for (i, path) in list.iter().enumerate() {
            path_is_plain(path, &mut report.index(i));
            if key == "read_write" && !path.is_empty() && path.bytes().all(|b| b == b'/') {
                report
                    .index(i)
                    .here("overly-broad-path", "`/` would make the whole machine writable; name the directories that are needed");
            }
        }
    }
}

fn path_is_plain(path: &str, report: &mut Report<'_>) {
    if path.len() > MAX_PATH {
        report.here("too-long", format!("has {} bytes; at most {MAX_PATH} are possible", path.len()));
    }
    if !path.starts_with('/') {
        report.here("relative-path", format!("`{path}` is not absolute; write the whole path from `/`"));
    }
    if path.split('/').any(|component| component == "..") {
        report.here("path-traversal", format!("`{path}` has a `..` component; write the path that is meant"));
    }
    if path.contains('\0') {
        report.here("invalid-path", "has a NUL character; no path does");
    }
}
