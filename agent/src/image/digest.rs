//! What an overlay holds by itself, in one figure: two with the same one, over the same image, are the same disk.
//!
//! The figure is of the disk's content, not of the file: where in that a cluster lies is QEMU's. Zeros that were written are the
//! same as a cluster that is marked so, and over nothing as one that is not there.

use super::clusters::{self, Cluster, Content, Seen};
use aws_lc_rs::digest::{Context, SHA256};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use novacron_common::{record::DiskDigest, units::ByteCount};
use std::{fs::File, io, ops::ControlFlow, os::unix::fs::FileExt, path::Path};

/// Why there is no such figure.
#[derive(Debug, thiserror::Error)]
pub enum DigestError {
    /// The system's.
    #[error("the disk cannot be read")]
    Io(#[from] io::Error),
    /// What QEMU does not write into an overlay, or too much of it.
    #[error("the disk holds {0}")]
    Unusual(&'static str),
}

/// What is below an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Below {
    /// An image.
    Image,
    /// Nothing: what was never written is zeros.
    Nothing,
}

/// The digest of an overlay, which nobody writes to. Reads all that it holds, from the disk as far as the kernel drops what it has
/// in its page cache.
///
/// # Errors
/// [`DigestError`].
pub fn of_overlay(path: &Path, below: Below) -> Result<DiskDigest, DigestError> {
    let file = File::open(path)?;
    // What is not on the disk yet stays in the cache, and is read there.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let length = file.metadata()?.len();
    let mut reading = Reading { file: &file, length, below, digest: Context::new(&SHA256), bytes: 0 };
    let (mut fault, mut buffer) = (None, Vec::new());
    let seen = clusters::walk(&file, length, &mut |cluster| match reading.take(cluster, &mut buffer) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            fault = Some(error);
            ControlFlow::Break(())
        }
    })?;
    match (fault, seen) {
        (Some(error), _) => Err(error),
        (None, Seen::Whole) => Ok(reading.finish()),
        (None, Seen::Part) => Err(DigestError::Unusual("more than can be compared")),
        (None, Seen::Nothing) => Err(DigestError::Unusual("clusters of a kind that is not known here")),
    }
}

struct Reading<'a> {
    file: &'a File,
    length: u64,
    below: Below,
    digest: Context,
    bytes: u64,
}

impl Reading<'_> {
    fn take(&mut self, cluster: Cluster, buffer: &mut Vec<u8>) -> Result<(), DigestError> {
        let Cluster { number, size, content } = cluster;
        let is_blank = match content {
            Content::Blank => true,
            Content::Data(offset) => {
                self.read(offset, size, buffer)?;
                buffer.iter().all(|byte| *byte == 0)
            }
            Content::Packed => return Err(DigestError::Unusual("compressed clusters")),
            Content::Outside => return Err(DigestError::Unusual("clusters that lie outside of its file")),
        };
        if is_blank && self.below == Below::Nothing {
            return Ok(());
        }
        self.digest.update(&number.to_le_bytes());
        self.digest.update(&[u8::from(is_blank)]);
        if !is_blank {
            self.digest.update(buffer);
            self.bytes += size;
        }
        Ok(())
    }

    /// What lies behind the file's end is zeros.
    fn read(&self, offset: u64, size: u64, buffer: &mut Vec<u8>) -> io::Result<()> {
        buffer.clear();
        buffer.resize(usize::try_from(size).map_err(io::Error::other)?, 0);
        let there = usize::try_from(self.length - offset).unwrap_or(usize::MAX).min(buffer.len());
        self.file.read_exact_at(&mut buffer[..there], offset)
    }

    fn finish(self) -> DiskDigest {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.digest.finish().as_ref());
        DiskDigest { sha256, data: ByteCount(self.bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, process::Command};

    fn qemu(program: &str, words: &[&str]) {
        let done = Command::new(program).args(words).output().unwrap();
        assert!(done.status.success(), "{program} {words:?}: {done:?}");
    }

    /// An overlay over an image of noise, or over nothing, to which `writes` of qemu-io were done.
    fn overlay(folder: &Path, name: &str, below: Below, writes: &[&str]) -> DiskDigest {
        let path = |name: &str| folder.join(name).to_str().unwrap().to_owned();
        let image = path("image");
        fs::write(&image, vec![7; 4 << 20]).unwrap();
        let create = ["create", "-q", "-f", "qcow2"];
        match below {
            Below::Image => {
                qemu("qemu-img", &[&create[..], &["-b", &image, "-F", "raw", &path(name)]].concat());
            }
            Below::Nothing => qemu("qemu-img", &[&create[..], &[&path(name), "4M"]].concat()),
        }
        for write in writes {
            qemu("qemu-io", &["-f", "qcow2", "-c", write, &path(name)]);
        }
        of_overlay(Path::new(&path(name)), below).unwrap()
    }

    #[test]
    fn the_order_in_which_a_disk_was_written_is_not_its_content() {
        let folder = tempfile::tempdir().unwrap();
        for below in [Below::Image, Below::Nothing] {
            let of = |name: &str, writes: &[&str]| overlay(folder.path(), name, below, writes);
            let one = of("one", &["write -P 1 0 64k", "write -P 2 1M 100k", "write -z 2M 64k"]);
            let other = of("other", &["write -P 0 2M 64k", "write -P 2 1M 100k", "write -P 1 0 64k"]);
            assert_eq!(one, other, "{below:?}");
            assert_eq!(one.data, ByteCount(192 << 10), "{below:?}");
        }
    }

    #[test]
    fn one_byte_more_or_in_another_place_is_another_disk() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, writes: &[&str]| overlay(folder.path(), name, Below::Image, writes);
        let disks = [
            of("none", &[]),
            of("one", &["write -P 1 0 64k"]),
            of("byte", &["write -P 1 0 64k", "write -P 2 77 1"]),
            of("place", &["write -P 1 64k 64k"]),
            of("zeros", &["write -z 0 64k"]),
            of("more", &["write -P 1 0 64k", "write -z 1M 64k"]),
        ];
        for (number, disk) in disks.iter().enumerate() {
            assert!(!disks[..number].contains(disk), "{number}");
        }
    }

    #[test]
    fn zeros_over_nothing_are_as_if_they_were_never_written() {
        let folder = tempfile::tempdir().unwrap();
        let of = |name: &str, writes: &[&str]| overlay(folder.path(), name, Below::Nothing, writes);
        assert_eq!(of("none", &[]), of("zeros", &["write -P 0 0 128k", "write -z 1M 64k"]));
    }

    #[test]
    fn what_is_no_overlay_has_no_digest() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("raw"), [1; 8192]).unwrap();
        assert!(matches!(
            of_overlay(&folder.path().join("raw"), Below::Nothing),
            Err(DigestError::Unusual(_))
        ));
    }
}
