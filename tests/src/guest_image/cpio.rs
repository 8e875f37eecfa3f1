//! Writes an initramfs in the "newc" format (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).

const MAGIC: &str = "070701";
const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// An archive being written.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

struct Entry<'a> {
    name: &'a str,
    mode: u32,
    device: (u32, u32),
    data: &'a [u8],
}

impl Archive {
    /// Adds a folder; parents come before children.
    pub fn folder(&mut self, name: &str) {
        self.push(&Entry { name, mode: FOLDER, device: (0, 0), data: &[] });
    }

    /// Adds an executable file.
    pub fn program(&mut self, name: &str, data: &[u8]) {
        self.push(&Entry { name, mode: PROGRAM, device: (0, 0), data });
    }

    /// Adds a plain file.
    pub fn file(&mut self, name: &str, data: &[u8]) {
        self.push(&Entry { name, mode: FILE, device: (0, 0), data });
    }

    /// Adds the console device (5:1), which the kernel opens for init before devtmpfs is mounted.
    pub fn console(&mut self, name: &str) {
        self.push(&Entry { name, mode: CHARACTER_DEVICE, device: (5, 1), data: &[] });
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.push(&Entry { name: "TRAILER!!!", mode: 0, device: (0, 0), data: &[] });
        self.bytes
    }

    fn push(&mut self, entry: &Entry<'_>) {
        self.entries += 1;
        let (inode, size, name_size) = (self.entries, entry.data.len(), entry.name.len() + 1);
        let (major, minor) = entry.device;
        // ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
        let header = format!(
            "{MAGIC}{inode:08x}{:08x}{:08x}{:08x}{:08x}{:08x}{size:08x}{:08x}{:08x}{major:08x}{minor:08x}{name_size:08x}{:08x}",
            entry.mode, 0, 0, 1, 0, 0, 0, 0
        );
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(entry.name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(entry.data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_itself_lists_what_was_written() {
        if std::process::Command::new("cpio").arg("--version").output().is_err() {
            return crate::need::skip("cpio_itself_lists_what_was_written", "needs cpio");
        }
        let mut archive = Archive::default();
        archive.folder("dev");
        archive.console("dev/console");
        archive.program("init", b"#!hello");
        archive.file("odd", b"x");
        let mut cpio =
            Command::new("cpio").args(["-itv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        cpio.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = cpio.wait_with_output().unwrap();
        let listing = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<&str> = listing.lines().collect();
        assert_eq!(lines.len(), 4, "{listing}");
        assert!(lines[1].starts_with("crw-------") && lines[1].contains("5,   1"), "{listing}");
        assert!(lines[2].starts_with("-rwxr-xr-x") && lines[2].contains(" 7 "), "{listing}");
    }
}
