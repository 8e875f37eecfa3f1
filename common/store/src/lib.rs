//! The durable key-value store under the ledgers of agent and coordinator: the only module that knows sled.
//!
//! What sled 0.34 does not do by itself is done here, once:
//! * its `flush` calls `sync_file_range`, which is no promise about a power cut (sync_file_range(2)), so
//!   [`Store::sync`] adds an `fdatasync` of the same file (`file`, which also says why that is quick);
//! * what is longer than a quarter of a segment goes to files that it never syncs, so values longer than
//!   [`VALUE_MAX`] are refused and segments are long enough for a leaf full of such values;
//! * damage is noticed when a value is read: each carries a CRC-32.
//!
//! All calls block; call them from a thread that may.
//!
//! A [`Store`] can also stand on a simulated [`Disk`], for the simulation in `tests/sim`.

mod error;
mod file;
mod simulated;
mod tree;

pub use error::StoreError;
pub use simulated::Disk;
pub use tree::{Batch, Row, Tree};

use file::DbFile;
use std::{
    fs::{File, TryLockError},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

/// Longest value; larger things are cut into several by their owner.
pub const VALUE_MAX: usize = 64 * 1024;

/// sled writes a whole leaf at a time, and one longer than a quarter of a segment as a file that it never syncs. A
/// leaf has up to about 20 values, so a quarter must hold 20 of the longest: the default of 512 KiB is far from it.
/// (Fixed when a store is made: sled refuses to open one that was made with another.)
const SEGMENT_BYTES: usize = 8 << 20;
const _: () = assert!(SEGMENT_BYTES / 4 > 24 * VALUE_MAX);

/// A folder with one database in it, locked against a second process.
#[derive(Debug, Clone)]
pub struct Store(Backend);

#[derive(Debug, Clone)]
enum Backend {
    Sled { db: sled::Db, file: Arc<DbFile> },
    Simulated(simulated::Hold),
}

/// How long a predecessor may take to go.
const PREDECESSOR_GOES: Duration = Duration::from_secs(2);
/// Between two looks whether it has.
const LOOK: Duration = Duration::from_millis(20);

/// Returns once nobody holds the lock of the database (flock(2) on its file, as sled takes it), or after a while.
fn wait_for_predecessor(folder: &Path) {
    let Ok(file) = File::open(folder.join("db")) else { return };
    let began = Instant::now();
    while matches!(file.try_lock(), Err(TryLockError::WouldBlock)) && began.elapsed() < PREDECESSOR_GOES {
        std::thread::sleep(LOOK);
    }
}

impl Store {
    /// Opens or makes the store in `folder`. One that is still open gets two seconds to go: sled releases its lock
    /// when the last of its threads is done, which may be a moment after its owner was dropped. Blocks.
    ///
    /// # Errors
    /// [`StoreError`] if the folder is in use, cannot be written, or the database is damaged.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let doing = || format!("open the store in {}", folder.display());
        wait_for_predecessor(folder);
        let db = sled::Config::new()
            .path(folder)
            .flush_every_ms(None)
            .cache_capacity(32 << 20)
            .segment_size(SEGMENT_BYTES)
            .open()
            .map_err(|cause| StoreError::Engine { doing: doing(), cause })?;
        let file = DbFile::open(folder).map_err(|cause| StoreError::File { doing: doing(), cause })?;
        Ok(Self(Backend::Sled { db, file: Arc::new(file) }))
    }

    /// Opens the store on a simulated disk.
    ///
    /// # Errors
    /// [`StoreError`] if another store is open on it.
    pub fn simulated(disk: &Disk) -> Result<Self, StoreError> {
        Ok(Self(Backend::Simulated(disk.hold()?)))
    }

    /// Opens or makes a tree.
    ///
    /// # Errors
    /// [`StoreError`] if sled cannot.
    pub fn tree(&self, name: &str) -> Result<Tree, StoreError> {
        match &self.0 {
            Backend::Sled { db, .. } => {
                let tree = db
                    .open_tree(name)
                    .map_err(|cause| StoreError::Engine { doing: format!("open tree {name}"), cause })?;
                Ok(Tree::sled(name, tree))
            }
            Backend::Simulated(hold) => Ok(Tree::simulated(name, hold.clone())),
        }
    }

    /// Removes a tree with all that is in it; an absent one is no error.
    ///
    /// # Errors
    /// [`StoreError`] if sled cannot.
    pub fn drop_tree(&self, name: &str) -> Result<(), StoreError> {
        match &self.0 {
            Backend::Sled { db, .. } => db
                .drop_tree(name)
                .map(|_| ())
                .map_err(|cause| StoreError::Engine { doing: format!("drop tree {name}"), cause }),
            Backend::Simulated(hold) => hold.drop_tree(name),
        }
    }

    /// Returns once everything that was written before is on stable storage.
    ///
    /// # Errors
    /// [`StoreError`]: what was written may be lost at a power cut.
    pub fn sync(&self) -> Result<(), StoreError> {
        match &self.0 {
            Backend::Sled { db, file } => {
                db.flush().map_err(|cause| StoreError::Engine { doing: "flush the store".into(), cause })?;
                file.sync().map_err(|cause| StoreError::File { doing: "sync the store".into(), cause })
            }
            Backend::Simulated(hold) => hold.sync(),
        }
    }

    /// Bytes on disk.
    ///
    /// # Errors
    /// [`StoreError`] if the folder cannot be read.
    pub fn size_on_disk(&self) -> Result<u64, StoreError> {
        match &self.0 {
            Backend::Sled { db, .. } => db
                .size_on_disk()
                .map_err(|cause| StoreError::Engine { doing: "measure the store".into(), cause }),
            Backend::Simulated(hold) => hold.bytes(),
        }
    }
}

#[cfg(test)]
mod tests;
