//! The file that holds what a machine writes: ext4, sparse, as large as the machine's storage. It is made before the first
//! start and goes with the machine's folder.

use crate::hypervisor::HvError;
use novacron_common::{ids::VmId, units::ByteCount};
use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    process::Stdio,
};
use tokio::process::Command;

/// Its name in the machine's folder.
const FILE: &str = "upper.ext4";

/// Below this there is no room for ext4's own records.
const SIZE_MIN: ByteCount = ByteCount::mib(16);

/// What is a machine's storage where it asks for none.
const SIZE_USUAL: ByteCount = ByteCount::mib(256);

/// What the file system is made with: no room kept back for root, and its tables written as they are needed.
const OPTIONS: &[&str] = &["-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];

const MKFS: &str = "mkfs.ext4";

/// Where it is, below the machine's folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Makes it, if it is not there.
///
/// # Errors
/// [`HvError::Failed`] if there is no room, or no `mkfs.ext4` (package e2fsprogs).
pub async fn ensure(vm: VmId, folder: &Path, storage: ByteCount) -> Result<(), HvError> {
    let path = path(folder);
    if path.exists() {
        return Ok(());
    }
    let made = make(&path, size(storage)).await;
    made.map_err(|cause| HvError::failed(format!("make the file system for what {vm} writes"), cause))
}

/// Under a name of its own until it is whole: what a crash leaves is made anew.
async fn make(path: &Path, size: ByteCount) -> io::Result<()> {
    let new = path.with_extension("new");
    File::create(&new)?.set_len(size.0)?;
    let mut mkfs = Command::new(MKFS);
    mkfs.args(OPTIONS).arg(&new).stdin(Stdio::null()).kill_on_drop(true);
    let done =
        mkfs.output().await.map_err(|cause| io::Error::new(cause.kind(), format!("{MKFS}: {cause}")))?;
    if !done.status.success() {
        let said = String::from_utf8_lossy(&done.stderr[..done.stderr.len().min(1024)]).trim().to_owned();
        return Err(io::Error::other(format!("{MKFS} failed: {said}")));
    }
    File::open(&new)?.sync_all()?;
    std::fs::rename(&new, path)
}

fn size(storage: ByteCount) -> ByteCount {
    if storage == ByteCount(0) { SIZE_USUAL } else { storage.max(SIZE_MIN) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_has_the_storage_that_it_asked_for() {
        assert_eq!(size(ByteCount(0)), SIZE_USUAL);
        assert_eq!(size(ByteCount::mib(1)), SIZE_MIN);
        assert_eq!(size(ByteCount::gib(3)), ByteCount::gib(3));
    }
}
