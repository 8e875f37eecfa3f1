//! The guest's working set: pages that are rewritten and poked, and the private table that says what each must hold.

use crate::content::{self, Fill, PAGE_BYTES, PAGE_WORDS, PageState};
use crate::hash::WordHash;

/// Aligned so that one page of ours is one page of the machine.
#[derive(Clone)]
#[repr(C, align(4096))]
struct Page([u64; PAGE_WORDS]);

/// The working set. One lock around it makes a rewrite and its entry in the table one step.
pub struct Arena {
    pages: Vec<Page>,
    states: Vec<PageState>,
    fill: Fill,
    random: u64,
}

/// What a look over the whole working set found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Hash over every word.
    pub hash: u64,
    /// Pages that did not hold what they must.
    pub bad: u64,
}

impl Arena {
    /// A working set of `mib` MiB (at least one page), written once.
    #[must_use]
    pub fn new(mib: u64, fill: Fill) -> Self {
        let count = usize::try_from(mib * (1 << 20) / PAGE_BYTES as u64).unwrap_or(usize::MAX).max(1);
        let mut arena = Self {
            pages: vec![Page([0; PAGE_WORDS]); count],
            states: vec![PageState::default(); count],
            fill,
            random: 0x853c_49e6_748f_ea9b,
        };
        for index in 0..count {
            arena.write(index);
        }
        arena
    }

    /// Number of pages.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Never true: a working set has at least one page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Rewrites one page, chosen at random, with its next version.
    pub fn rewrite_one(&mut self) {
        let index = self.pick();
        self.states[index] = PageState { version: self.states[index].version.wrapping_add(1), pokes: 0 };
        self.write(index);
    }

    /// Changes 8 bytes of one page, chosen at random.
    pub fn poke_one(&mut self) {
        let index = self.pick();
        let state = &mut self.states[index];
        if *state == PageState::default() && self.fill == Fill::Zero {
            // A blank page has no body to poke into yet: its first poke writes it.
            state.pokes = 1;
            self.write(index);
            return;
        }
        state.pokes = state.pokes.wrapping_add(1);
        self.pages[index].0[content::poke_slot(index as u64)] = content::poke_word(index as u64, *state);
    }

    /// Whether page `index` holds what it must.
    #[must_use]
    pub fn holds(&self, index: usize) -> bool {
        content::holds(&self.pages[index].0, index as u64, self.states[index], self.fill)
    }

    /// Looks at every page.
    #[must_use]
    pub fn sum(&self) -> Sum {
        let mut hash = WordHash::default();
        self.pages.iter().flat_map(|page| page.0.iter()).for_each(|&word| hash.word(word));
        let bad = (0..self.len()).filter(|&index| !self.holds(index)).count() as u64;
        Sum { hash: hash.value(), bad }
    }

    fn write(&mut self, index: usize) {
        content::write(&mut self.pages[index].0, index as u64, self.states[index], self.fill);
    }

    fn pick(&mut self) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % self.pages.len() as u64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewrites_and_pokes_leave_every_page_right_and_change_the_sum() {
        for fill in [Fill::Rand, Fill::Text, Fill::Zero] {
            let mut arena = Arena::new(1, fill);
            let before = arena.sum();
            for _ in 0..500 {
                arena.rewrite_one();
                arena.poke_one();
                arena.poke_one();
            }
            let after = arena.sum();
            assert_eq!((before.bad, after.bad), (0, 0), "{fill:?}");
            assert_ne!(before.hash, after.hash, "{fill:?}");
        }
    }

    #[test]
    fn a_stale_page_is_counted() {
        let mut arena = Arena::new(1, Fill::Rand);
        arena.states[17].version += 1;
        assert!(!arena.holds(17));
        assert_eq!(arena.sum().bad, 1);
    }

    #[test]
    fn pages_are_aligned_to_the_machines_pages() {
        let arena = Arena::new(1, Fill::Zero);
        assert_eq!(arena.pages.as_ptr() as usize % PAGE_BYTES, 0);
        assert_eq!(size_of::<Page>(), PAGE_BYTES);
    }
}
