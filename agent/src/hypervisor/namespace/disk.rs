//! What a machine's own disk has read and written: the counters of its block device (`Documentation/block/stat.rst`), less
//! what they were when it was attached, since a loop device keeps them from one user to the next.

use novacron_common::{record::DiskTraffic, units::ByteCount};
use serde::{Deserialize, Serialize};
use std::{fs, io, os::linux::fs::MetadataExt, path::Path};

/// What the kernel counts in, whatever the device's own sectors.
const SECTOR: u64 = 512;

/// A block device, and what it had counted when it was attached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attached {
    /// Major and minor number, as in `/sys/dev/block`.
    device: String,
    before: DiskTraffic,
}

impl Attached {
    /// The device of the file system at this place.
    ///
    /// # Errors
    /// If it is not on a block device.
    pub fn at(place: &Path) -> io::Result<Self> {
        let number = fs::metadata(place)?.st_dev();
        let device = format!("{}:{}", libc::major(number), libc::minor(number));
        let before = counted(&device)?;
        Ok(Self { device, before })
    }

    /// What has passed since it was attached.
    ///
    /// # Errors
    /// If the device is gone.
    pub fn since(&self) -> io::Result<DiskTraffic> {
        let (now, before) = (counted(&self.device)?, self.before);
        Ok(DiskTraffic {
            read: ByteCount(now.read.0.saturating_sub(before.read.0)),
            reads: now.reads.saturating_sub(before.reads),
            written: ByteCount(now.written.0.saturating_sub(before.written.0)),
            writes: now.writes.saturating_sub(before.writes),
        })
    }
}

fn counted(device: &str) -> io::Result<DiskTraffic> {
    let text = fs::read_to_string(format!("/sys/dev/block/{device}/stat"))?;
    parse(&text).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, text))
}

/// Pure: reads, of them merged, sectors read, milliseconds; then the same of writes.
fn parse(stat: &str) -> Option<DiskTraffic> {
    let fields: Option<Vec<u64>> = stat.split_ascii_whitespace().map(|field| field.parse().ok()).collect();
    match fields?.as_slice() {
        [reads, _, sectors_read, _, writes, _, sectors_written, ..] => Some(DiskTraffic {
            read: ByteCount(sectors_read.saturating_mul(SECTOR)),
            reads: *reads,
            written: ByteCount(sectors_written.saturating_mul(SECTOR)),
            writes: *writes,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sectors_have_512_bytes() {
        let stat = "  41  7  200  9  15  3  64  8  0  5  17  0 0 0 0 1 2\n";
        let read =
            DiskTraffic { read: ByteCount(102_400), reads: 41, written: ByteCount(32_768), writes: 15 };
        assert_eq!(parse(stat), Some(read));
        for bad in ["", "1 2 3 4 5 6", "1 2 3 4 5 6 x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_in_memory_is_on_no_device() {
        assert!(Attached::at(Path::new("/proc")).is_err());
    }
}
