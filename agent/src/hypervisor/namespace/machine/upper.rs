//! The file that holds what a machine writes: ext4, sparse, as large as the machine's storage. It is there before the first
//! start and goes with the machine's folder.

use super::blanks::Blanks;
use crate::hypervisor::HvError;
use novacron_common::{ids::VmId, units::ByteCount};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

/// Its name in the machine's folder.
pub const FILE: &str = "upper.ext4";

/// Below this there is no room for ext4's own records.
const SIZE_MIN: ByteCount = ByteCount::mib(16);

/// What is a machine's storage where it asks for none.
const SIZE_USUAL: ByteCount = ByteCount::mib(256);

/// Where it is, below the machine's folder.
pub fn path(folder: &Path) -> PathBuf {
    folder.join(FILE)
}

/// Sees to it that the next one of this storage is ready.
pub async fn restock(storage: ByteCount, blanks: &Arc<Blanks>) {
    blanks.fill(size(storage)).await;
}

/// Has it there. It gets its name when it is whole.
///
/// # Errors
/// [`HvError::Failed`] if there is no room, or no `mkfs.ext4` (package e2fsprogs).
pub async fn ensure(vm: VmId, folder: &Path, storage: ByteCount, blanks: &Blanks) -> Result<(), HvError> {
    let path = path(folder);
    if path.exists() {
        return Ok(());
    }
    let given = blanks.give(size(storage), &path).await;
    given.map_err(|cause| HvError::failed(format!("make the file system for what {vm} writes"), cause))
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
