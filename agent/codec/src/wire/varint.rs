//! Numbers of as few bytes as they need: seven bits a byte, least first (LEB128).

const BITS: u32 = 7;
const MORE: u8 = 0x80;

/// Appends `value`.
pub fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= u64::from(MORE) {
        out.push(value.to_le_bytes()[0] | MORE);
        value >>= BITS;
    }
    out.push(value.to_le_bytes()[0]);
}

/// Takes a number from the front of `bytes`; `None` if there is none of at most 64 bits.
pub fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(BITS as usize) {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let part = u64::from(first & !MORE);
        if part.leading_zeros() < shift {
            return None;
        }
        value |= part << shift;
        if first & MORE == 0 {
            return Some(value);
        }
    }
    None
}

/// Appends a number that may be missing.
pub fn put_option(out: &mut Vec<u8>, value: Option<u64>) {
    put(out, value.is_some().into());
    value.into_iter().for_each(|value| put(out, value));
}

/// Takes what [`put_option`] appended.
pub fn take_option(bytes: &mut &[u8]) -> Option<Option<u64>> {
    match take(bytes)? {
        0 => Some(None),
        1 => take(bytes).map(Some),
        _ => None,
    }
}

/// Appends bytes behind their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend(bytes);
}

/// Takes what [`put_bytes`] appended.
pub fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// A signed number as one that is small when the signed one is near 0 (zigzag).
pub fn fold(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

/// The inverse of [`fold`].
pub fn unfold(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_put_is_taken(value: u64, signed: i64, behind: Vec<u8>) {
            let mut bytes = Vec::new();
            put(&mut bytes, value);
            put(&mut bytes, fold(signed));
            bytes.extend(&behind);
            let mut rest = bytes.as_slice();
            prop_assert_eq!(take(&mut rest), Some(value));
            prop_assert_eq!(take(&mut rest).map(unfold), Some(signed));
            prop_assert_eq!(rest, behind.as_slice());
        }
    }

    #[test]
    fn endless_and_cut_numbers_are_refused() {
        assert_eq!(take(&mut [0xff; 11].as_slice()), None);
        assert_eq!(take(&mut [0xff; 3].as_slice()), None);
        let mut too_large = [0xff; 10];
        too_large[9] = 0x02;
        assert_eq!(take(&mut too_large.as_slice()), None);
    }
}
