//! A file of sealed pages: each a record of its own, so that one can be read, written over or damaged without the others.
//!
//! ```text
//! | sequence u64 | the page, encrypted (4096) | tag (16) |     record n at n × 4120; little endian
//! ```
//!
//! AES-256-GCM (NIST SP 800-38D). The nonce is the sequence, which counts writes and never comes twice under one key; the
//! record's number is authenticated with it, so that a page is found only where it was put.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use novacron_codec::{PAGE, Page};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
};

/// Bytes of a key.
pub const KEY: usize = 32;
const SEQUENCE: usize = 8;
const TAG: usize = 16;
/// Bytes of a record.
pub const RECORD: usize = SEQUENCE + PAGE + TAG;

/// An open file of pages, with its key.
#[derive(Debug)]
pub struct Pages {
    file: File,
    key: LessSafeKey,
}

impl Pages {
    /// An empty one, for this process's user only.
    ///
    /// # Errors
    /// The system's.
    pub fn create(path: &Path, key: &[u8; KEY]) -> io::Result<Self> {
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
        Self::of(file, key)
    }

    /// One that is there.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, key: &[u8; KEY]) -> io::Result<Self> {
        Self::of(File::open(path)?, key)
    }

    pub(super) fn of(file: File, key: &[u8; KEY]) -> io::Result<Self> {
        let key = UnboundKey::new(&AES_256_GCM, key).map_err(io::Error::other)?;
        Ok(Self { file, key: LessSafeKey::new(key) })
    }

    /// The file's length, bytes.
    ///
    /// # Errors
    /// The system's.
    pub fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Writes record `number`. No two writes under one key may have the same `sequence`.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, number: u32, sequence: u64, page: &[u8]) -> io::Result<()> {
        let mut record = [0; RECORD];
        record[..SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
        let (content, tag) = record[SEQUENCE..].split_at_mut(PAGE);
        content.copy_from_slice(page);
        let aad = Aad::from(number.to_le_bytes());
        let sealed = self.key.seal_in_place_separate_tag(nonce(sequence), aad, content);
        tag.copy_from_slice(sealed.map_err(io::Error::other)?.as_ref());
        self.file.write_all_at(&record, u64::from(number) * RECORD as u64)
    }

    /// Reads record `number`.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::InvalidData`] if it is not what was written there.
    pub fn read(&self, number: u32, into: &mut Page) -> io::Result<()> {
        let mut record = [0; RECORD];
        self.file.read_exact_at(&mut record, u64::from(number) * RECORD as u64)?;
        let (sequence, sealed) = record.split_at_mut(SEQUENCE);
        let sequence = u64::from_le_bytes(sequence.try_into().map_err(io::Error::other)?);
        let aad = Aad::from(number.to_le_bytes());
        let opened = self.key.open_in_place(nonce(sequence), aad, sealed);
        into.copy_from_slice(opened.map_err(|_| io::ErrorKind::InvalidData)?);
        Ok(())
    }
}

fn nonce(sequence: u64) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..SEQUENCE].copy_from_slice(&sequence.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}
