//! Where in a qcow2 image's file the disk's content lies as it is (QEMU's `docs/interop/qcow2.rst`, "Cluster mapping").
//!
//! The tables come from a user: what they point at is looked for in the file only, and no more is read of them than a bound
//! says. An image whose clusters are divided further is left alone.

use super::qcow2::{self, Map};
use std::{
    fs::File,
    io,
    ops::{ControlFlow, Range},
    os::unix::fs::FileExt,
};

/// Bytes of tables that are read at most: those of a full disk of 500 GiB with QEMU's usual clusters of 64 KiB.
const TABLES_MAX: u64 = 64 << 20;
/// Read at once.
const CHUNK: usize = 64 << 10;
const ENTRY: usize = size_of::<u64>();
/// What a piece is a multiple of.
const PAGE: u64 = 4096;
/// Bytes of the header that are looked at.
const HEADER: usize = 80;
/// What is left out of images with smaller clusters: all of them.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 12..=21;

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

/// `None`: of an image of which nothing is to be said.
fn map_of(image: &impl ReadAt) -> io::Result<Option<Map>> {
    let mut head = [0; HEADER];
    image.read_exact_at(&mut head, 0)?;
    let map = qcow2::map(&head).ok();
    Ok(map.filter(|map| CLUSTER_BITS.contains(&map.cluster_bits) && !map.is_divided))
}

/// A cluster of the disk that the image itself says something of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Where in the disk, clusters.
    pub number: u64,
    /// Bytes.
    pub size: u64,
    /// What it holds.
    pub content: Content,
}

/// What a cluster holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// What lies at this offset of the file; what would lie behind its end is zeros.
    Data(u64),
    /// What lies outside of the file.
    Outside,
    /// Zeros.
    Blank,
    /// What has to be unpacked.
    Packed,
}

/// Whether all of an image's tables were seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// All of them.
    Whole,
    /// As far as somebody wanted to, or as a bound allows.
    Part,
    /// None: its clusters are too small, or divided.
    Nothing,
}

/// Shows the clusters of an image of `length` bytes that are not left to the image below it, in the order of the disk, until `visit`
/// has seen enough.
///
/// # Errors
/// The system's; a table that ends before it should.
pub fn walk(
    image: &impl ReadAt,
    length: u64,
    visit: &mut dyn FnMut(Cluster) -> ControlFlow<()>,
) -> io::Result<Seen> {
    let Some(map) = map_of(image)? else { return Ok(Seen::Nothing) };
    let mut walk = Walk { image, length, cluster: 1 << map.cluster_bits, tables_left: TABLES_MAX, visit };
    Ok(if walk.l1(map)?.is_break() { Seen::Part } else { Seen::Whole })
}

/// Pieces of an image's file of `length` bytes in which guests' data lies as it is, in the order of the disk: whole clusters,
/// `most` bytes of them at most. Pieces that touch are one.
///
/// # Errors
/// As [`walk`].
pub fn plain(image: &impl ReadAt, length: u64, most: u64) -> io::Result<Vec<Range<u64>>> {
    let (mut found, mut left): (Vec<Range<u64>>, _) = (Vec::new(), most);
    walk(image, length, &mut |Cluster { size, content, .. }| {
        if let Content::Data(offset) = content
            && let size = size.min(left).min(length - offset) / PAGE * PAGE
            && size > 0
        {
            left -= size;
            match found.last_mut() {
                Some(last) if last.end == offset => last.end += size,
                _ => found.push(offset..offset + size),
            }
        }
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

struct Walk<'a, R> {
    image: &'a R,
    length: u64,
    cluster: u64,
    tables_left: u64,
    visit: &'a mut dyn FnMut(Cluster) -> ControlFlow<()>,
}

impl<R: ReadAt> Walk<'_, R> {
    fn l1(&mut self, map: Map) -> io::Result<ControlFlow<()>> {
        let entries = self.cluster / ENTRY as u64;
        self.table(map.l1_offset, map.l1_entries.into(), |walk, table, entry| match entry & OFFSET {
            0 => Ok(ControlFlow::Continue(())),
            offset if !walk.holds(offset) => Ok(ControlFlow::Continue(())),
            offset => walk.table(offset, entries, |walk, at, entry| {
                let content = walk.content(entry);
                let number = table.saturating_mul(entries).saturating_add(at);
                let cluster = |content| Cluster { number, size: walk.cluster, content };
                Ok(content.map(cluster).map_or(ControlFlow::Continue(()), |cluster| (walk.visit)(cluster)))
            }),
        })
    }

    /// Shows a table's entries, by their places in it.
    fn table(
        &mut self,
        offset: u64,
        entries: u64,
        mut each: impl FnMut(&mut Self, u64, u64) -> io::Result<ControlFlow<()>>,
    ) -> io::Result<ControlFlow<()>> {
        let (mut number, mut at, mut left) = (0, offset, entries.saturating_mul(ENTRY as u64));
        let mut buffer = vec![0; usize::try_from(left).unwrap_or(CHUNK).min(CHUNK)];
        while left > 0 {
            let now = left.min(self.tables_left).min(CHUNK as u64);
            if now == 0 {
                return Ok(ControlFlow::Break(()));
            }
            let part = &mut buffer[..usize::try_from(now).unwrap_or(CHUNK)];
            self.image.read_exact_at(part, at)?;
            self.tables_left -= now;
            for entry in part.as_chunks::<ENTRY>().0 {
                if each(self, number, u64::from_be_bytes(*entry))?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
                number += 1;
            }
            (at, left) = (at.saturating_add(now), left - now);
        }
        Ok(ControlFlow::Continue(()))
    }

    /// `None`: what the image below holds.
    fn content(&self, entry: u64) -> Option<Content> {
        let offset = entry & OFFSET;
        match entry {
            _ if entry & COMPRESSED != 0 => Some(Content::Packed),
            _ if entry & ZERO != 0 => Some(Content::Blank),
            _ if offset == 0 => None,
            _ if self.holds(offset) => Some(Content::Data(offset)),
            _ => Some(Content::Outside),
        }
    }

    /// Whether a cluster lies there, or its beginning.
    fn holds(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster) && offset < self.length
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
