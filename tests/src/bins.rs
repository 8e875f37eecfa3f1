//! Finds the programs that were built beside the running test.

use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};

/// The path of a program of this workspace, as built in the same profile as the running executable.
///
/// # Errors
/// When it has not been built; the message names the command that does.
pub fn path(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    ensure!(path.is_file(), "{} is missing: run `cargo build --workspace --bins` first", path.display());
    Ok(path)
}

/// The folder that holds the built programs: test executables live one level below it, in `deps`.
fn folder() -> Result<PathBuf> {
    let exe = std::env::current_exe().context("finding the running executable")?;
    let folder = exe.parent().context("the executable has no folder")?;
    let folder =
        if folder.ends_with("deps") { folder.parent().context("deps has no parent")? } else { folder };
    Ok(folder.to_path_buf())
}

/// The build's target folder: one above the profile's.
///
/// # Errors
/// When the running executable cannot be found.
pub fn target_dir() -> Result<PathBuf> {
    Ok(folder()?.parent().context("the profile folder has no parent")?.to_path_buf())
}

/// The folder below [`target_dir`] that the lab keeps its guests and images in, made where it is missing: a test may
/// be the first of a fresh clone to need it.
///
/// # Errors
/// When it cannot be made.
pub fn lab_dir() -> Result<PathBuf> {
    let lab = target_dir()?.join("lab");
    std::fs::create_dir_all(&lab).with_context(|| format!("making {}", lab.display()))?;
    Ok(lab)
}
