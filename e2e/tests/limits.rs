//! `docs/LIMITS.md` is the table of every bound in the code. `UPDATE_LIMITS=1 cargo test -p
//! openshell-e2e --test limits` rewrites it from the `limits.rs` of each component.

#![allow(clippy::unwrap_used)]

use std::{fmt::Write as _, fs, path::Path};

const COMPONENTS: [(&str, &str); 5] = [
    ("Policy", "policy/src/limits.rs"),
    ("Supervisor", "supervisor/src/limits.rs"),
    ("Gateway", "gateway/src/limits.rs"),
    ("Controllers and API service", "operator/src/limits.rs"),
    ("Command line", "cli/src/limits.rs"),
];

fn table() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned();
    let mut out = String::from(
        "# Limits\n\nEvery bound of every component, from its `limits.rs`; a test compares this page with the code.\n\
         Reaching one is a clear error for whoever asked for too much, and never loosens anything.\n",
    );
    for (component, file) in COMPONENTS {
        let Ok(source) = fs::read_to_string(root.join(file)) else { continue };
        write!(out, "\n## {component}\n\nSource: `{file}`.\n\n| Bound | Value | What it bounds |\n|---|---|---|\n").unwrap();
        let (mut doc, mut lines) = (Vec::new(), source.lines().peekable());
        while let Some(line) = lines.next() {
            let line = line.trim();
            if let Some(text) = line.strip_prefix("///") {
                doc.push(text.trim().to_owned());
            } else if let Some(item) = line.strip_prefix("pub const ").or_else(|| line.strip_prefix("pub(crate) const ")) {
                let mut item = item.to_owned();
                while !item.ends_with(';') {
                    item.push(' ');
                    item.push_str(lines.next().expect("a constant ends with a semicolon").trim());
                }
                let (name, rest) = item.split_once(':').expect("a constant has a type");
                let value = rest.split_once('=').expect("a constant has a value").1.trim().trim_end_matches(';');
                writeln!(out, "| `{name}` | `{value}` | {} |", doc.join(" ").replace('|', "\\|")).unwrap();
                doc.clear();
            } else if !line.starts_with("#[") {
                doc.clear();
            }
        }
    }
    out
}

#[test]
fn the_table_of_limits_is_what_the_code_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/LIMITS.md");
    let table = table();
    if std::env::var_os("UPDATE_LIMITS").is_some() {
        fs::write(&path, &table).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap_or_default() == table,
        "docs/LIMITS.md is stale: UPDATE_LIMITS=1 cargo test -p openshell-e2e --test limits"
    );
}
