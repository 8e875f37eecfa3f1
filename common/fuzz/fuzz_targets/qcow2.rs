//! Images that users name: no header panics or spins the parser, and one that is accepted names no other file of the
//! host, judged here by a second, simpler reading of the format. No tables lead outside of the file.
//!
//! The parsers' files are taken in as they stand: they are pure, and the rest of the agent would need libvirt.

#![no_main]

use libfuzzer_sys::fuzz_target;
use novacron_common::units::ByteCount;
use std::io;

#[path = "../../../agent/src/image/clusters.rs"]
mod clusters;
#[path = "../../../agent/src/image/qcow2.rs"]
mod qcow2;

const EXTERNAL_DATA: u64 = 1 << 2;
/// More than an image of fuzzed bytes can hold.
const MOST: u64 = 1 << 20;

struct Image<'a>(&'a [u8]);

impl clusters::ReadAt for Image<'_> {
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|from| self.0.get(from..)?.get(..into.len()));
        into.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let mut head = rest.to_vec();
    // Mostly past the magic and the version, behind which everything else lies.
    if choice % 8 != 0 && head.len() >= 8 {
        head[..4].copy_from_slice(b"QFI\xfb");
        head[4..8].copy_from_slice(&(2 + u32::from(choice % 2)).to_be_bytes());
    }
    let length = head.len() as u64;
    if let Ok(pieces) = clusters::plain(&Image(&head), length, MOST) {
        assert!(pieces.iter().all(|piece| piece.start < piece.end && piece.end <= length), "{pieces:?}");
        assert!(pieces.iter().map(|piece| piece.end - piece.start).sum::<u64>() <= MOST);
    }
    head.truncate(qcow2::HEADER_MAX);
    if let Ok(image) = qcow2::parse(&head, ByteCount::gib(1)) {
        assert!(image.virtual_size.0 > 0, "a disk without a size");
        assert_eq!(head[8..20], [0; 12], "a backing file was accepted");
        assert_eq!(head[32..36], [0; 4], "an encrypted image was accepted");
        if head[7] == 3 {
            let features = u64::from_be_bytes(head[72..80].try_into().expect("eight bytes"));
            assert_eq!(features & EXTERNAL_DATA, 0, "an external data file was accepted");
        }
    }
});
