//! Reading XDR (RFC 4506): big-endian words, byte strings padded to four. Nothing is allocated for a length that
//! the bytes at hand do not bear out.

/// Bytes that are no such structure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadXdr {
    /// They end in the middle.
    #[error("its body ends in the middle")]
    Truncated,
    /// A list or text is longer than any migration needs.
    #[error("its body has a list of {0} entries")]
    TooMany(u32),
    /// A type, boolean or text that the protocol does not know.
    #[error("its body has a value that the protocol does not know")]
    Unknown,
    /// Something follows.
    #[error("its body is longer than it should be")]
    LeftOver,
}

/// A cursor over an XDR body.
pub(super) struct Xdr<'a>(&'a [u8]);

impl<'a> Xdr<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], BadXdr> {
        let (head, tail) = self.0.split_at_checked(count).ok_or(BadXdr::Truncated)?;
        self.0 = tail;
        Ok(head)
    }

    pub(super) fn u32(&mut self) -> Result<u32, BadXdr> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| BadXdr::Truncated)
    }

    pub(super) fn u64(&mut self) -> Result<u64, BadXdr> {
        self.take(8)?.try_into().map(u64::from_be_bytes).map_err(|_| BadXdr::Truncated)
    }

    /// A list's length, at most `max`.
    pub(super) fn count(&mut self, max: u32) -> Result<u32, BadXdr> {
        let count = self.u32()?;
        if count > max { Err(BadXdr::TooMany(count)) } else { Ok(count) }
    }

    /// Variable-length opaque data or a string.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], BadXdr> {
        let length = self.u32()? as usize;
        let data = self.take(length)?;
        self.take(length.next_multiple_of(4) - length)?;
        Ok(data)
    }

    /// A string. One with a NUL in it is refused: C would read less of it than we do.
    pub(super) fn text(&mut self) -> Result<&'a str, BadXdr> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| BadXdr::Unknown)?;
        if text.contains('\0') { Err(BadXdr::Unknown) } else { Ok(text) }
    }

    /// A string that may be absent (an XDR optional).
    pub(super) fn optional_text(&mut self) -> Result<Option<&'a str>, BadXdr> {
        match self.u32()? {
            0 => Ok(None),
            1 => self.text().map(Some),
            _ => Err(BadXdr::Unknown),
        }
    }

    pub(super) fn end(&self) -> Result<(), BadXdr> {
        if self.0.is_empty() { Ok(()) } else { Err(BadXdr::LeftOver) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_beyond_the_bytes_is_truncation_whatever_it_claims() {
        assert_eq!(Xdr::new(&[0xff; 8]).bytes(), Err(BadXdr::Truncated));
        assert_eq!(Xdr::new(&[0, 0, 0, 3, b'a', b'b', b'c']).bytes(), Err(BadXdr::Truncated));
        let mut xdr = Xdr::new(&[0, 0, 0, 3, b'a', b'b', b'c', 0, 9]);
        assert_eq!(xdr.text(), Ok("abc"));
        assert_eq!(xdr.end(), Err(BadXdr::LeftOver));
    }
}
