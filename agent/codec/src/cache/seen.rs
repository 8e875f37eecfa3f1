//! Remembers which pages were sent before, in half a mebibyte whatever the guest's size.

/// Bits of the memory. A guest of 1 GiB sets 6 % of them, so that many new pages are taken for old ones; all that it
/// costs is a place in the cache that another page would have used better.
const BITS: u64 = 1 << 22;

/// A Bloom filter with one hash.
pub struct Seen(Box<[u64]>);

impl Default for Seen {
    fn default() -> Self {
        Self(vec![0; (BITS / 64) as usize].into())
    }
}

impl Seen {
    /// Whether the page was (probably) seen before; it is from now on.
    pub fn again(&mut self, key: u64) -> bool {
        let bit = crate::cache::held::mix(key) % BITS;
        let (word, mask) = (&mut self.0[(bit / 64) as usize], 1 << (bit % 64));
        let before = *word & mask != 0;
        *word |= mask;
        before
    }
}
