//! Two small hash functions: one that mixes a number into content, one that checks bytes. Neither is cryptographic: they look
//! for lost, stale and torn data, not for an attacker.

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// SplitMix64's finaliser (Steele, Lea, Flood 2014): every input bit changes about half of the output bits.
#[must_use]
pub fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// FNV-1a over 64-bit words: a byte-wise FNV costs eight times as much, which is felt in an emulated guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WordHash(u64);

impl Default for WordHash {
    fn default() -> Self {
        Self(FNV_OFFSET)
    }
}

impl WordHash {
    /// Takes one more word in.
    pub fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(FNV_PRIME).rotate_left(23);
    }

    /// Takes bytes in as little-endian words; a short last word is padded with zeros.
    pub fn bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    /// The hash of everything taken in so far.
    #[must_use]
    pub fn value(self) -> u64 {
        mix(self.0)
    }
}

/// [`WordHash`] of one byte string.
#[must_use]
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let mut hash = WordHash::default();
    hash.bytes(bytes);
    hash.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_flipped_bit_changes_the_hash() {
        let mut bytes = [7u8; 100];
        let before = of_bytes(&bytes);
        bytes[99] ^= 1;
        assert_ne!(before, of_bytes(&bytes));
    }

    #[test]
    fn order_of_words_matters() {
        assert_ne!(of_bytes(&[1, 0, 0, 0, 0, 0, 0, 0, 2]), of_bytes(&[2, 0, 0, 0, 0, 0, 0, 0, 1]));
    }
}
