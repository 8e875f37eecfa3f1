//! Keeps console logs bounded on the host's disk, whatever a guest prints.
//!
//! QEMU appends to `console.log` by itself where libvirt runs without virtlogd (which rotates at 2 MiB), and QEMU has
//! no limit. A hole is punched into the middle (fallocate(2), `FALLOC_FL_PUNCH_HOLE`): the first lines of the boot and
//! the last ones stay, QEMU keeps its open file, nothing that it writes meanwhile is lost, and whoever follows the log
//! by offset does not notice. The file only looks long.

use crate::{image::Disks, text::describe};
use nix::fcntl::{FallocateFlags, OFlag, fallocate};
use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    time::Duration,
};

/// How often the logs are looked at. A serial port of QEMU carries a few MB/s: that much may come on top.
const PERIOD: Duration = Duration::from_secs(10);
/// What is kept.
const KEPT: Kept = Kept { head: 1 << 20, tail: 4 << 20 };
/// Blocks of the common file systems; a hole is made of whole ones.
const BLOCK: u64 = 4096;

/// How many bytes are kept of a log's beginning and, at least, of its end. Half as much again as `tail` may lie in
/// between, so that not every look punches.
#[derive(Debug, Clone, Copy)]
struct Kept {
    head: u64,
    tail: u64,
}

/// Trims the logs of all machines, again and again.
pub async fn keep_bounded(disks: Disks) {
    loop {
        tokio::time::sleep(PERIOD).await;
        let disks = disks.clone();
        // It panics only if a look does, and then the next one is taken all the same.
        let _ = tokio::task::spawn_blocking(move || trim_all(&disks)).await;
    }
}

fn trim_all(disks: &Disks) {
    let machines = disks.list().unwrap_or_default();
    for vm in machines {
        match trim(&disks.console_log(vm), KEPT) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%vm, reason = describe(&error), "the console log could not be cut");
            }
            _ => {}
        }
    }
}

fn trim(path: &Path, kept: Kept) -> io::Result<()> {
    let file = OpenOptions::new().write(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)?;
    let about = file.metadata()?;
    // stat(2) counts blocks of 512 bytes.
    let Some(hole) = surplus(about.len(), about.blocks() * 512, kept) else { return Ok(()) };
    punch(&file, &hole)
}

/// The middle that can go; `None` while what is on the disk is little enough.
fn surplus(length: u64, on_disk: u64, kept: Kept) -> Option<Range<u64>> {
    let start = kept.head.next_multiple_of(BLOCK);
    let end = length.saturating_sub(kept.tail) / BLOCK * BLOCK;
    (on_disk > kept.head + kept.tail + kept.tail / 2 && end > start).then_some(start..end)
}

fn punch(file: &File, hole: &Range<u64>) -> io::Result<()> {
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    let offset = |at: u64| i64::try_from(at).map_err(io::Error::other);
    Ok(fallocate(file, flags, offset(hole.start)?, offset(hole.end - hole.start)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::need::require;
    use std::{
        fs,
        process::{Child, Command, Stdio},
        time::Instant,
    };

    const SMALL: Kept = Kept { head: 64 << 10, tail: 128 << 10 };
    const QEMU: &str = "qemu-system-x86_64";
    const A_WHILE: Duration = Duration::from_secs(120);

    #[test]
    fn only_a_middle_that_is_on_the_disk_goes() {
        let kept = Kept { head: 5000, tail: 8192 };
        assert_eq!(surplus(10_000, 12_288, kept), None);
        assert_eq!(surplus(40_000, 40_960, kept), Some(8192..28_672));
        // Long, but punched already.
        assert_eq!(surplus(40_000_000, 16_384, kept), None);
    }

    /// A guest that prints the alphabet for ever: firmware at the reset vector, without a pause.
    fn firmware() -> Vec<u8> {
        let again = [
            0xba,
            0xf8,
            0x03, // mov dx, 0x3f8
            0xb0,
            b'a', // again: mov al, 'a'
            0xee,
            0xfe,
            0xc0, // one: out dx, al; inc al
            0x3c,
            b'z' + 1,
            0x72,
            0xf9, // cmp al, 'z' + 1; jb one
            0xb0,
            b'\n',
            0xee, // mov al, '\n'; out dx, al
            0xeb,
            0xf2, // jmp again
        ];
        let mut image = vec![0xf4; 64 << 10];
        image[..again.len()].copy_from_slice(&again);
        image[0xfff0..0xfff3].copy_from_slice(&[0xe9, 0x0d, 0x00]); // jmp to offset 0
        image
    }

    struct Guest(Child);

    impl Drop for Guest {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// QEMU with the serial port that libvirt gives it without virtlogd: a terminal, and a log that QEMU appends to.
    fn chatty(folder: &Path, log: &Path) -> Guest {
        let path = folder.join("firmware");
        fs::write(&path, firmware()).unwrap();
        let serial = format!("pty,id=s,logfile={},logappend=on", log.display());
        let mut qemu = Command::new(QEMU);
        qemu.args(["-machine", "pc", "-accel", "tcg", "-m", "16", "-nodefaults", "-no-user-config"])
            .args(["-display", "none", "-chardev", &serial, "-serial", "chardev:s", "-bios"])
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Guest(qemu.spawn().unwrap())
    }

    #[test]
    fn a_guest_that_prints_for_ever_leaves_its_first_and_its_last_words_and_no_full_disk() {
        require!(QEMU);
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("console.log");
        let guest = chatty(folder.path(), &log);
        let limit = SMALL.head + SMALL.tail + SMALL.tail / 2;
        let length = || fs::metadata(&log).map_or(0, |about| about.len());
        let began = Instant::now();
        while length() < 4 * limit {
            assert!(began.elapsed() < A_WHILE, "the guest printed {} bytes only", length());
            std::thread::sleep(Duration::from_millis(20));
            if log.exists() {
                trim(&log, SMALL).unwrap();
            }
        }
        drop(guest);
        trim(&log, SMALL).unwrap();
        let about = fs::metadata(&log).unwrap();
        assert!(about.blocks() * 512 <= limit + BLOCK, "{} bytes are on the disk", about.blocks() * 512);
        let text = fs::read(&log).unwrap();
        let kept = |part: &[u8]| part.iter().all(|byte| byte.is_ascii_lowercase() || *byte == b'\n');
        let (head, tail) = (SMALL.head as usize, text.len() - SMALL.tail as usize);
        assert!(text.starts_with(b"abcdefghijklmnopqrstuvwxyz\nabc"), "{:?}", &text[..40]);
        assert!(kept(&text[..head]) && kept(&text[tail..]), "what is to be kept has holes");
        assert!(text[head + BLOCK as usize..].contains(&0), "nothing was punched");
    }
}
