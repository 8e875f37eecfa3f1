//! What a page of the guest's working set must hold, as a function of (index, version, pokes) alone.
//!
//! Because nothing else decides it, a page that was lost, came late or came from another version is always seen, and so is a
//! page table entry that points at the wrong page.

use crate::hash::mix;

/// Size of a page and of a disk block, in bytes.
pub const PAGE_BYTES: usize = 4096;
/// 64-bit words in a page.
pub const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// Stands in every page that is not zero: the lab looks for it on the wire between the hosts, where it must never be seen.
pub const NEEDLE: &[u8; 24] = b"nova-guest-plain-needle!";

const NEEDLE_AT: usize = 2;
const BODY_AT: usize = NEEDLE_AT + NEEDLE.len() / 8;

/// What kind of content fills the pages: it decides how well a migration stream compresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fill {
    /// Incompressible.
    #[default]
    Rand,
    /// One word repeated: compresses to nearly nothing.
    Text,
    /// Zero pages until first rewritten, then as [`Fill::Rand`].
    Zero,
}

/// How often a page has been rewritten as a whole, and poked since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageState {
    /// Whole rewrites.
    pub version: u32,
    /// 8-byte writes since the last whole rewrite.
    pub pokes: u32,
}

/// The word of page `index` that pokes change; it differs from page to page so that a delta codec cannot guess it.
#[must_use]
pub fn poke_slot(index: u64) -> usize {
    let body = (PAGE_WORDS - BODY_AT) as u64;
    BODY_AT + usize::try_from(mix(index) % body).unwrap_or(0)
}

/// The value of the poked word.
#[must_use]
pub fn poke_word(index: u64, state: PageState) -> u64 {
    mix(seed(index, state.version) ^ (u64::from(state.pokes) << 1 | 1))
}

/// Writes the whole content of page `index` into `words`.
pub fn write(words: &mut [u64; PAGE_WORDS], index: u64, state: PageState, fill: Fill) {
    if is_blank(state, fill) {
        words.fill(0);
        return;
    }
    words[0] = index;
    words[1] = u64::from(state.version);
    for (word, bytes) in words[NEEDLE_AT..BODY_AT].iter_mut().zip(NEEDLE.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().unwrap_or_default());
    }
    let mut body = Body::new(index, state, fill);
    for word in &mut words[BODY_AT..] {
        *word = body.next_word();
    }
    words[poke_slot(index)] = poke_word(index, state);
}

/// Whether `words` hold exactly what [`write()`] would have written.
#[must_use]
pub fn holds(words: &[u64; PAGE_WORDS], index: u64, state: PageState, fill: Fill) -> bool {
    let mut expected = [0; PAGE_WORDS];
    write(&mut expected, index, state, fill);
    *words == expected
}

fn is_blank(state: PageState, fill: Fill) -> bool {
    fill == Fill::Zero && state == PageState::default()
}

fn seed(index: u64, version: u32) -> u64 {
    mix(index.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(version) << 40)
}

struct Body {
    word: u64,
    step: u64,
}

impl Body {
    fn new(index: u64, state: PageState, fill: Fill) -> Self {
        let word = seed(index, state.version);
        let step = match fill {
            Fill::Text => 0,
            Fill::Rand | Fill::Zero => word | 1,
        };
        Self { word, step }
    }

    /// A multiply and a shift per word: enough to leave nothing for zstd, cheap enough for an emulated CPU.
    fn next_word(&mut self) -> u64 {
        if self.step != 0 {
            self.word = self.word.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(self.step);
            return self.word ^ (self.word >> 32);
        }
        self.word
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(index: u64, state: PageState, fill: Fill) -> [u64; PAGE_WORDS] {
        let mut words = [0; PAGE_WORDS];
        write(&mut words, index, state, fill);
        words
    }

    #[test]
    fn a_page_of_another_index_or_version_is_seen() {
        let state = PageState { version: 3, pokes: 0 };
        let words = page(9, state, Fill::Rand);
        assert!(holds(&words, 9, state, Fill::Rand));
        assert!(!holds(&words, 8, state, Fill::Rand));
        assert!(!holds(&words, 9, PageState { version: 2, pokes: 0 }, Fill::Rand));
    }

    #[test]
    fn one_changed_bit_is_seen_in_every_fill() {
        for fill in [Fill::Rand, Fill::Text, Fill::Zero] {
            let mut words = page(1, PageState::default(), fill);
            words[400] ^= 1 << 17;
            assert!(!holds(&words, 1, PageState::default(), fill), "{fill:?}");
        }
    }

    #[test]
    fn a_poke_changes_exactly_one_word() {
        let before = page(5, PageState { version: 1, pokes: 0 }, Fill::Rand);
        let after = page(5, PageState { version: 1, pokes: 1 }, Fill::Rand);
        let changed = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 1);
        assert_ne!(before[poke_slot(5)], after[poke_slot(5)]);
    }

    #[test]
    fn pages_that_are_not_zero_carry_the_needle() {
        let words = page(7, PageState { version: 1, pokes: 0 }, Fill::Zero);
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        assert!(bytes.windows(NEEDLE.len()).any(|window| window == NEEDLE));
    }
}
