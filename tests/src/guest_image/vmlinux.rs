//! The ELF kernel inside of a bzImage, which QEMU starts by PVH: the guest then does not unpack it on a processor that
//! is emulated. What the kernel's own `scripts/extract-vmlinux` does, but by the header instead of a search
//! (kernel: Documentation/arch/x86/boot.rst, protocol 2.08).

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use super::run;

const SETUP_SECTORS: usize = 0x1f1;
const HEADER_MAGIC: Range<usize> = 0x202..0x206;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
/// The build appends to the payload how long it is unpacked.
const SIZE_BYTES: usize = 4;

/// What a payload begins with, and what unpacks it.
const PACKERS: [(&[u8], &str); 4] = [
    (&[0x02, 0x21, 0x4c, 0x18], "lz4"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "zstd"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "xz"),
    (&[0x1f, 0x8b], "gzip"),
];

/// Writes the kernel in `image` to `to`.
///
/// # Errors
/// When `image` is no bzImage, is packed otherwise, or the program that unpacks it is missing or fails.
pub fn extract(image: &Path, to: &Path) -> Result<()> {
    let bytes = fs::read(image).with_context(|| format!("reading {}", image.display()))?;
    let payload = payload(&bytes).with_context(|| format!("{} is no kernel to unpack", image.display()))?;
    let packer = PACKERS.iter().find(|(magic, _)| payload.starts_with(magic));
    let Some((_, packer)) = packer else { bail!("{} is packed in an unknown way", image.display()) };
    // gzip's own trailer is that size; the others would take it for a second, broken, packet.
    let kept = if *packer == "gzip" { payload.len() } else { payload.len() - SIZE_BYTES };
    let packed = to.with_extension("packed");
    fs::write(&packed, &payload[..kept])?;
    let mut unpack = Command::new("sh");
    run(unpack.args(["-c", "exec \"$0\" -dc <\"$1\" >\"$2\"", packer]).arg(&packed).arg(to))?;
    fs::remove_file(packed)?;
    let kernel = fs::read(to)?;
    let said = payload.last_chunk::<SIZE_BYTES>().map(|size| u32::from_le_bytes(*size) as usize);
    ensure!(kernel.starts_with(b"\x7fELF") && said == Some(kernel.len()), "{packer} gave no whole kernel");
    Ok(())
}

fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(*image.get(at..)?.first_chunk()?) as usize);
    if image.get(HEADER_MAGIC)? != b"HdrS" {
        return None;
    }
    // 0 stands for 4: the oldest loaders.
    let sectors = match *image.get(SETUP_SECTORS)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let from = (sectors + 1) * 512 + word(PAYLOAD_OFFSET)?;
    let payload = image.get(from..from.checked_add(word(PAYLOAD_LENGTH)?)?)?;
    (payload.len() > SIZE_BYTES).then_some(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A bzImage of one setup sector around `kernel`.
    fn image(kernel: &[u8]) -> Vec<u8> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel");
        fs::write(&path, kernel).unwrap();
        let packed = Command::new("gzip").arg("-c").arg(&path).output().unwrap().stdout;
        let mut image = vec![0; 1024 + 64];
        image[SETUP_SECTORS] = 1;
        image[HEADER_MAGIC].copy_from_slice(b"HdrS");
        image[PAYLOAD_OFFSET..PAYLOAD_OFFSET + 4].copy_from_slice(&64u32.to_le_bytes());
        let length = u32::try_from(packed.len()).unwrap();
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&length.to_le_bytes());
        image.extend(packed);
        image.extend([0xee; 100]);
        image
    }

    #[test]
    fn the_kernel_comes_out_as_it_was_and_nothing_else_is_taken_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("bzImage"), folder.path().join("vmlinux"));
        let kernel = [b"\x7fELF".to_vec(), vec![7; 5000]].concat();
        fs::write(&from, image(&kernel)).unwrap();
        extract(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), kernel);

        fs::write(&from, image(b"no kernel at all")).unwrap();
        assert!(extract(&from, &to).unwrap_err().to_string().contains("gave no whole kernel"));
        fs::write(&from, b"MZ").unwrap();
        assert!(extract(&from, &to).unwrap_err().to_string().contains("is no kernel to unpack"));
    }
}
