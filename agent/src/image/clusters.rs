//! Where in a qcow2 image's file the disk's content lies as it is (QEMU's `docs/interop/qcow2.rst`, "Cluster mapping").
//!
//! The tables come from a user. What they point at lies in the file or is left out, and no more is read of them than a bound
//! says. Compressed clusters and blank ones are left out, and so is an image whose clusters are divided further.

use std::{fs::File, io, ops::Range, os::unix::fs::FileExt};

/// Bytes of tables that are read at most: those of a full disk of 500 GiB with QEMU's usual clusters of 64 KiB.
const TABLES_MAX: u64 = 64 << 20;
/// Read at once.
const CHUNK: usize = 64 << 10;
const ENTRY: usize = size_of::<u64>();
/// Bytes of the header that are looked at.
const HEADER: usize = 80;
/// What is left out of images with smaller clusters: all of them.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 12..=21;
/// Divided clusters ("extended L2 entries").
const FEATURE_EXTENDED_L2: u64 = 1 << 4;

/// Bits of a table's entry: an offset, compressed, reads as zeros.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COMPRESSED: u64 = 1 << 62;
const ZERO: u64 = 1;

/// A file, or its bytes.
pub trait ReadAt {
    /// Reads all of `into` from `offset` on.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::UnexpectedEof`] if there is less.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()>;
}

impl ReadAt for File {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, into, offset)
    }
}

struct Header {
    cluster: u64,
    l1_entries: u64,
    l1_offset: u64,
}

impl Header {
    /// `None`: of an image of which nothing is to be said.
    fn read(image: &impl ReadAt) -> io::Result<Option<Self>> {
        let mut head = [0; HEADER];
        image.read_exact_at(&mut head, 0)?;
        let word = |at: usize| u64::from_be_bytes(std::array::from_fn(|byte| head[at + byte]));
        let half = |at: usize| u32::from_be_bytes(std::array::from_fn(|byte| head[at + byte]));
        let (version, bits) = (half(4), half(20));
        let divided = version >= 3 && word(72) & FEATURE_EXTENDED_L2 != 0;
        let known = head.starts_with(b"QFI\xfb") && CLUSTER_BITS.contains(&bits) && !divided;
        let header = || Self { cluster: 1 << bits, l1_entries: half(36).into(), l1_offset: word(40) };
        Ok(known.then(header))
    }
}

/// Pieces of an image's file of `length` bytes in which guests' data lies as it is, in the order of the disk: whole clusters,
/// `most` bytes of them at most. Pieces that touch are one.
///
/// # Errors
/// The system's; a table that ends before it should.
pub fn plain(image: &impl ReadAt, length: u64, most: u64) -> io::Result<Vec<Range<u64>>> {
    let mut walk = Walk { image, length, tables_left: TABLES_MAX, left: most, found: Vec::new() };
    if let Some(header) = Header::read(image)? {
        walk.l1(&header)?;
    }
    Ok(walk.found)
}

struct Walk<'a, R> {
    image: &'a R,
    length: u64,
    tables_left: u64,
    left: u64,
    found: Vec<Range<u64>>,
}

impl<R: ReadAt> Walk<'_, R> {
    fn is_over(&self) -> bool {
        self.left == 0 || self.tables_left == 0
    }

    fn l1(&mut self, header: &Header) -> io::Result<()> {
        let Header { cluster, l1_entries, l1_offset } = *header;
        self.table(l1_offset, l1_entries, |walk, entry| match entry & OFFSET {
            0 => Ok(()),
            offset if !walk.holds(offset, cluster) => Ok(()),
            offset => walk.table(offset, cluster / ENTRY as u64, |walk, entry| {
                walk.cluster(entry, cluster);
                Ok(())
            }),
        })
    }

    /// Shows a table's entries, as long as any are wanted.
    fn table(
        &mut self,
        offset: u64,
        entries: u64,
        mut each: impl FnMut(&mut Self, u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let (mut at, mut left) = (offset, entries.saturating_mul(ENTRY as u64));
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        while left > 0 && !self.is_over() {
            let now = left.min(self.tables_left).min(CHUNK as u64);
            let part = &mut buffer[..usize::try_from(now).unwrap_or(CHUNK)];
            self.image.read_exact_at(part, at)?;
            self.tables_left -= now;
            for entry in part.as_chunks::<ENTRY>().0 {
                each(self, u64::from_be_bytes(*entry))?;
            }
            (at, left) = (at.saturating_add(now), left - now);
        }
        Ok(())
    }

    fn cluster(&mut self, entry: u64, size: u64) {
        let (offset, is_plain) = (entry & OFFSET, entry & (COMPRESSED | ZERO) == 0);
        if self.left == 0 || offset == 0 || !is_plain || !self.holds(offset, size) {
            return;
        }
        let size = size.min(self.left);
        self.left -= size;
        match self.found.last_mut() {
            Some(last) if last.end == offset => last.end += size,
            _ => self.found.push(offset..offset + size),
        }
    }

    /// Whether a cluster lies there, all of it.
    fn holds(&self, offset: u64, cluster: u64) -> bool {
        offset.is_multiple_of(cluster) && offset.checked_add(cluster).is_some_and(|end| end <= self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    impl ReadAt for Vec<u8> {
        fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
            let from = usize::try_from(offset).ok().and_then(|from| self.get(from..)?.get(..into.len()));
            into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
            Ok(())
        }
    }

    const CLUSTER: u64 = 1 << 12;

    /// Clusters of 4 KiB: header, L1 table, one L2 table with these entries, data.
    fn image(l2: &[u64], clusters: u64) -> Vec<u8> {
        let mut image = vec![0; usize::try_from(clusters * CLUSTER).unwrap()];
        image[..4].copy_from_slice(b"QFI\xfb");
        image[4..8].copy_from_slice(&3u32.to_be_bytes());
        image[20..24].copy_from_slice(&12u32.to_be_bytes());
        image[36..40].copy_from_slice(&1u32.to_be_bytes());
        image[40..48].copy_from_slice(&CLUSTER.to_be_bytes());
        let (l1, table) = (CLUSTER as usize, 2 * CLUSTER as usize);
        image[l1..l1 + 8].copy_from_slice(&(2 * CLUSTER).to_be_bytes());
        for (number, entry) in l2.iter().enumerate() {
            image[table + 8 * number..][..8].copy_from_slice(&entry.to_be_bytes());
        }
        image
    }

    fn found(image: &Vec<u8>, most: u64) -> Vec<Range<u64>> {
        plain(image, image.len() as u64, most).unwrap()
    }

    #[test]
    fn data_is_found_in_the_order_of_the_disk_and_what_touches_is_one_piece() {
        let at = |cluster: u64| (cluster * CLUSTER) | (1 << 63);
        let image = image(&[at(5), 0, at(6), at(3), at(6) | COMPRESSED, at(4) | ZERO], 8);
        assert_eq!(found(&image, u64::MAX), [5 * CLUSTER..7 * CLUSTER, 3 * CLUSTER..4 * CLUSTER]);
        assert_eq!(found(&image, CLUSTER), [5 * CLUSTER..6 * CLUSTER; 1]);
    }

    #[test]
    fn what_lies_outside_the_file_is_left_out_and_a_divided_image_holds_nothing() {
        let mut image = image(&[7 * CLUSTER, 8 * CLUSTER, 3 * CLUSTER + 512, OFFSET], 8);
        assert_eq!(found(&image, u64::MAX), [7 * CLUSTER..8 * CLUSTER; 1]);
        image[79] = 1 << 4;
        assert_eq!(found(&image, u64::MAX), []);
    }

    /// Every entry of every table leads to the second cluster.
    struct Endless;

    impl ReadAt for Endless {
        fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
            if offset == 0 {
                let mut head = image(&[], 4);
                head[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
                into.copy_from_slice(&head[..into.len()]);
            } else {
                into.as_chunks_mut::<ENTRY>().0.fill((CLUSTER | COMPRESSED).to_be_bytes());
            }
            Ok(())
        }
    }

    #[test]
    fn tables_that_lead_to_themselves_end_and_one_that_is_cut_off_is_told() {
        assert_eq!(plain(&Endless, u64::MAX, u64::MAX).unwrap(), []);
        let mut short = image(&[], 4);
        short[36..40].copy_from_slice(&u32::MAX.to_be_bytes());
        let read = plain(&short, short.len() as u64, u64::MAX);
        assert_eq!(read.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }

    proptest! {
        #[test]
        fn any_tables_lead_into_the_file_and_to_no_more_than_is_wanted(
            l2 in prop::collection::vec(any::<u64>().prop_map(|entry| entry & 0xc000_0000_0000_ffff), 0..512),
            most in 0..20 * CLUSTER,
        ) {
            let image = image(&l2, 16);
            let pieces = found(&image, most);
            prop_assert!(pieces.iter().all(|piece| piece.start < piece.end && piece.end <= image.len() as u64));
            prop_assert!(pieces.iter().map(|piece| piece.end - piece.start).sum::<u64>() <= most);
        }
    }
}
