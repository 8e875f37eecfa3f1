//! The guest's disk test: numbered, checksummed blocks, written at random places and read back past every cache.
//!
//! A block is 4,096 bytes: magic, slot, sequence number, checksum of all else (u64 little endian each), then content derived
//! from slot and sequence. A block that is torn, stale, misplaced or from another disk is told apart by that alone. After a
//! restart of the guest the table of expected sequence numbers is read back from the disk itself.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use crate::content::PAGE_BYTES;
use crate::hash::{WordHash, mix, of_bytes};

const MAGIC: u64 = u64::from_le_bytes(*b"NOVABLK1");
const SUM_AT: usize = 24;
const BODY_AT: usize = 32;

/// One block, aligned as direct I/O needs it.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Block([u8; PAGE_BYTES]);

impl Block {
    fn zeroed() -> Self {
        Self([0; PAGE_BYTES])
    }

    fn of(slot: u64, seq: u64) -> Self {
        let mut block = Self::zeroed();
        for (at, value) in [(0, MAGIC), (8, slot), (16, seq)] {
            block.put(at, value);
        }
        let mut word = mix(slot ^ seq.rotate_left(32));
        for chunk in block.0[BODY_AT..].chunks_exact_mut(8) {
            word = word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(seq | 1);
            chunk.copy_from_slice(&word.to_le_bytes());
        }
        let sum = block.checksum();
        block.put(SUM_AT, sum);
        block
    }

    /// The sequence number, if this is a whole block of ours that belongs in `slot`.
    fn seq_in(&self, slot: u64) -> Option<u64> {
        let whole = self.get(0) == MAGIC && self.get(8) == slot && self.get(SUM_AT) == self.checksum();
        whole.then(|| self.get(16))
    }

    fn is_blank(&self) -> bool {
        self.0.iter().all(|&byte| byte == 0)
    }

    fn checksum(&self) -> u64 {
        let mut hash = WordHash::default();
        hash.bytes(&self.0[..SUM_AT]);
        hash.bytes(&self.0[BODY_AT..]);
        hash.value()
    }

    fn get(&self, at: usize) -> u64 {
        u64::from_le_bytes(self.0[at..at + 8].try_into().unwrap_or_default())
    }

    fn put(&mut self, at: usize, value: u64) {
        self.0[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// What the disk held when the guest started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Whole blocks of ours.
    pub blocks: u64,
    /// Neither blank nor a whole block of ours.
    pub torn: u64,
}

/// The area of a disk that is written to, and what each slot must hold (0: never written).
pub struct DiskTest {
    file: File,
    expected: Vec<u64>,
    next_seq: u64,
    last_index: usize,
    random: u64,
}

impl DiskTest {
    /// Opens `path` for direct, synchronous I/O and reads what its first `mib` MiB hold.
    ///
    /// # Errors
    /// When the disk cannot be opened or read.
    pub fn open(path: &Path, mib: u64) -> io::Result<(Self, Found)> {
        Self::open_with(path, mib, libc::O_DIRECT | libc::O_DSYNC)
    }

    fn open_with(path: &Path, mib: u64, flags: i32) -> io::Result<(Self, Found)> {
        let mut file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        let slots = file.seek(SeekFrom::End(0))?.min(mib << 20) / PAGE_BYTES as u64;
        if slots == 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the disk is smaller than one block"));
        }
        let count = usize::try_from(slots).map_err(io::Error::other)?;
        let mut disk = Self {
            file,
            expected: vec![0; count],
            next_seq: 1,
            last_index: 0,
            random: 0xda3e_39cb_94b9_5bdb,
        };
        let found = disk.read_table()?;
        Ok((disk, found))
    }

    fn read_table(&mut self) -> io::Result<Found> {
        let mut found = Found::default();
        for index in 0..self.expected.len() {
            let block = self.read(index)?;
            match block.seq_in(index as u64) {
                Some(seq) => {
                    found.blocks += 1;
                    self.expected[index] = seq;
                    self.next_seq = self.next_seq.max(seq + 1);
                }
                None if block.is_blank() => {}
                None => found.torn += 1,
            }
        }
        Ok(found)
    }

    /// Writes the next block at a random place.
    ///
    /// # Errors
    /// When the disk refuses the write.
    pub fn write_one(&mut self) -> io::Result<()> {
        let index = self.pick();
        let block = Block::of(index as u64, self.next_seq);
        self.file.write_all_at(&block.0, offset(index))?;
        self.expected[index] = self.next_seq;
        self.last_index = index;
        self.next_seq += 1;
        Ok(())
    }

    /// Reads a random place back (the last one written, if nothing was written there): whether it holds what was written
    /// last. `None`: nothing was written at all.
    ///
    /// # Errors
    /// When the disk refuses the read.
    pub fn check_one(&mut self) -> io::Result<Option<bool>> {
        let mut index = self.pick();
        if self.expected[index] == 0 {
            index = self.last_index;
        }
        match self.expected[index] {
            0 => Ok(None),
            seq => Ok(Some(self.read(index)?.seq_in(index as u64) == Some(seq))),
        }
    }

    /// Flushes, reads the whole area and says its hash (see [`area_hash`]) and how many slots are wrong.
    ///
    /// # Errors
    /// When the disk refuses.
    pub fn settle(&mut self) -> io::Result<(u64, u64)> {
        self.file.sync_all()?;
        let (mut hash, mut bad) = (WordHash::default(), 0);
        for index in 0..self.expected.len() {
            let block = self.read(index)?;
            hash.word(of_bytes(&block.0));
            let seq = self.expected[index];
            bad += u64::from(seq != 0 && block.seq_in(index as u64) != Some(seq));
        }
        Ok((hash.value(), bad))
    }

    /// Slots in the area.
    #[must_use]
    pub fn slots(&self) -> usize {
        self.expected.len()
    }

    /// The highest sequence number written so far.
    #[must_use]
    pub fn last_seq(&self) -> u64 {
        self.next_seq - 1
    }

    fn read(&self, index: usize) -> io::Result<Block> {
        let mut block = Block::zeroed();
        self.file.read_exact_at(&mut block.0, offset(index))?;
        Ok(block)
    }

    fn pick(&mut self) -> usize {
        self.random = mix(self.random.wrapping_add(0x9e37_79b9_7f4a_7c15));
        usize::try_from(self.random % self.expected.len() as u64).unwrap_or(0)
    }
}

fn offset(index: usize) -> u64 {
    (index * PAGE_BYTES) as u64
}

/// The hash that the guest's `sync` command prints, computed from a raw copy of its area on the host.
#[must_use]
pub fn area_hash(area: &[u8]) -> u64 {
    let mut hash = WordHash::default();
    area.chunks_exact(PAGE_BYTES).for_each(|block| hash.word(of_bytes(block)));
    hash.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scratch(std::path::PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("novacron-guest-{name}-{}", std::process::id()));
            File::create(&path).unwrap().set_len(1 << 20).unwrap();
            Self(path)
        }

        fn open(&self) -> (DiskTest, Found) {
            DiskTest::open_with(&self.0, 1, 0).unwrap()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            std::fs::remove_file(&self.0).unwrap();
        }
    }

    #[test]
    fn a_restarted_guest_finds_its_blocks_and_goes_on_after_the_last() {
        let scratch = Scratch::new("restart");
        let (mut disk, found) = scratch.open();
        assert_eq!(found, Found::default());
        (0..100).for_each(|_| disk.write_one().unwrap());
        let (again, found) = scratch.open();
        assert_eq!(again.last_seq(), 100);
        assert!(found.blocks > 50 && found.torn == 0, "{found:?}");
    }

    #[test]
    fn a_lost_a_stale_and_a_torn_block_are_each_seen() {
        let scratch = Scratch::new("faults");
        let (mut disk, _) = scratch.open();
        (0..2000).for_each(|_| disk.write_one().unwrap());
        assert_eq!(disk.settle().unwrap().1, 0);
        disk.file.write_all_at(&Block::zeroed().0, offset(3)).unwrap();
        disk.file.write_all_at(&Block::of(4, 1_000_000).0, offset(4)).unwrap();
        disk.file.write_all_at(&[1, 2, 3], offset(5) + 2048).unwrap();
        assert_eq!(disk.settle().unwrap().1, 3);
        assert_eq!(scratch.open().1.torn, 1);
    }

    #[test]
    fn the_host_computes_the_same_hash() {
        let scratch = Scratch::new("hash");
        let (mut disk, _) = scratch.open();
        disk.write_one().unwrap();
        assert_eq!(disk.settle().unwrap().0, area_hash(&std::fs::read(&scratch.0).unwrap()));
    }
}
