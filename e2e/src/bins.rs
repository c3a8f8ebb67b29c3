//! Where the binaries under test are.

use std::path::PathBuf;

/// Directory of the binaries: `OPENSHELL_BIN_DIR`, else the profile directory of the running test.
pub fn dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("OPENSHELL_BIN_DIR") {
        return dir.into();
    }
    let mut dir = std::env::current_exe().unwrap_or_default();
    dir.pop();
    if dir.ends_with("deps") {
        dir.pop();
    }
    dir
}

/// One binary; says how to build it when it is not there.
pub fn path(name: &str) -> anyhow::Result<PathBuf> {
    let path = dir().join(name);
    anyhow::ensure!(path.exists(), "{} is not built: run `cargo build --workspace --bins`", path.display());
    Ok(path)
}

/// The gateway: `OPENSHELL_GATEWAY_BIN`, else the one beside the others.
pub fn gateway() -> anyhow::Result<PathBuf> {
    std::env::var_os("OPENSHELL_GATEWAY_BIN").map_or_else(|| path("openshell-gateway"), |named| Ok(named.into()))
}
