//! The image of a machine's template, as pages that this host holds: what its guest has read of its disk and not changed.
//!
//! A file system puts its files' content at multiples of a page, and so does the guest's page cache. The image was checked by
//! its content when it came to this host; what becomes of a page between its print and its use, the proof of the frame that
//! refers to it finds out.

use crate::image::clusters;
use nix::{
    errno::Errno,
    unistd::{Whence, lseek},
};
use novacron_codec::{PAGE, Page, STOCK_MAX};
use novacron_common::spec::ImageFormat;
use std::{fs::File, io, ops::Range, os::unix::fs::FileExt, path::Path};

/// Pages of an image that are offered: its first 2 GiB of data. Half of what an offer may have.
const PAGES_MAX: u32 = STOCK_MAX / 2;
const MOST: u64 = PAGES_MAX as u64 * PAGE as u64;

/// An image's data in pages, numbered in the order of the disk.
#[derive(Debug)]
pub struct TemplatePages {
    image: File,
    pieces: Vec<Piece>,
    count: u32,
}

/// Pages that follow each other in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    first: u32,
    offset: u64,
}

impl TemplatePages {
    /// Those of an image. Reads its tables, not its data.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path, format: ImageFormat) -> io::Result<Self> {
        let image = File::open(path)?;
        let length = image.metadata()?.len();
        let found = match format {
            ImageFormat::Raw => extents(&image, length)?,
            ImageFormat::Qcow2 => clusters::plain(&image, length, MOST)?,
            ImageFormat::Oci | ImageFormat::Rootfs => Vec::new(),
        };
        let (mut pieces, mut count) = (Vec::new(), 0);
        for Range { start, end } in found {
            pieces.push(Piece { first: count, offset: start });
            let pages = u32::try_from((end - start) / PAGE as u64).unwrap_or(PAGES_MAX);
            count = PAGES_MAX.min(count + pages);
        }
        Ok(Self { image, pieces, count })
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Reads page `number`.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::UnexpectedEof`] if there is no such page.
    pub fn read(&self, number: u32, into: &mut Page) -> Result<(), io::ErrorKind> {
        let behind = self.pieces.partition_point(|piece| piece.first <= number);
        let piece = behind.checked_sub(1).map(|at| self.pieces[at]).filter(|_| number < self.count);
        let Piece { first, offset } = piece.ok_or(io::ErrorKind::UnexpectedEof)?;
        let offset = offset + u64::from(number - first) * PAGE as u64;
        self.image.read_exact_at(into, offset).map_err(|error| error.kind())
    }
}

/// Where a raw image has data: whole pages, and as many of them as are offered.
fn extents(image: &File, length: u64) -> io::Result<Vec<Range<u64>>> {
    const PAGE_BYTES: u64 = PAGE as u64;
    let (mut found, mut at, mut left) = (Vec::new(), 0, MOST);
    while left > 0 {
        let Some(data) = seek(image, at, Whence::SeekData)? else { break };
        let hole = seek(image, data, Whence::SeekHole)?.unwrap_or(length);
        let start = data / PAGE_BYTES * PAGE_BYTES;
        let end = hole.next_multiple_of(PAGE_BYTES).min(length / PAGE_BYTES * PAGE_BYTES);
        if end <= start {
            break;
        }
        let taken = left.min(end - start);
        found.push(start..start + taken);
        (at, left) = (end, left - taken);
    }
    Ok(found)
}

/// Where the next data or hole begins (lseek(2)); `None` behind the last data.
fn seek(image: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(image, from, whence) {
        Ok(at) => Ok(u64::try_from(at).ok()),
        Err(Errno::ENXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::page, *};
    use std::process::Command;

    const CLUSTER: u64 = 64 << 10;

    /// A sparse raw image: a page at each of these places, and half a page at its end.
    fn raw(path: &Path, places: &[u64]) {
        let image = File::create(path).unwrap();
        for place in places {
            image.write_all_at(&page(*place), place * PAGE as u64).unwrap();
        }
        image.set_len(40 * CLUSTER + PAGE as u64 / 2).unwrap();
    }

    fn is_blank(page: &Page) -> bool {
        page.iter().all(|byte| *byte == 0)
    }

    /// All pages that are offered and not blank.
    fn offered(path: &Path, format: ImageFormat) -> Vec<Page> {
        let pages = TemplatePages::open(path, format).unwrap();
        let mut page = [0; PAGE];
        assert_eq!(pages.read(pages.count(), &mut page), Err(io::ErrorKind::UnexpectedEof));
        let all = (0..pages.count()).map(|number| {
            pages.read(number, &mut page).unwrap();
            page
        });
        all.filter(|page| !is_blank(page)).collect()
    }

    #[test]
    fn a_raw_image_and_what_qemu_makes_of_it_hold_the_same_pages_and_a_compressed_one_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let places = [0, 1, 17, 300, 301, 302, 639];
        raw(&path("raw"), &places);
        let expected = places.map(page);
        assert_eq!(offered(&path("raw"), ImageFormat::Raw), expected);
        for (name, more, held) in [("plain", &[][..], &expected[..]), ("compressed", &["-c"], &[])] {
            let converted = Command::new("qemu-img")
                .args(["convert", "-f", "raw", "-O", "qcow2"])
                .args(more)
                .args([path("raw"), path(name)])
                .output()
                .unwrap();
            assert!(converted.status.success(), "{converted:?}");
            assert_eq!(offered(&path(name), ImageFormat::Qcow2), held, "{name}");
        }
    }

    #[test]
    fn an_image_of_holes_holds_nothing() {
        let folder = tempfile::tempdir().unwrap();
        raw(&folder.path().join("raw"), &[]);
        assert_eq!(TemplatePages::open(&folder.path().join("raw"), ImageFormat::Raw).unwrap().count(), 0);
    }
}
