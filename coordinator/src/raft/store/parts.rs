//! Long values as several short ones.
//!
//! sled keeps values above about 128 KiB in files that it never syncs, so `novacron_store` refuses them. Here a
//! value of any length becomes parts under consecutive keys (`key`, part number), each with a mark that says
//! whether another follows.

use super::StoreFault;

/// Most bytes of value in one part; with its mark it stays below `novacron_store::VALUE_MAX`.
pub(super) const PART_MAX: usize = 60 * 1024;
/// Bytes that a part's number adds to a key.
pub(super) const SUFFIX_BYTES: usize = 2;

const LAST: u8 = 0;
const MORE: u8 = 1;

/// The key of part `number` of the value of `key`.
pub(super) fn part_key(key: &[u8], number: u16) -> Vec<u8> {
    [key, &number.to_be_bytes()].concat()
}

/// The parts of `value`, in order. An empty value is one empty part.
pub(super) fn split(value: &[u8]) -> Vec<Vec<u8>> {
    let count = value.len().div_ceil(PART_MAX).max(1);
    let piece = |i: usize| &value[i * PART_MAX..value.len().min((i + 1) * PART_MAX)];
    let mark = |i: usize| if i + 1 == count { LAST } else { MORE };
    (0..count).map(|i| [&[mark(i)], piece(i)].concat()).collect()
}

/// A value that comes back together.
pub(super) struct Whole {
    /// The key without part number.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
    /// In how many parts it was.
    pub parts: u16,
}

/// Puts parts together again, as they come in the order of their keys.
#[derive(Default)]
pub(super) struct Joiner {
    open: Option<Whole>,
}

impl Joiner {
    /// Takes the next part; answers with the value that it completes.
    ///
    /// # Errors
    /// [`StoreFault::Parts`] if a part is missing or does not belong here.
    pub fn take(&mut self, part_key: &[u8], part: &[u8]) -> Result<Option<Whole>, StoreFault> {
        let fault = || StoreFault::Parts { key: hex::encode(part_key) };
        let (key, number) = part_key.split_last_chunk::<SUFFIX_BYTES>().ok_or_else(fault)?;
        let (mark, bytes) = part.split_first().ok_or_else(fault)?;
        let mut whole = match (self.open.take(), u16::from_be_bytes(*number)) {
            (None, 0) => Whole { key: key.to_vec(), value: Vec::new(), parts: 0 },
            (Some(open), number) if open.key == key && open.parts == number => open,
            _ => return Err(fault()),
        };
        whole.value.extend_from_slice(bytes);
        whole.parts += 1;
        match *mark {
            LAST => Ok(Some(whole)),
            MORE => {
                self.open = Some(whole);
                Ok(None)
            }
            _ => Err(fault()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there_and_back(length: usize) -> usize {
        let value: Vec<u8> = (0..length).map(|i| (i % 251) as u8).collect();
        let parts = split(&value);
        let mut joiner = Joiner::default();
        for (i, part) in parts.iter().enumerate() {
            assert!(part.len() <= novacron_store::VALUE_MAX);
            let done = joiner.take(&part_key(b"k", i as u16), part).unwrap();
            match done {
                Some(whole) => {
                    assert_eq!((i + 1, whole.key.as_slice()), (parts.len(), b"k".as_slice()));
                    assert_eq!(whole.value, value);
                }
                None => assert!(i + 1 < parts.len()),
            }
        }
        parts.len()
    }

    #[test]
    fn a_value_of_any_length_comes_back() {
        for (length, parts) in [(0, 1), (1, 1), (PART_MAX, 1), (PART_MAX + 1, 2), (5 * PART_MAX, 5)] {
            assert_eq!(there_and_back(length), parts);
        }
    }

    #[test]
    fn a_missing_or_foreign_part_is_noticed() {
        let parts = split(&vec![7; 3 * PART_MAX]);
        let mut joiner = Joiner::default();
        joiner.take(&part_key(b"k", 0), &parts[0]).unwrap();
        assert!(joiner.take(&part_key(b"k", 2), &parts[2]).is_err());
        let mut joiner = Joiner::default();
        joiner.take(&part_key(b"k", 0), &parts[0]).unwrap();
        assert!(joiner.take(&part_key(b"other", 1), &parts[1]).is_err());
        assert!(Joiner::default().take(&part_key(b"k", 1), &parts[1]).is_err());
    }
}
