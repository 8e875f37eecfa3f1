//! The volumes of a host: each a file system in a file, as machines' own layers are, in a folder of its own below the agent's data.

use super::blanks::Blanks;
use crate::hypervisor::namespace::step::{Doing, StepError};
use novacron_common::{record::VolumeSeen, spec::Name, units::ByteCount};
use std::{
    fs::{self, DirBuilder, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};
use tokio::sync::Mutex;

/// Below the agent's data.
const FOLDER: &str = "volumes";

/// In the volume's folder.
const DISK: &str = "disk.ext4";

/// What the kernel counts a file's blocks in (`stat(2)`).
const BLOCK: u64 = 512;

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

    /// What is there, by name.
    ///
    /// # Errors
    /// [`StepError`] if the folder cannot be read.
    pub fn list(&self) -> Result<Vec<VolumeSeen>, StepError> {
        let doing = "list volumes";
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            found => found.doing(doing)?,
        };
        let names =
            entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.parse::<Name>().ok());
        let mut seen: Vec<_> = names.filter_map(|name| self.look(name)).collect();
        seen.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(seen)
    }

    /// One that is being made, or removed, is none.
    fn look(&self, name: Name) -> Option<VolumeSeen> {
        let disk = fs::metadata(self.folder.join(name.as_str()).join(DISK)).ok()?;
        let used = ByteCount(disk.blocks().saturating_mul(BLOCK));
        Some(VolumeSeen { name, size: ByteCount(disk.len()), used })
    }

    /// Removes a volume with all that is in it; `false` if there is none.
    ///
    /// # Errors
    /// [`StepError`] if a machine runs with it.
    pub async fn remove(&self, name: &Name) -> Result<bool, StepError> {
        let _turn = self.turn.lock().await;
        let doing = format!("remove the volume {name}");
        let folder = self.folder.join(name.as_str());
        let disk = folder.join(DISK);
        let file = match File::open(&disk) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            found => found.doing(&doing)?,
        };
        // Whoever has it mounted has it locked, also where he began before this agent did.
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StepError::new(doing, "a machine runs with it: stop that one first"));
            }
            Err(TryLockError::Error(cause)) => return Err(StepError::new(doing, cause)),
        }
        fs::remove_dir_all(&folder).doing(&doing)?;
        Ok(true)
    }
}

/// Has the volume's name outlive a crash of the host, as what machines then write in it may.
fn written(folder: &Path) -> io::Result<()> {
    folder.ancestors().take(3).try_for_each(|folder| File::open(folder)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_volume_is_made_once_and_goes_when_nobody_has_it() {
        let place = tempfile::tempdir().unwrap();
        let blanks = Blanks::open(place.path().join("blanks")).unwrap();
        let shelf = Shelf::new(place.path(), ByteCount::mib(16));
        let (b, a) = ("b".parse().unwrap(), "a".parse().unwrap());
        assert_eq!(shelf.list().unwrap(), []);
        assert!(!shelf.remove(&a).await.unwrap());
        let (first, again) = tokio::join!(shelf.disk(&b, &blanks), shelf.disk(&b, &blanks));
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&first.unwrap()), inode(&again.unwrap()));
        let disk = shelf.disk(&a, &blanks).await.unwrap();
        // One that a crash left half made, and something that is none of ours.
        fs::create_dir(place.path().join("volumes/half")).unwrap();
        fs::create_dir(place.path().join("volumes/.other")).unwrap();
        let seen = shelf.list().unwrap();
        assert_eq!(seen.iter().map(|volume| volume.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert!(seen.iter().all(|volume| volume.size == ByteCount::mib(16) && volume.used < volume.size));

        let user = File::open(&disk).unwrap();
        user.lock().unwrap();
        assert!(shelf.remove(&a).await.unwrap_err().chain().contains("stop that one first"));
        drop(user);
        assert!(shelf.remove(&a).await.unwrap() && !disk.exists());
        assert_eq!(shelf.list().unwrap().len(), 1);
    }
}
