//! Makes a disk image like those that distributions publish for clouds: Debian with its own kernel, boot loader, cloud-init
//! and sshd, started by firmware. Such an image knows nothing of where it runs: all it learns comes from the seed.
//!
//! Nothing of it is downloaded as an image: debootstrap takes the packages from the machine's own apt sources, and neither a
//! loop device nor a mount is needed. It is made once and kept under the target folder.

mod disk;
mod root;

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::bins;
use crate::guest_image::{Checked, run};
use disk::Layout;

/// Raised when the image is to be made anew although one is kept.
const EDITION: &str = "1";
const FOLDER: &str = "cloud-image";

/// The image.
#[derive(Debug, Clone)]
pub struct CloudImage {
    /// The disk, qcow2.
    pub disk: Checked,
}

impl CloudImage {
    /// The user that cloud-init makes, and whose keys it sets.
    pub const USER: &str = "debian";

    /// Makes it, or finds it made. Safe to call from several processes at once: the work is behind a file lock.
    ///
    /// # Errors
    /// When packages cannot be had or a tool fails; the error carries what it said.
    pub fn build() -> Result<Self> {
        let cache = bins::lab_dir()?.join(FOLDER);
        fs::create_dir_all(&cache)?;
        let lock = fs::File::create(cache.join("lock")).context("creating the cache's lock")?;
        lock.lock().context("waiting for another build of the cloud image")?;
        let disk = cache.join(format!("disk-{EDITION}.qcow2"));
        if !disk.is_file() {
            make(&cache, &disk)?;
        }
        Ok(Self { disk: Checked::of(disk)? })
    }
}

fn make(cache: &Path, to: &Path) -> Result<()> {
    let root = cache.join("root");
    remove(&root)?;
    root::debootstrap(&root, &cache.join("packages")).context("making a Debian root with debootstrap")?;
    root::settle(&root)?;
    let layout = Layout::of_root(&root)?;
    let raw = cache.join("disk.raw");
    layout.write(&root, &raw)?;
    remove(&root)?;
    let half = to.with_extension("half");
    run(Command::new("qemu-img").args(["convert", "-q", "-O", "qcow2"]).arg(&raw).arg(&half))?;
    fs::remove_file(raw)?;
    fs::rename(half, to).with_context(|| format!("keeping {}", to.display()))
}

/// Removes what an earlier attempt left. debootstrap unmounts what it mounted, also when it fails.
fn remove(root: &Path) -> Result<()> {
    if root.exists() {
        // `--one-file-system`: should a mount be left all the same, the machine's own /proc and /sys are not walked.
        run(Command::new("rm").args(["-rf", "--one-file-system"]).arg(root))?;
    }
    Ok(())
}
