//! A guest without an operating system: a boot sector that numbers the BIOS timer's ticks (18.2 a second) on its serial
//! port. It is small enough for a `/dev/kvm` that is an emulator, under which no kernel gets through its boot.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};

use crate::guest_image::Checked;
use crate::serial::{Chunk, lines};

/// A sector, and its last two bytes by which firmware knows that it can be booted.
const SECTOR: usize = 512;
const SIGNATURE: [u8; 2] = [0x55, 0xaa];
const DISK: usize = 1 << 20;

/// 16-bit code for 0000:7c00. `bp` is the last line's number, `[0x46c]` the BIOS's count of timer interrupts (without a
/// pause, hardware would print as fast as it can), 0x3f8 the first serial port. Intel's manual, volume 2, but without
/// `daa`, which such an emulator may lack.
const CODE: &[u8] = &[
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xd0, 0xbc, 0x00, 0x7c,
    0xfb, // cli; ds = ss = 0; sp = 0x7c00; sti
    0x31, 0xed, // xor bp, bp
    0xa1, 0x6c, 0x04, // next: mov ax, [0x46c]
    0xf4, 0x3b, 0x06, 0x6c, 0x04, 0x74, 0xf9, // wait: hlt; cmp ax, [0x46c]; je wait
    0x45, // inc bp
    0xb0, b'N', 0xe8, 0x23, 0x00, // mov al, 'N'; call put
    0xb0, b' ', 0xe8, 0x1e, 0x00, // mov al, ' '; call put
    0xb9, 0x04, 0x00, // mov cx, 4
    0xc1, 0xc5, 0x04, 0x89, 0xe8, 0x24, 0x0f, // digit: rol bp, 4; mov ax, bp; and al, 15
    0x04, b'0', 0x3c, 0x3a, 0x72, 0x02, 0x04, 0x07, // add al, '0'; cmp al, 0x3a; jb plain; add al, 7
    0xe8, 0x09, 0x00, 0xe2, 0xec, // plain: call put; loop digit
    0xb0, b'\n', 0xe8, 0x02, 0x00, 0xeb, 0xcd, // mov al, '\n'; call put; jmp next
    0x50, 0xba, 0xfd, 0x03, // put: push ax; mov dx, 0x3fd
    0xec, 0xa8, 0x20, 0x74, 0xfb, // busy: in al, dx; test al, 32; jz busy
    0x58, 0xba, 0xf8, 0x03, 0xee, 0xc3, // pop ax; mov dx, 0x3f8; out dx, al; ret
];

/// Writes its disk, a raw image, to `path`.
///
/// # Errors
/// When it cannot be written.
pub fn write_disk(path: PathBuf) -> Result<Checked> {
    let mut disk = vec![0; DISK];
    disk[..CODE.len()].copy_from_slice(CODE);
    disk[SECTOR - SIGNATURE.len()..SECTOR].copy_from_slice(&SIGNATURE);
    fs::write(&path, disk).with_context(|| format!("writing {}", path.display()))?;
    Checked::of(path)
}

/// The number in a whole line that this guest printed.
#[must_use]
pub fn number_of(line: &str) -> Option<u16> {
    let digits = line.strip_prefix("N ").filter(|digits| digits.len() == 4)?;
    u16::from_str_radix(digits, 16).ok()
}

/// How many lines it printed.
///
/// # Errors
/// When one after the first is not the next: the guest lost one, said it twice, or booted again. What firmware printed
/// before the first does not count.
pub fn count(chunks: &[Chunk]) -> Result<u16> {
    let all = lines(chunks).into_iter().map(|line| line.text).skip_while(|text| number_of(text) != Some(1));
    let mut last = 0;
    for text in all {
        let next = number_of(&text).filter(|&number| last + 1 == number);
        last = next.with_context(|| format!("after number {last:#06x} the guest printed {text:?}"))?;
    }
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn said(text: &str) -> Vec<Chunk> {
        vec![Chunk { source: 0, at: Duration::ZERO, bytes: text.as_bytes().to_vec() }]
    }

    #[test]
    fn an_unbroken_count_is_told_from_a_gap_and_from_a_second_boot() {
        assert_eq!(count(&said("SeaBIOS\nN 0001\nN 0002\nN 00")).unwrap(), 2);
        assert_eq!(count(&said("SeaBIOS\n")).unwrap(), 0);
        for wrong in ["N 0001\nN 0003\n", "N 0001\nN 0001\n", "N 0001\nSeaBIOS\n", "N 0001\nN 2\n"] {
            assert!(count(&said(wrong)).unwrap_err().to_string().contains("after number 0x0001"), "{wrong}");
        }
    }

    #[test]
    fn its_disk_is_one_that_firmware_boots() {
        let folder = tempfile::tempdir().unwrap();
        let disk = write_disk(folder.path().join("disk")).unwrap();
        let bytes = fs::read(disk.path).unwrap();
        assert_eq!((bytes.len(), &bytes[510..512]), (DISK, &SIGNATURE[..]));
    }
}
