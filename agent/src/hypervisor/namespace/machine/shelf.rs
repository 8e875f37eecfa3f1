//! The volumes of a host: each a file system in a file, as machines' own layers are, in a folder of its own below the agent's data.

use super::blanks::Blanks;
use crate::hypervisor::namespace::step::{Doing, StepError};
use novacron_common::{spec::Name, units::ByteCount};
use std::{
    fs::{DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use tokio::sync::Mutex;

/// Below the agent's data.
const FOLDER: &str = "volumes";

/// In the volume's folder.
const DISK: &str = "disk.ext4";

/// Them all.
#[derive(Debug)]
pub struct Shelf {
    folder: PathBuf,
    /// Of a volume that is made.
    size: ByteCount,
    /// Whose turn it is to make one: two machines that ask for it at once must get the same.
    turn: Mutex<()>,
}

impl Shelf {
    /// Below the agent's data.
    pub fn new(data_dir: &Path, size: ByteCount) -> Self {
        Self { folder: data_dir.join(FOLDER), size, turn: Mutex::default() }
    }

    /// The file of a volume. One that is missing is made, and gets its name when it is whole.
    ///
    /// # Errors
    /// [`StepError`] if there is no room, or no `mkfs.ext4` (package e2fsprogs).
    pub async fn disk(&self, name: &Name, blanks: &Blanks) -> Result<PathBuf, StepError> {
        let _turn = self.turn.lock().await;
        let folder = self.folder.join(name.as_str());
        let disk = folder.join(DISK);
        if !disk.exists() {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(&folder);
            made.doing("make the volume's folder")?;
            blanks.give(self.size, &disk).await?;
            written(&folder).doing("write the volume's name")?;
        }
        Ok(disk)
    }
}

/// Has the volume's name outlive a crash of the host, as what machines then write in it may.
fn written(folder: &Path) -> io::Result<()> {
    folder.ancestors().take(3).try_for_each(|folder| File::open(folder)?.sync_all())
}
