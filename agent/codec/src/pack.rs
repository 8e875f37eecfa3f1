//! zstd over a whole batch: page by page it would be slower and find less.

use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::compress_bound;

use crate::batch::BLOB_MAX;
use crate::effort::Effort;
use crate::wire::frame::Packing;

/// Below this a zstd frame is hardly smaller.
const PACK_MIN: usize = 256;

/// Buffer and state of the encoder's side, used again for each batch: [`crate::PACKER_WORK`].
pub struct Packer {
    packed: Vec<u8>,
    zstd: Compressor<'static>,
}

impl Default for Packer {
    fn default() -> Self {
        Self::new()
    }
}

impl Packer {
    /// With all the room that it can need.
    #[must_use]
    pub fn new() -> Self {
        Self { packed: Vec::with_capacity(compress_bound(BLOB_MAX)), zstd: Compressor::default() }
    }

    /// Compresses a blob, if that makes it smaller; says how it is to cross the wire.
    pub(crate) fn pack<'a>(&'a mut self, blob: &'a [u8], effort: Effort) -> (Packing, &'a [u8]) {
        if blob.len() < PACK_MIN {
            return (Packing::Stored, blob);
        }
        self.packed.clear();
        self.packed.reserve_exact(compress_bound(blob.len()));
        for parameter in effort.parameters() {
            self.zstd.set_parameter(parameter).expect("zstd takes its own parameters");
        }
        match self.zstd.compress_to_buffer(blob, &mut self.packed) {
            Ok(length) if length < blob.len() => (Packing::Zstd, &self.packed),
            _ => (Packing::Stored, blob),
        }
    }
}

/// The decoder's side.
pub struct Unpacker {
    blob: Vec<u8>,
    zstd: Decompressor<'static>,
}

impl Unpacker {
    pub fn new() -> Self {
        let zstd = Decompressor::new().expect("zstd needs no settings to decompress");
        Self { blob: Vec::new(), zstd }
    }

    /// The blob of a batch, which must be `length` bytes; no more than that is ever written.
    ///
    /// # Errors
    /// When the bytes are no zstd frame, or one of another length.
    pub fn unpack<'a>(
        &'a mut self,
        packing: Packing,
        body: &'a [u8],
        length: usize,
    ) -> std::io::Result<&'a [u8]> {
        let blob = match packing {
            Packing::Stored => body,
            Packing::Zstd => {
                self.blob.clear();
                self.blob.reserve_exact(length);
                self.zstd.decompress_to_buffer(body, &mut self.blob)?;
                &self.blob
            }
        };
        if blob.len() == length { Ok(blob) } else { Err(std::io::ErrorKind::InvalidData.into()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ZSTD_STATE, batch::Batch, wire::op::Op};

    #[test]
    fn zstd_takes_no_more_state_than_is_stated_for_the_largest_batch() {
        let (mut packer, mut batch) = (Packer::new(), Batch::default());
        let text: Vec<u8> = (0..BLOB_MAX as u32).flat_map(|word| (word % 9973).to_le_bytes()).collect();
        for record in text.chunks_exact(crate::PAGE) {
            if batch.is_full() {
                break;
            }
            batch.page(None, record, Op::Pages { headed: false, count: 1 }, &[]);
        }
        let mut blob = Vec::new();
        batch.blob(&mut blob);
        for effort in [Effort::Quick, Effort::Thorough] {
            assert_eq!(packer.pack(&blob, effort).0, Packing::Zstd);
            let state = packer.zstd.context_mut().sizeof();
            assert!(state <= ZSTD_STATE, "{effort:?}: {} KiB", state >> 10);
        }
    }
}
