//! What the encoder did, for a migration's report.

use crate::PAGE;

/// Pages that were sent one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Kind {
    /// How many pages.
    pub pages: u64,
    /// What they took on the wire, before compression; without what is shared (frame heads, proofs).
    pub bytes: u64,
}

impl Kind {
    pub(crate) fn count(&mut self, pages: u64, bytes: usize) {
        self.pages += pages;
        self.bytes += bytes as u64;
    }
}

/// Everything an encoder sent since it was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pages sent as they are (or inside a compressed batch).
    pub raw: Kind,
    /// Pages of zeros.
    pub zero: Kind,
    /// Pages sent as a reference to one that the target holds.
    pub reference: Kind,
    /// Pages sent as edits of the version before.
    pub delta: Kind,
    /// Pages sent as a reference to one that the target held before the migration began.
    pub held: Kind,
    /// Bytes that are no page: headers, commands, device state, other protocols, and all that was not parsed.
    pub other_bytes: u64,
    /// Pages that had been sent before, in any way.
    pub sent_again: u64,
    /// What went into the batches that were compressed.
    pub compressed_from: u64,
    /// What came out of them.
    pub compressed_to: u64,
    /// Bytes that QEMU wrote.
    pub plain: u64,
    /// Bytes that crossed the wire.
    pub wire: u64,
}

impl Stats {
    /// Wire bytes for each of QEMU's; `None` before the first.
    #[must_use]
    pub fn ratio(&self) -> Option<f64> {
        (self.plain > 0).then(|| self.wire as f64 / self.plain as f64)
    }

    /// Adds another lane's.
    pub fn add(&mut self, other: &Self) {
        let kinds = [
            (&mut self.raw, other.raw),
            (&mut self.zero, other.zero),
            (&mut self.reference, other.reference),
            (&mut self.delta, other.delta),
            (&mut self.held, other.held),
        ];
        for (kind, other) in kinds {
            kind.pages += other.pages;
            kind.bytes += other.bytes;
        }
        self.other_bytes += other.other_bytes;
        self.sent_again += other.sent_again;
        self.compressed_from += other.compressed_from;
        self.compressed_to += other.compressed_to;
        self.plain += other.plain;
        self.wire += other.wire;
    }

    pub(crate) fn raw_page(&mut self) {
        self.raw.count(1, PAGE);
    }
}
