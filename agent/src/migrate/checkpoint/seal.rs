//! The small file beside a checkpoint that makes it one: its key, and what it is of. It is written when the machine has
//! left, and overwritten before the checkpoint is removed.

use super::{pages, remove_file};
use novacron_common::{ids::VmId, units::UnixMillis, wire::codec};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// The first byte of the file: the form of what follows.
const FORM: u8 = 2;
/// More is no such file.
const LENGTH_MAX: u64 = 256;

/// What is in it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// Whose memory it is.
    pub vm: VmId,
    /// Of its pages.
    pub key: [u8; pages::KEY],
    /// How many there are.
    pub pages: u32,
    /// When it was finished.
    pub sealed_at: UnixMillis,
}

impl std::fmt::Debug for Seal {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Seal({} {} pages)", self.vm, self.pages)
    }
}

impl Seal {
    /// Writes it, whole or not at all, for this process's user only.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let bytes = codec::encode_behind(FORM, self).map_err(io::Error::other)?;
        let new = path.with_extension("key-new");
        remove_file(&new)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        fs::rename(&new, path)
    }

    /// Reads it.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::InvalidData`] if it is not what was written.
    pub fn read(path: &Path) -> io::Result<Self> {
        let mut bytes = Vec::new();
        File::open(path)?.take(LENGTH_MAX).read_to_end(&mut bytes)?;
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        match bytes.split_first() {
            Some((&FORM, rest)) => codec::decode(rest).map_err(|error| invalid(&error.to_string())),
            _ => Err(invalid("it has another form")),
        }
    }

    /// Overwrites it and removes it. Blocks until the disk has the overwriting.
    ///
    /// # Errors
    /// The system's; it being gone is none.
    pub fn erase(path: &Path) -> io::Result<()> {
        match OpenOptions::new().write(true).open(path) {
            Ok(mut file) => {
                let length = usize::try_from(file.metadata()?.len().min(LENGTH_MAX)).unwrap_or(0);
                file.write_all(&vec![0; length])?;
                file.sync_data()?;
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        remove_file(path)
    }
}
