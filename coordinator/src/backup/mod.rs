//! Backup and restore of the control plane: the whole ledger in one file.
//!
//! The file is consistent (all of it as of one log index), carries a checksum, and holds no secret in the clear: API
//! and join tokens are digests in the ledger, the CA's key and kept answers are sealed under a key that is not in it.

mod difference;
mod format;
mod restore;

pub use difference::{Difference, TableDifference};
pub use format::{Backup, BackupError, Frames};
pub use restore::{RestoreOptions, Restored, restore};
