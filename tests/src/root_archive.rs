//! A small root file system of this machine's own programs, packed as an administrator would, for namespace machines.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::guest_image::Checked;

/// What the dynamic loader brings in, itself among it: the absolute paths that ldd(1) tells.
///
/// # Errors
/// When ldd cannot be run.
pub fn libraries(program: &str) -> Result<Vec<PathBuf>> {
    let told = Command::new("ldd").arg(program).output().context("running ldd")?;
    let told = String::from_utf8(told.stdout)?;
    Ok(told.split_ascii_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// A script that counts aloud.
const TICK: &str = "n=0; while :; do n=$((n+1)); echo tick $n; sleep 0.1; done\n";

/// Packs these programs, with what they need to run, the usual folders and `/tick`, into `archive`.
///
/// # Errors
/// When one of them is not there, or tar fails.
pub fn pack(programs: &[&str], archive: &Path) -> Result<Checked> {
    let root = tempfile::tempdir()?;
    for folder in ["etc", "root", "srv", "tmp"] {
        fs::create_dir(root.path().join(folder))?;
    }
    fs::write(root.path().join("etc/passwd"), "root:x:0:0::/root:/bin/sh\nweb:x:33:33::/srv:/bin/sh\n")?;
    fs::write(root.path().join("tick"), TICK)?;
    for program in programs {
        for file in libraries(program)?.into_iter().chain([PathBuf::from(program)]) {
            let to = root.path().join(file.strip_prefix("/")?);
            fs::create_dir_all(to.parent().context("a program without a folder")?)?;
            fs::copy(&file, to).with_context(|| format!("copying {}", file.display()))?;
        }
    }
    let packed = Command::new("tar").arg("-C").arg(root.path()).arg("-cf").arg(archive).arg(".").status();
    ensure!(packed.context("running tar")?.success(), "tar could not pack the root");
    Checked::of(archive.to_path_buf())
}
