//! The image's layout: a BIOS boot sector, GRUB's core behind it, and one ext4 partition.
//!
//! ```text
//! sector 0        boot.img (440 bytes) and the partition table     what the firmware starts
//! sector 1 …      core.img, found by boot.img at its default place  reads ext4 and boot/grub.cfg
//! 1 MiB …         the root, ext4, labelled "root"
//! ```

use std::fs::{self, File};
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::guest_image::run;

const SECTOR: u64 = 512;
const PARTITION_AT: u64 = 1 << 20;
/// Room for the root (360 MiB) and for what the guest writes.
const PARTITION_BYTES: u64 = 900 << 20;
/// `boot.img` up to the disk's serial number.
const BOOT_CODE_BYTES: usize = 440;
const TABLE_AT: u64 = 446;
const LINUX: u8 = 0x83;
const ACTIVE: u8 = 0x80;
/// Sectors by number alone: larger than any cylinder, head and sector.
const BEYOND_CHS: [u8; 3] = [0xff; 3];
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// What GRUB needs to read its configuration and start a kernel.
const MODULES: [&str; 6] = ["biosdisk", "part_msdos", "ext2", "linux", "configfile", "normal"];

/// What is written before the partition.
pub struct Layout {
    boot: Vec<u8>,
    core: Vec<u8>,
}

impl Layout {
    /// Has GRUB's core made inside `root`, with a configuration for the kernel that is there.
    pub fn of_root(root: &Path) -> Result<Self> {
        let (kernel, initrd) = (boot_file(root, "vmlinuz-")?, boot_file(root, "initrd.img-")?);
        let config = format!(
            "linux /boot/{kernel} root=LABEL=root console=ttyS0 quiet\ninitrd /boot/{initrd}\nboot\n"
        );
        fs::write(root.join("boot/grub.cfg"), config)?;
        let mut make = Command::new("chroot");
        make.arg(root).args([
            "grub-mkimage",
            "-O",
            "i386-pc",
            "-o",
            "/boot/core.img",
            "-p",
            "(hd0,msdos1)/boot",
        ]);
        run(make.args(MODULES))?;
        let core = fs::read(root.join("boot/core.img"))?;
        ensure!(SECTOR + core.len() as u64 <= PARTITION_AT, "GRUB's core does not fit before the partition");
        Ok(Self { boot: fs::read(root.join("usr/lib/grub/i386-pc/boot.img"))?, core })
    }

    /// Writes the disk with `root` in its partition.
    pub fn write(&self, root: &Path, to: &Path) -> Result<()> {
        let mut disk = File::create(to).with_context(|| format!("making {}", to.display()))?;
        disk.set_len(PARTITION_AT + PARTITION_BYTES)?;
        disk.write_all(self.boot.get(..BOOT_CODE_BYTES).context("GRUB's boot sector is short")?)?;
        disk.seek(SeekFrom::Start(TABLE_AT))?;
        disk.write_all(&partition_table())?;
        disk.write_all(&self.core)?;
        drop(disk);
        let mut format = Command::new("mkfs.ext4");
        format.args(["-q", "-F", "-L", "root", "-d"]).arg(root);
        format.args(["-E", &format!("offset={PARTITION_AT}")]).arg(to);
        run(format.arg(format!("{}k", PARTITION_BYTES >> 10))).map(drop)
    }
}

/// One active Linux partition, three empty entries and the signature: to the end of the first sector.
fn partition_table() -> [u8; 66] {
    let sectors = |bytes: u64| u32::try_from(bytes / SECTOR).unwrap_or(u32::MAX).to_le_bytes();
    let mut table = [0; 66];
    table[0] = ACTIVE;
    table[1..4].copy_from_slice(&BEYOND_CHS);
    table[4] = LINUX;
    table[5..8].copy_from_slice(&BEYOND_CHS);
    table[8..12].copy_from_slice(&sectors(PARTITION_AT));
    table[12..16].copy_from_slice(&sectors(PARTITION_BYTES));
    table[64..].copy_from_slice(&SIGNATURE);
    table
}

fn boot_file(root: &Path, prefix: &str) -> Result<String> {
    let names = fs::read_dir(root.join("boot"))?.flatten().map(|entry| entry.file_name());
    let mut names = names.filter_map(|name| name.into_string().ok());
    names.find(|name| name.starts_with(prefix)).with_context(|| format!("the root has no boot/{prefix}…"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_the_sector_and_names_one_active_partition() {
        let table = partition_table();
        assert_eq!(TABLE_AT + table.len() as u64, SECTOR);
        assert_eq!(&table[8..16], [0x00, 0x08, 0, 0, 0x00, 0x20, 0x1c, 0]); // sector 2048; 900 MiB are 0x1c2000 sectors
        assert_eq!((table[0], table[4], &table[64..]), (ACTIVE, LINUX, &SIGNATURE[..]));
    }
}
