//! Blank disks: file systems that are made, and on disk, before a machine asks for one.
//!
//! ```text
//! mkfs.ext4 ── once a size ──▶ mould ── what it has of data is copied ──▶ spares ── rename ──▶ a machine's own disk
//! ```
//!
//! A spare is written to disk before it is given away, so that no crash of the host leaves half a file system under a machine's
//! name. The rename itself is not: whatever a machine writes to disk takes it along, as both are changes of one file. A
//! rename that such a crash undid leaves a disk here that a machine has used, so **whatever an earlier life of the agent left is
//! removed** and never given to another machine.
//!
//! All disks of one mould have its UUID and hash seed. Nothing here looks a file system up by those, and nobody within a machine
//! reaches the device.

use crate::hypervisor::namespace::{
    sparse,
    step::{Doing, StepError},
};
use novacron_common::units::ByteCount;
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, File},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::{process::Command, task::spawn_blocking};

/// Disks of one size that are ready. Each takes some 150 KiB, whatever its size.
const SPARES: usize = 8;

/// At so few the shelf is filled again: many at once are written to disk in less time than as many one by one.
const SPARES_FEW: usize = SPARES / 2;

/// Sizes that are kept ready; a machine of yet another one waits for `mkfs.ext4` at its first start.
const SIZES_MAX: usize = 16;

/// What a file system is made with: no room kept back for root or for growing, and its tables written as they are needed.
const OPTIONS: &[&str] =
    &["-q", "-F", "-m", "0", "-O", "^resize_inode", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];

const MKFS: &str = "mkfs.ext4";

/// The blank disks of one host.
#[derive(Debug)]
pub struct Blanks {
    folder: PathBuf,
    moulds: tokio::sync::Mutex<BTreeMap<ByteCount, PathBuf>>,
    shelves: Mutex<BTreeMap<ByteCount, Shelf>>,
    named: AtomicU64,
}

/// The spares of one size.
#[derive(Debug, Default)]
struct Shelf {
    spares: Vec<PathBuf>,
    is_being_filled: bool,
}

impl Blanks {
    /// Without any, in a folder that nobody else has.
    ///
    /// # Errors
    /// [`StepError`] if what is there cannot be removed.
    pub fn open(folder: PathBuf) -> Result<Arc<Self>, StepError> {
        let doing = "clear the folder of blank disks";
        match fs::remove_dir_all(&folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).doing(doing),
            _ => {}
        }
        DirBuilder::new().mode(0o700).create(&folder).doing(doing)?;
        Ok(Arc::new(Self {
            folder,
            moulds: tokio::sync::Mutex::default(),
            shelves: Mutex::default(),
            named: AtomicU64::new(0),
        }))
    }

    /// Puts a disk of this size at a path.
    ///
    /// # Errors
    /// [`StepError`] if there is no room, or no `mkfs.ext4` (package e2fsprogs).
    pub async fn give(&self, size: ByteCount, to: &Path) -> Result<(), StepError> {
        let spare = self.shelves().entry(size).or_default().spares.pop();
        let disk = match spare {
            Some(disk) => disk,
            None => self.make(size).await?,
        };
        fs::rename(disk, to).doing("give a disk its name")
    }

    async fn make(&self, size: ByteCount) -> Result<PathBuf, StepError> {
        let disk = self.name();
        match self.mould(size).await? {
            Some(mould) => sparse::copy(&mould, &disk).doing("copy a blank disk")?,
            None => format(&disk, size).await.doing("make a file system")?,
        }
        File::open(&disk).and_then(|file| file.sync_all()).doing("write a blank disk")?;
        Ok(disk)
    }

    /// What disks of this size are copied from; `None` if there are too many sizes.
    async fn mould(&self, size: ByteCount) -> Result<Option<PathBuf>, StepError> {
        let mut moulds = self.moulds.lock().await;
        if let Some(mould) = moulds.get(&size) {
            return Ok(Some(mould.clone()));
        }
        if moulds.len() >= SIZES_MAX {
            return Ok(None);
        }
        let mould = self.name();
        format(&mould, size).await.doing("make a file system")?;
        moulds.insert(size, mould.clone());
        Ok(Some(mould))
    }

    /// Fills the shelf of this size, if there are few on it, on a thread of its own: to be called when a machine has started,
    /// with which it would else compete for the disk.
    pub async fn fill(self: &Arc<Self>, size: ByteCount) {
        let Some(mould) = self.moulds.lock().await.get(&size).cloned() else { return };
        {
            let mut shelves = self.shelves();
            let shelf = shelves.entry(size).or_default();
            if shelf.spares.len() > SPARES_FEW || std::mem::replace(&mut shelf.is_being_filled, true) {
                return;
            }
        }
        let blanks = Arc::clone(self);
        // Nobody waits for it: a machine that finds no spare has its disk made at once.
        drop(spawn_blocking(move || {
            while let Some(lacking) = blanks.lacking(size) {
                if let Err(error) = blanks.add(&mould, size, lacking) {
                    tracing::warn!(%error, "could not keep blank disks ready");
                    blanks.shelves().entry(size).or_default().is_being_filled = false;
                    return;
                }
            }
        }));
    }

    /// How many there are too few; `None`, and the filling is at its end, if there are enough.
    fn lacking(&self, size: ByteCount) -> Option<usize> {
        let mut shelves = self.shelves();
        let shelf = shelves.entry(size).or_default();
        let lacking = SPARES.saturating_sub(shelf.spares.len());
        shelf.is_being_filled = lacking > 0;
        shelf.is_being_filled.then_some(lacking)
    }

    /// Copied all at once, then written: the file system below writes them together.
    fn add(&self, mould: &Path, size: ByteCount, count: usize) -> io::Result<()> {
        let disks: Vec<PathBuf> = (0..count).map(|_| self.name()).collect();
        disks.iter().try_for_each(|disk| sparse::copy(mould, disk))?;
        for disk in disks {
            File::open(&disk)?.sync_all()?;
            self.shelves().entry(size).or_default().spares.push(disk);
        }
        Ok(())
    }

    fn name(&self) -> PathBuf {
        self.folder.join(format!("{}.ext4", self.named.fetch_add(1, Ordering::Relaxed)))
    }

    fn shelves(&self) -> MutexGuard<'_, BTreeMap<ByteCount, Shelf>> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn format(path: &Path, size: ByteCount) -> io::Result<()> {
    File::create_new(path)?.set_len(size.0)?;
    let mut mkfs = Command::new(MKFS);
    mkfs.args(OPTIONS).arg(path).stdin(Stdio::null()).kill_on_drop(true);
    let done =
        mkfs.output().await.map_err(|cause| io::Error::new(cause.kind(), format!("{MKFS}: {cause}")))?;
    if done.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&done.stderr[..done.stderr.len().min(1024)]).trim().to_owned();
    Err(io::Error::other(format!("{MKFS} failed: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::fs::MetadataExt, time::Duration};

    const SIZE: ByteCount = ByteCount::mib(64);

    async fn spares(blanks: &Blanks, wanted: usize) {
        while blanks.shelves().get(&SIZE).map_or(0, |shelf| shelf.spares.len()) != wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    #[tokio::test]
    async fn a_disk_is_a_whole_file_system_of_its_size_and_takes_next_to_no_room() {
        let place = tempfile::tempdir().unwrap();
        let blanks = Blanks::open(place.path().join("blanks")).unwrap();
        for number in 0..=2 {
            let disk = place.path().join(number.to_string());
            blanks.give(SIZE, &disk).await.unwrap();
            let found = fs::metadata(&disk).unwrap();
            assert!(found.len() == SIZE.0 && found.blocks() * 512 < 1 << 20, "{found:?}");
            let checked = Command::new("e2fsck").args(["-f", "-n"]).arg(&disk).output().await.unwrap();
            assert!(checked.status.success(), "{checked:?}");
            // The second and third are spares.
            blanks.fill(SIZE).await;
            spares(&blanks, SPARES - number).await;
        }
        assert_eq!(blanks.moulds.lock().await.len(), 1);
        for number in 3..=SPARES_FEW {
            blanks.give(SIZE, &place.path().join(number.to_string())).await.unwrap();
        }
        blanks.fill(SIZE).await;
        spares(&blanks, SPARES).await;
    }

    #[tokio::test]
    async fn what_an_earlier_life_left_is_given_to_nobody() {
        let place = tempfile::tempdir().unwrap();
        let folder = place.path().join("blanks");
        let earlier = Blanks::open(folder.clone()).unwrap();
        earlier.give(SIZE, &place.path().join("one")).await.unwrap();
        earlier.fill(SIZE).await;
        spares(&earlier, SPARES).await;
        let blanks = Blanks::open(folder.clone()).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
        assert!(blanks.shelves().is_empty());
        blanks.give(SIZE, &place.path().join("other")).await.unwrap();
    }

    #[tokio::test]
    async fn more_sizes_than_are_kept_ready_are_made_one_by_one() {
        let place = tempfile::tempdir().unwrap();
        let blanks = Blanks::open(place.path().join("blanks")).unwrap();
        let sizes = (1..=SIZES_MAX as u64).map(|mib| (ByteCount::mib(mib), place.path().to_owned()));
        blanks.moulds.lock().await.extend(sizes);
        blanks.give(SIZE, &place.path().join("disk")).await.unwrap();
        blanks.fill(SIZE).await;
        assert_eq!(fs::metadata(place.path().join("disk")).unwrap().len(), SIZE.0);
        assert!(blanks.shelves()[&SIZE].spares.is_empty());
    }
}
