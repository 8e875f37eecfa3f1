//! A frame before zstd and after it.

use crate::choice::Outcome;
use crate::effort::Effort;
use crate::pack::Packer;
use crate::proof::Tag;
use crate::wire::frame::{self, BatchHead, Kind, Packing};

/// A batch whose blob is as it was collected.
pub(crate) struct Unpacked {
    /// The proof of what it rebuilds.
    pub tag: Tag,
    /// Operations, then literals.
    pub blob: Vec<u8>,
    /// How much of the blob is operations.
    pub ops: usize,
    /// Whether zstd is to be tried, and how hard.
    pub zstd: Option<Effort>,
}

/// Frames that belong together: what is ready, and perhaps a batch behind it that is yet to be packed.
pub struct Parcel {
    ready: Vec<u8>,
    batch: Option<Unpacked>,
    outcome: Outcome,
}

/// What a parcel became.
pub struct Packed {
    /// Frames, complete.
    pub bytes: Vec<u8>,
    /// For [`crate::Framer::sent`].
    pub outcome: Outcome,
}

impl Parcel {
    pub(crate) fn new(ready: Vec<u8>, batch: Option<Unpacked>, outcome: Outcome) -> Self {
        Self { ready, batch, outcome }
    }

    /// Whether packing it takes time worth another thread: about a millisecond.
    #[must_use]
    pub fn is_dear(&self) -> bool {
        self.batch.as_ref().is_some_and(|batch| batch.zstd.is_some())
    }

    /// Completes it.
    #[must_use]
    pub fn pack(self, packer: &mut Packer) -> Packed {
        self.complete(Some(packer))
    }

    /// Completes one that is not dear. (One that is crosses as it is, in more bytes.)
    #[must_use]
    pub fn stored(self) -> Packed {
        self.complete(None)
    }

    fn complete(self, packer: Option<&mut Packer>) -> Packed {
        let Self { ready: mut bytes, batch, mut outcome } = self;
        if let Some(Unpacked { tag, blob, ops, zstd }) = batch {
            let (packing, body) = match packer.zip(zstd) {
                Some((packer, effort)) => packer.pack(&blob, effort),
                None => (Packing::Stored, blob.as_slice()),
            };
            let head = BatchHead { tag, packing, blob: blob.len(), ops, plain: outcome.plain };
            frame::put(&mut bytes, Kind::Batch, |bytes| {
                head.put(bytes);
                bytes.extend(body);
            });
            outcome.compressed = (packing == Packing::Zstd).then_some(body.len());
        }
        outcome.wire = bytes.len();
        Packed { bytes, outcome }
    }
}
