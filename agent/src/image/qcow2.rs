//! What a qcow2 image says about itself, and whether it may be used (QEMU's `docs/interop/qcow2.rst`).
//!
//! An image comes from a user. One that names a backing or data file would have QEMU open that file of the host;
//! one with absurd tables would have it allocate without bound. The parser is pure: bytes in, facts or fault out.

use novacron_common::{spec::VmSpec, units::ByteCount};

/// Bytes of the file that the parser wants to see: more than any header that it takes.
pub const HEADER_MAX: usize = 64 << 10;

const MAGIC: &[u8; 4] = b"QFI\xfb";
/// QEMU's own limits: clusters of 512 bytes to 2 MiB, an L1 table of 32 MiB, a refcount table of 8 MiB.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;
const L1_BYTES_MAX: u64 = 32 << 20;
const REFCOUNT_TABLE_BYTES_MAX: u64 = 8 << 20;
const SNAPSHOTS_MAX: u32 = 65_536;

const VERSION_2_HEADER: usize = 72;
const VERSION_3_HEADER: u32 = 104;

/// Incompatible features: whoever does not know one must not open the image.
const FEATURE_DIRTY: u64 = 1 << 0;
const FEATURE_CORRUPT: u64 = 1 << 1;
const FEATURE_DATA_FILE: u64 = 1 << 2;
const FEATURE_COMPRESSION_TYPE: u64 = 1 << 3;
const FEATURE_EXTENDED_L2: u64 = 1 << 4;

const EXTENSION_END: u32 = 0;
const EXTENSION_DATA_FILE: u32 = 0x4441_5441;
const EXTENSION_CRYPTO: u32 = 0x0537_be77;

/// What the header says, of an image that may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Qcow2 {
    /// The size of the disk that the guest sees.
    pub virtual_size: ByteCount,
}

/// Why an image is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Qcow2Fault {
    /// Not a qcow2 image of version 2 or 3.
    #[error("it is not a qcow2 image of version 2 or 3")]
    NotQcow2,
    /// The header ends early, or a table lies outside the file.
    #[error("its {0} lies outside the file")]
    Truncated(&'static str),
    /// It names a backing file.
    #[error("it names a backing file: flatten it with qemu-img convert")]
    BackingFile,
    /// It keeps its data in another file.
    #[error("it names an external data file: convert it with qemu-img convert")]
    DataFile,
    /// It is encrypted.
    #[error("it is encrypted")]
    Encrypted,
    /// It was not closed cleanly, or is marked corrupt.
    #[error("it is marked dirty or corrupt: repair it with qemu-img check -r all")]
    Damaged,
    /// It needs a feature that is not known here.
    #[error("it needs the unknown features {0:#x}")]
    Feature(u64),
    /// A size or count that no real image has.
    #[error("its {0} is absurd")]
    Absurd(&'static str),
}

/// Reads the header: `head` is the file's beginning ([`HEADER_MAX`] bytes or all of it), `file` its length.
///
/// # Errors
/// [`Qcow2Fault`] if the image must not be used.
pub fn parse(head: &[u8], file: ByteCount) -> Result<Qcow2, Qcow2Fault> {
    if head.get(..4) != Some(MAGIC) || head.len() < VERSION_2_HEADER {
        return Err(Qcow2Fault::NotQcow2);
    }
    let header = Header(head);
    let version = header.u32(4)?;
    if !(2..=3).contains(&version) {
        return Err(Qcow2Fault::NotQcow2);
    }
    refuse_other_files(&header)?;
    let length = match version {
        2 => u32::try_from(VERSION_2_HEADER).unwrap_or(u32::MAX),
        _ => version_3(&header)?,
    };
    check_tables(&header, file)?;
    check_extensions(&header, length)?;
    Ok(Qcow2 { virtual_size: ByteCount(header.u64(24)?) })
}

/// Where the tables begin that say where the disk's clusters lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    /// A cluster's size, as a power of two.
    pub cluster_bits: u32,
    /// Entries of the L1 table.
    pub l1_entries: u32,
    /// Where it lies in the file.
    pub l1_offset: u64,
    /// Whether clusters are divided ("extended L2 entries"): then an entry is two words.
    pub is_divided: bool,
}

/// Reads the same header for this alone.
///
/// # Errors
/// [`Qcow2Fault`] if it is none, or cut off. Nothing that it names was looked for in the file.
pub fn map(head: &[u8]) -> Result<Map, Qcow2Fault> {
    if head.get(..4) != Some(MAGIC) {
        return Err(Qcow2Fault::NotQcow2);
    }
    let header = Header(head);
    let features = if header.u32(4)? < 3 { 0 } else { header.u64(72)? };
    Ok(Map {
        cluster_bits: header.u32(20)?,
        l1_entries: header.u32(36)?,
        l1_offset: header.u64(40)?,
        is_divided: features & FEATURE_EXTENDED_L2 != 0,
    })
}

/// A big-endian header.
struct Header<'a>(&'a [u8]);

impl Header<'_> {
    fn bytes<const N: usize>(&self, at: usize) -> Result<[u8; N], Qcow2Fault> {
        let end = at.checked_add(N).ok_or(Qcow2Fault::Truncated("header"))?;
        let bytes = self.0.get(at..end).and_then(|bytes| bytes.try_into().ok());
        bytes.ok_or(Qcow2Fault::Truncated("header"))
    }

    fn u32(&self, at: usize) -> Result<u32, Qcow2Fault> {
        self.bytes(at).map(u32::from_be_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, Qcow2Fault> {
        self.bytes(at).map(u64::from_be_bytes)
    }
}

fn refuse_other_files(header: &Header<'_>) -> Result<(), Qcow2Fault> {
    let (backing_offset, backing_length, crypt_method) = (header.u64(8)?, header.u32(16)?, header.u32(32)?);
    if backing_offset != 0 || backing_length != 0 {
        return Err(Qcow2Fault::BackingFile);
    }
    if crypt_method != 0 { Err(Qcow2Fault::Encrypted) } else { Ok(()) }
}

/// Checks what version 3 added and returns the header's length.
fn version_3(header: &Header<'_>) -> Result<u32, Qcow2Fault> {
    let features = header.u64(72)?;
    if features & FEATURE_DATA_FILE != 0 {
        return Err(Qcow2Fault::DataFile);
    }
    if features & (FEATURE_DIRTY | FEATURE_CORRUPT) != 0 {
        return Err(Qcow2Fault::Damaged);
    }
    let unknown = features & !(FEATURE_COMPRESSION_TYPE | FEATURE_EXTENDED_L2);
    if unknown != 0 {
        return Err(Qcow2Fault::Feature(unknown));
    }
    let (refcount_order, length) = (header.u32(96)?, header.u32(100)?);
    if refcount_order > 6 {
        return Err(Qcow2Fault::Absurd("refcount width"));
    }
    if length < VERSION_3_HEADER || !length.is_multiple_of(8) {
        return Err(Qcow2Fault::Absurd("header length"));
    }
    Ok(length)
}

fn check_tables(header: &Header<'_>, file: ByteCount) -> Result<(), Qcow2Fault> {
    let (cluster_bits, virtual_size) = (header.u32(20)?, header.u64(24)?);
    if !CLUSTER_BITS.contains(&cluster_bits) {
        return Err(Qcow2Fault::Absurd("cluster size"));
    }
    if virtual_size == 0 || virtual_size > VmSpec::STORAGE_MAX.0 {
        return Err(Qcow2Fault::Absurd("virtual size"));
    }
    let l1_bytes = u64::from(header.u32(36)?) * 8;
    if l1_bytes > L1_BYTES_MAX {
        return Err(Qcow2Fault::Absurd("L1 table"));
    }
    within(header.u64(40)?, l1_bytes, file).ok_or(Qcow2Fault::Truncated("L1 table"))?;
    let refcount_bytes = u64::from(header.u32(56)?) << cluster_bits;
    if refcount_bytes > REFCOUNT_TABLE_BYTES_MAX {
        return Err(Qcow2Fault::Absurd("refcount table"));
    }
    // A table's last cluster need not be written in full.
    within(header.u64(48)?, 0, file).ok_or(Qcow2Fault::Truncated("refcount table"))?;
    let snapshots = header.u32(60)?;
    if snapshots > SNAPSHOTS_MAX {
        return Err(Qcow2Fault::Absurd("snapshot count"));
    }
    let table = if snapshots == 0 { 0 } else { header.u64(64)? };
    within(table, 0, file).ok_or(Qcow2Fault::Truncated("snapshot table"))
}

fn within(offset: u64, length: u64, file: ByteCount) -> Option<()> {
    (offset.checked_add(length)? <= file.0).then_some(())
}

/// Header extensions are type, length, data padded to 8; they end with type 0 or with the first cluster.
fn check_extensions(header: &Header<'_>, header_length: u32) -> Result<(), Qcow2Fault> {
    let first_cluster = 1usize << header.u32(20)?;
    let end = first_cluster.min(header.0.len());
    let mut at = header_length as usize;
    while at + 8 <= end {
        let (kind, length) = (header.u32(at)?, header.u32(at + 4)? as usize);
        match kind {
            EXTENSION_END => return Ok(()),
            EXTENSION_DATA_FILE => return Err(Qcow2Fault::DataFile),
            EXTENSION_CRYPTO => return Err(Qcow2Fault::Encrypted),
            _ if length > end => return Err(Qcow2Fault::Absurd("header extension")),
            _ => at += 8 + length.next_multiple_of(8),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FILE: ByteCount = ByteCount::mib(1);

    /// A version 3 header as `qemu-img create -f qcow2 x 64M` writes it.
    fn header() -> Vec<u8> {
        let mut head = vec![0; 4096];
        head[..4].copy_from_slice(MAGIC);
        let mut put = |at: usize, value: u64, width: usize| {
            head[at..at + width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
        };
        for (at, value, width) in [
            (4, 3, 4),
            (20, 16, 4),
            (24, 64 << 20, 8),
            (36, 1, 4),
            (40, 0x30000, 8),
            (48, 0x10000, 8),
            (56, 1, 4),
            (96, 4, 4),
            (100, 104, 4),
        ] {
            put(at, value, width);
        }
        head
    }

    fn with(at: usize, bytes: &[u8]) -> Result<Qcow2, Qcow2Fault> {
        let mut head = header();
        head[at..at + bytes.len()].copy_from_slice(bytes);
        parse(&head, FILE)
    }

    #[test]
    fn a_plain_image_is_taken_with_its_size() {
        assert_eq!(parse(&header(), FILE), Ok(Qcow2 { virtual_size: ByteCount::mib(64) }));
    }

    #[test]
    fn an_image_that_names_another_file_is_refused() {
        assert_eq!(with(8, &0x200u64.to_be_bytes()), Err(Qcow2Fault::BackingFile));
        assert_eq!(with(16, &11u32.to_be_bytes()), Err(Qcow2Fault::BackingFile));
        assert_eq!(with(72, &FEATURE_DATA_FILE.to_be_bytes()), Err(Qcow2Fault::DataFile));
        // The data file's name alone, without the feature bit, and behind another extension.
        assert_eq!(with(104, &EXTENSION_DATA_FILE.to_be_bytes()), Err(Qcow2Fault::DataFile));
        let mut behind = [0x68, 0x03, 0xf8, 0x57, 0, 0, 0, 5].to_vec(); // feature names, 5 bytes and padding
        behind.extend([0; 8]);
        behind.extend(EXTENSION_DATA_FILE.to_be_bytes());
        assert_eq!(with(104, &behind), Err(Qcow2Fault::DataFile));
    }

    #[test]
    fn encrypted_damaged_and_unknown_images_are_refused() {
        assert_eq!(with(32, &2u32.to_be_bytes()), Err(Qcow2Fault::Encrypted));
        assert_eq!(with(104, &EXTENSION_CRYPTO.to_be_bytes()), Err(Qcow2Fault::Encrypted));
        assert_eq!(with(72, &FEATURE_CORRUPT.to_be_bytes()), Err(Qcow2Fault::Damaged));
        assert_eq!(with(72, &(1u64 << 40).to_be_bytes()), Err(Qcow2Fault::Feature(1 << 40)));
        assert_eq!(with(4, &4u32.to_be_bytes()), Err(Qcow2Fault::NotQcow2));
        assert_eq!(parse(b"QFI\xfb", FILE), Err(Qcow2Fault::NotQcow2));
        assert_eq!(parse(&[0; 512], FILE), Err(Qcow2Fault::NotQcow2));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        for (at, bytes, what) in [
            (20, &40u32.to_be_bytes()[..], "cluster size"),
            (24, &u64::MAX.to_be_bytes()[..], "virtual size"),
            (24, &0u64.to_be_bytes()[..], "virtual size"),
            (36, &u32::MAX.to_be_bytes()[..], "L1 table"),
            (56, &u32::MAX.to_be_bytes()[..], "refcount table"),
            (60, &u32::MAX.to_be_bytes()[..], "snapshot count"),
            (96, &7u32.to_be_bytes()[..], "refcount width"),
            (100, &3u32.to_be_bytes()[..], "header length"),
        ] {
            assert_eq!(with(at, bytes), Err(Qcow2Fault::Absurd(what)), "{at}");
        }
        assert_eq!(with(40, &u64::MAX.to_be_bytes()), Err(Qcow2Fault::Truncated("L1 table")));
        assert_eq!(with(48, &(2u64 << 20).to_be_bytes()), Err(Qcow2Fault::Truncated("refcount table")));
    }

    #[test]
    fn an_extension_longer_than_its_cluster_is_refused() {
        let mut extension = 0x6803_f857u32.to_be_bytes().to_vec();
        extension.extend(u32::MAX.to_be_bytes());
        assert_eq!(with(104, &extension), Err(Qcow2Fault::Absurd("header extension")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_spin(mut head in prop::collection::vec(any::<u8>(), 0..512), real: bool) {
            if real && head.len() >= 8 {
                head[..4].copy_from_slice(MAGIC);
                head[4..8].copy_from_slice(&3u32.to_be_bytes());
            }
            let _ = parse(&head, FILE);
        }
    }
}
