//! A file of sealed pages, in chunks: as many together as make sealing and writing them cheap.
//!
//! ```text
//! | 64 pages, encrypted (262144) | tag (16) | unused (4080) |     chunk n at n × 266240
//! ```
//!
//! AES-256-GCM (NIST SP 800-38D). The nonce is the chunk's number: under one key a chunk is written once, and found only
//! where it was put. A damaged byte costs its chunk.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use nix::fcntl::OFlag;
use novacron_codec::{PAGE, Page};
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

/// Bytes of a key.
pub const KEY: usize = 32;
/// Pages of a chunk.
pub const CHUNK_PAGES: u32 = 64;
/// Bytes of its pages.
pub const CONTENT: usize = CHUNK_PAGES as usize * PAGE;
const TAG: usize = 16;
/// Bytes of a chunk in the file: chunks begin where the file system's blocks do.
pub const CHUNK: usize = CONTENT + PAGE;
/// Chunks that a reader keeps: what the guest has side by side lies in few.
const BROUGHT_MAX: usize = 8;

/// An open file of pages, with its key.
#[derive(Debug)]
pub struct Pages {
    file: File,
    key: LessSafeKey,
}

/// Up to [`CHUNK_PAGES`] pages on their way into the file, sealed where they lie.
#[derive(Debug)]
pub struct Chunk {
    bytes: Box<[u8]>,
    count: u32,
}

impl Chunk {
    /// An empty one.
    pub fn new() -> Self {
        Self { bytes: vec![0; CHUNK].into_boxed_slice(), count: 0 }
    }

    /// Puts a page behind the others. One too many is left out.
    pub fn push(&mut self, page: &Page) {
        if let Some(place) = self.bytes[..CONTENT].chunks_exact_mut(PAGE).nth(self.count as usize) {
            place.copy_from_slice(page);
            self.count += 1;
        }
    }

    /// Pages in it.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Whether no page more goes in.
    pub fn is_full(&self) -> bool {
        self.count == CHUNK_PAGES
    }

    /// Empties it. What lies behind its pages later is of a chunk before: pages of the same machine, never counted.
    pub fn clear(&mut self) {
        self.count = 0;
    }
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

    /// An empty one without a name, on the file system of `folder`: it is gone when nobody has it open any more.
    ///
    /// # Errors
    /// The system's.
    pub fn unnamed(folder: &Path, key: &[u8; KEY]) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o600).custom_flags(OFlag::O_TMPFILE.bits());
        Self::of(options.open(folder)?, key)
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

    /// Seals and writes chunk `number`: once, under one key. What is in `chunk` afterwards means nothing.
    ///
    /// # Errors
    /// The system's.
    pub fn write(&self, number: u32, chunk: &mut Chunk) -> io::Result<()> {
        let (content, tail) = chunk.bytes.split_at_mut(CONTENT);
        let sealed = self.key.seal_in_place_separate_tag(nonce(number), Aad::empty(), content);
        tail[..TAG].copy_from_slice(sealed.map_err(io::Error::other)?.as_ref());
        self.file.write_all_at(&chunk.bytes, offset(number))
    }

    /// Reads and opens chunk `number` into a buffer of [`CHUNK`] bytes; its pages are the first ones.
    fn read(&self, number: u32, into: &mut [u8]) -> io::Result<()> {
        let sealed = &mut into[..CONTENT + TAG];
        self.file.read_exact_at(sealed, offset(number))?;
        let opened = self.key.open_in_place(nonce(number), Aad::empty(), sealed);
        opened.map(drop).map_err(|_| io::ErrorKind::InvalidData.into())
    }
}

/// Bytes of a file with so many pages.
pub fn length_of(pages: u32) -> u64 {
    offset(pages.div_ceil(CHUNK_PAGES))
}

fn offset(chunk: u32) -> u64 {
    u64::from(chunk) * CHUNK as u64
}

fn nonce(chunk: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..size_of::<u32>()].copy_from_slice(&chunk.to_le_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// A chunk that was brought in, or could not be.
#[derive(Debug)]
struct Brought {
    number: u32,
    opened: Result<(), io::ErrorKind>,
    bytes: Box<[u8]>,
}

/// Reads pages by their numbers, in any order; those that lie together cheaply.
#[derive(Debug)]
pub struct PagesReader {
    pages: Arc<Pages>,
    /// The one used last in front.
    brought: Vec<Brought>,
}

impl PagesReader {
    /// One that has read nothing yet.
    pub fn new(pages: Arc<Pages>) -> Self {
        Self { pages, brought: Vec::new() }
    }

    /// Reads page `number`.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::InvalidData`] if its chunk is not what was written there.
    pub fn read(&mut self, number: u32, into: &mut Page) -> Result<(), io::ErrorKind> {
        let (chunk, place) = (number / CHUNK_PAGES, (number % CHUNK_PAGES) as usize);
        match self.brought.iter().position(|brought| brought.number == chunk) {
            Some(found) => self.brought[..=found].rotate_right(1),
            None => self.bring(chunk),
        }
        let Brought { opened, bytes, .. } = &self.brought[0];
        (*opened)?;
        into.copy_from_slice(&bytes[place * PAGE..][..PAGE]);
        Ok(())
    }

    /// Brings a chunk in, in place of the one that was not used for longest.
    fn bring(&mut self, number: u32) {
        let spare = if self.brought.len() < BROUGHT_MAX { None } else { self.brought.pop() };
        let mut bytes = spare.map_or_else(|| vec![0; CHUNK].into_boxed_slice(), |spare| spare.bytes);
        let opened = self.pages.read(number, &mut bytes).map_err(|error| error.kind());
        self.brought.insert(0, Brought { number, opened, bytes });
    }
}
