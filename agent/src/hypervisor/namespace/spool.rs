//! What a command prints, for whoever looks while it runs: a ring in the folder that its supervisor writes and that
//! any number of readers follow without a word to it. It bounds what a flood costs to [`RING`] bytes of page cache.
//!
//! Bytes first, then the count of all bytes so far: so everything below the count is there. The writer may be at most
//! [`PIECE`] bytes beyond the count that a reader sees, and a reader that looks again after it has read knows which
//! of its bytes may have been overwritten meanwhile.

use super::folder::Folder;
use std::{fs::File, io, os::unix::fs::FileExt};

/// Bytes of the count (u64, little endian) before the ring.
const HEADER: u64 = 8;

/// Bytes of the ring.
pub const RING: u64 = 256 * 1024;

/// Most bytes that are written between two changes of the count.
const PIECE: usize = 32 * 1024;

/// The name in a folder.
const NAME: &str = "spool";

/// The supervisor's end. Its file is made when the first byte comes.
#[derive(Debug, Default)]
pub struct Spool {
    file: Option<File>,
    total: u64,
}

impl Spool {
    /// Appends.
    ///
    /// # Errors
    /// The file system's. The captured output does not depend on it.
    pub fn push(&mut self, folder: &Folder, bytes: &[u8]) -> io::Result<()> {
        if self.file.is_none() {
            self.file = Some(File::create(folder.path().join(NAME))?);
        }
        let Some(file) = &self.file else { return Ok(()) };
        for piece in bytes.chunks(PIECE) {
            write_around(file, self.total, piece)?;
            self.total += piece.len() as u64;
            file.write_all_at(&self.total.to_le_bytes(), 0)?;
        }
        Ok(())
    }
}

fn write_around(file: &File, at: u64, piece: &[u8]) -> io::Result<()> {
    let place = at % RING;
    let before_the_end = usize::try_from(RING - place).unwrap_or(usize::MAX).min(piece.len());
    let (first, second) = piece.split_at(before_the_end);
    file.write_all_at(first, HEADER + place)?;
    file.write_all_at(second, HEADER)
}

/// A reader's end.
#[derive(Debug)]
pub struct SpoolReader {
    file: File,
    /// Bytes before the next one to read.
    at: u64,
}

impl SpoolReader {
    /// From the oldest byte that is there; `None` if nothing was printed yet.
    ///
    /// # Errors
    /// The file system's.
    pub fn open(folder: &Folder) -> io::Result<Option<Self>> {
        match File::open(folder.path().join(NAME)) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            other => Ok(Some(Self { file: other?, at: 0 })),
        }
    }

    /// The next bytes, at most `most` and perhaps none, and how many were printed before the first of them.
    ///
    /// # Errors
    /// The file system's.
    pub fn next(&mut self, most: usize) -> io::Result<(u64, Vec<u8>)> {
        let total = self.total()?;
        let from = self.at.max(oldest_at(total)).min(total);
        let length = usize::try_from(total - from).unwrap_or(usize::MAX).min(most);
        let mut bytes = vec![0; length];
        read_around(&self.file, from, &mut bytes)?;
        // What was overwritten while we read is cut off.
        let sound_from = oldest_at(self.total()?).max(from);
        let spoilt = usize::try_from(sound_from - from).unwrap_or(usize::MAX).min(length);
        bytes.drain(..spoilt);
        let start = from + spoilt as u64;
        self.at = start + bytes.len() as u64;
        Ok((start, bytes))
    }

    fn total(&self) -> io::Result<u64> {
        let mut count = [0; HEADER as usize];
        match self.file.read_exact_at(&mut count, 0) {
            Ok(()) => Ok(u64::from_le_bytes(count)),
            Err(cause) if cause.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            Err(cause) => Err(cause),
        }
    }
}

/// The oldest byte that is certainly whole when the count is `total`.
const fn oldest_at(total: u64) -> u64 {
    (total + PIECE as u64).saturating_sub(RING)
}

fn read_around(file: &File, at: u64, into: &mut [u8]) -> io::Result<()> {
    let place = at % RING;
    let before_the_end = usize::try_from(RING - place).unwrap_or(usize::MAX).min(into.len());
    let (first, second) = into.split_at_mut(before_the_end);
    file.read_exact_at(first, HEADER + place)?;
    file.read_exact_at(second, HEADER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(from: u64, length: usize) -> Vec<u8> {
        (from..from + length as u64).map(|n| (n % 251) as u8).collect()
    }

    #[test]
    fn a_reader_that_keeps_up_sees_every_byte_in_order() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path());
        assert!(SpoolReader::open(&folder).unwrap().is_none());
        let (mut spool, mut reader, mut written) = (Spool::default(), None, 0);
        for length in [1, 1000, 40_000, 100_000, 7, 200_000, 65_536] {
            spool.push(&folder, &pattern(written, length)).unwrap();
            let mut seen = written;
            written += length as u64;
            let reader = reader.get_or_insert_with(|| SpoolReader::open(&folder).unwrap().unwrap());
            while seen < written {
                let (at, bytes) = reader.next(30_000).unwrap();
                assert_eq!(at, seen);
                assert_eq!(bytes, pattern(at, bytes.len()));
                seen += bytes.len() as u64;
            }
        }
        assert!(std::fs::metadata(place.path().join(NAME)).unwrap().len() <= HEADER + RING);
    }

    #[test]
    fn a_reader_that_is_late_sees_the_end_and_knows_what_it_missed() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path());
        let mut spool = Spool::default();
        spool.push(&folder, &pattern(0, 1_000_003)).unwrap();
        let mut reader = SpoolReader::open(&folder).unwrap().unwrap();
        let (at, bytes) = reader.next(usize::MAX).unwrap();
        assert_eq!(at + bytes.len() as u64, 1_000_003);
        assert!(bytes.len() as u64 >= RING - 2 * PIECE as u64);
        assert_eq!(bytes, pattern(at, bytes.len()));
        assert_eq!(reader.next(10).unwrap(), (1_000_003, Vec::new()));
    }

    #[test]
    fn whole_bytes_only_while_the_writer_is_faster_than_the_reader() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::at(place.path());
        let mut spool = Spool::default();
        spool.push(&folder, &pattern(0, 1)).unwrap();
        let mut reader = SpoolReader::open(&folder).unwrap().unwrap();
        let writer = std::thread::spawn(move || {
            for n in 0..3000 {
                spool.push(&folder, &pattern(1 + n * 10_007, 10_007)).unwrap();
            }
        });
        let (end, mut seen) = (1 + 3000 * 10_007, 0);
        while seen < end {
            let (at, bytes) = reader.next(100_000).unwrap();
            assert!(at >= seen);
            assert_eq!(bytes, pattern(at, bytes.len()), "at {at}");
            seen = at + bytes.len() as u64;
        }
        writer.join().unwrap();
    }
}
