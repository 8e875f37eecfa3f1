//! A page as edits of another version of it: words that differ, and how far apart they are.

use crate::wire::varint;
use crate::{PAGE, Page};

const WORD: usize = 8;
/// Equal stretches are skipped by this many bytes at once.
const LINE: usize = 64;

/// Edits are no list of (words to skip, words to copy, the words) within a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the edits do not fit a page")]
pub struct BadEdits;

/// Appends the edits that make `old` into `new`, unless they need more than `most` bytes.
pub fn encode(old: &Page, new: &Page, most: usize, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut done = 0;
    while let Some((from, to)) = next_run(old, new, done) {
        varint::put(out, ((from - done) / WORD) as u64);
        varint::put(out, ((to - from) / WORD) as u64);
        out.extend(&new[from..to]);
        done = to;
        if out.len() - start > most {
            out.truncate(start);
            return false;
        }
    }
    true
}

/// The next bytes that differ, at or behind `from`, in whole words.
fn next_run(old: &Page, new: &Page, from: usize) -> Option<(usize, usize)> {
    let differ = |at: usize| old[at..at + WORD] != new[at..at + WORD];
    let mut at = from;
    loop {
        let next_line = at + LINE - at % LINE;
        if at >= PAGE {
            return None;
        }
        if old[at..next_line] == new[at..next_line] {
            at = next_line;
        } else if differ(at) {
            break;
        } else {
            at += WORD;
        }
    }
    let mut end = at + WORD;
    while end < PAGE && differ(end) {
        end += WORD;
    }
    Some((at, end))
}

/// Makes a page into its next version.
///
/// # Errors
/// When the edits reach beyond the page or end in the middle; the page may then be half edited.
pub fn apply(page: &mut Page, mut edits: &[u8]) -> Result<(), BadEdits> {
    let mut at = 0_usize;
    while !edits.is_empty() {
        let from = forward(at, varint::take(&mut edits))?;
        let to = forward(from, varint::take(&mut edits))?;
        let words = edits.split_at_checked(to - from).ok_or(BadEdits)?;
        page[from..to].copy_from_slice(words.0);
        (at, edits) = (to, words.1);
    }
    Ok(())
}

fn forward(at: usize, words: Option<u64>) -> Result<usize, BadEdits> {
    let words = words.and_then(|words| usize::try_from(words).ok()).ok_or(BadEdits)?;
    let to = words.checked_mul(WORD).and_then(|bytes| at.checked_add(bytes)).ok_or(BadEdits)?;
    if to <= PAGE { Ok(to) } else { Err(BadEdits) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn edits_make_the_new_page(seed: u8, writes in prop::collection::vec((0..PAGE, any::<u8>()), 0..200)) {
            let old = [seed; PAGE];
            let mut new = old;
            writes.iter().for_each(|(at, byte)| new[*at] = *byte);
            let mut edits = Vec::new();
            prop_assert!(encode(&old, &new, 2 * PAGE, &mut edits));
            let mut made = old;
            prop_assert_eq!(apply(&mut made, &edits), Ok(()));
            prop_assert!(made == new);
        }

        #[test]
        fn any_edits_stay_within_the_page(edits: Vec<u8>) {
            let _ = apply(&mut [0; PAGE], &edits);
        }
    }

    #[test]
    fn one_small_write_is_a_few_bytes_and_too_many_are_none() {
        let (old, mut new, mut edits) = ([7; PAGE], [7; PAGE], Vec::new());
        new[4000] = 8;
        assert!(encode(&old, &new, 100, &mut edits) && edits.len() <= 12);
        edits.clear();
        assert!(!encode(&old, &[9; PAGE], 100, &mut edits) && edits.is_empty());
    }

    #[test]
    fn edits_beyond_the_page_are_refused() {
        for bad in [&[0xff, 0xff, 0xff, 0x7f, 1][..], &[0, 2, 1, 2, 3], &[0x80], &[5]] {
            assert_eq!(apply(&mut [0; PAGE], bad), Err(BadEdits), "{bad:?}");
        }
    }
}
