//! The database's file: made durable, and given its room on the disk before it needs it.
//!
//! A write behind the end of what a file has on disk makes the file system allocate blocks, and an `fdatasync` of it
//! then waits for a commit of the file system's journal, with everything that anybody else on that disk has in it. On
//! ext4, beside busy neighbours, an append of 3 kB followed by `fdatasync` took 4 ms (median), and 0.12 ms into blocks
//! that were allocated before. So blocks behind the end are allocated in advance (fallocate(2) with
//! `FALLOC_FL_KEEP_SIZE`): the file does not become longer by it, and sled, which finds its tip by the file's length,
//! sees no difference.

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use std::{
    fs::{File, OpenOptions},
    io,
    path::Path,
    sync::{Mutex, PoisonError},
};

/// At least so much room is kept behind the end, bytes: what is written between two looks, and more.
const ROOM_MIN: u64 = 4 << 20;
/// How much is allocated at once, bytes. Its own journal commit is paid once for all of it.
const ROOM_STEP: u64 = 16 << 20;

/// A second handle of the file that sled writes.
#[derive(Debug)]
pub(crate) struct DbFile {
    file: File,
    room: Mutex<Room>,
}

/// Up to where blocks are allocated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Room {
    /// The file's length when that was last looked at, bytes.
    length: u64,
    /// Offset of the first byte without a block.
    end: u64,
}

impl Room {
    /// What to do for a file that now has `length` bytes: the room as it will be, and the range to allocate (offset and
    /// bytes), if any.
    fn next(self, length: u64) -> (Self, Option<(u64, u64)>) {
        // A file that was cut has lost what was allocated behind its end.
        let end = if length < self.length { length } else { self.end.max(length) };
        match end - length < ROOM_MIN {
            true => (Self { length, end: end + ROOM_STEP }, Some((end, ROOM_STEP))),
            false => (Self { length, end }, None),
        }
    }
}

impl DbFile {
    /// Opens the file of the database in `folder`.
    pub fn open(folder: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(folder.join("db"))?;
        Ok(Self { file, room: Mutex::default() })
    }

    /// Returns once everything that was written is on stable storage.
    pub fn sync(&self) -> io::Result<()> {
        self.make_room()?;
        self.file.sync_data()
    }

    fn make_room(&self) -> io::Result<()> {
        let length = self.file.metadata()?.len();
        let mut room = self.room.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, missing) = room.next(length);
        *room = next;
        let Some((offset, bytes)) = missing else { return Ok(()) };
        let (Ok(offset), Ok(bytes)) = (offset.try_into(), bytes.try_into()) else { return Ok(()) };
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, offset, bytes) {
            // A file system without it, and a disk without room, do without: what is written next says so if it matters.
            Ok(())
            | Err(Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn room_is_made_in_steps_and_anew_after_a_cut() {
        let (room, missing) = Room::default().next(100);
        assert_eq!(missing, Some((100, ROOM_STEP)));
        let (room, missing) = room.next(100 + ROOM_STEP - ROOM_MIN);
        assert_eq!(missing, None);
        let (room, missing) = room.next(101 + ROOM_STEP - ROOM_MIN);
        assert_eq!(missing, Some((100 + ROOM_STEP, ROOM_STEP)));
        let (_, missing) = room.next(50);
        assert_eq!(missing, Some((50, ROOM_STEP)));
        // One that grew by more than the room, in a single step.
        let (_, missing) = room.next(1 << 30);
        assert_eq!(missing, Some((1 << 30, ROOM_STEP)));
    }

    #[test]
    fn blocks_are_there_before_they_are_written_and_the_length_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("db"), [7; 1000]).unwrap();
        let disk = DbFile::open(folder.path()).unwrap();
        disk.sync().unwrap();
        let facts = disk.file.metadata().unwrap();
        assert_eq!(facts.len(), 1000);
        assert!(facts.blocks() * 512 >= ROOM_STEP, "{} blocks", facts.blocks());
    }
}
