//! The file of a ledger's backup: frames ([`super::codec`]) of a header and of rows, then a trailer with which it can be
//! checked without understanding the rest.

use crate::{ids::ClusterId, units::UnixMillis};
use serde::{Deserialize, Serialize};

/// Begins the header; the last byte is the format.
pub const MAGIC: [u8; 8] = *b"NVCBKUP\x01";
/// Begins the trailer; SHA-256 of everything before it follows.
pub const TRAILER_MAGIC: [u8; 8] = *b"NVCBKEND";
/// Length of the trailer.
pub const TRAILER_BYTES: usize = TRAILER_MAGIC.len() + 32;

/// The first frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupHeader {
    /// [`MAGIC`].
    pub magic: [u8; 8],
    /// Whose ledger it is.
    pub cluster: ClusterId,
    /// The coordinator that made it.
    pub node: u64,
    /// The last log index in it.
    pub applied: u64,
    /// The ledger's time then.
    pub at: UnixMillis,
    /// How many rows follow.
    pub rows: u64,
}
