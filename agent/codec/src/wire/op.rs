//! The operations of a batch: what to append to the bytes rebuilt so far.

use super::varint;

/// Set on an operation that first appends the header of a RAM record, made from the cursor.
const HEADED: u8 = 0x80;

/// One operation. Page numbers come from a cursor, which starts at 0 and moves on behind each header that it made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// So many literal bytes.
    Bytes(u64),
    /// Moves the cursor by so many pages.
    Seek(i64),
    /// The records of so many zero pages.
    ZeroRecords(u64),
    /// So many pages, literally.
    Pages {
        /// With the headers of their records.
        headed: bool,
        /// How many.
        count: u64,
    },
    /// So many pages of zeros.
    Blank {
        /// With the headers of their records.
        headed: bool,
        /// How many.
        count: u64,
    },
    /// A page, literally, to be kept in a slot.
    Keep {
        /// With the header of its record.
        headed: bool,
        /// Where both sides keep it.
        slot: u32,
    },
    /// A page like the one in a slot.
    Reference {
        /// With the header of its record.
        headed: bool,
        /// Which slot, in which version.
        base: Base,
    },
    /// A page as edited from the one in a slot, whose place it takes.
    Delta {
        /// With the header of its record.
        headed: bool,
        /// Which slot, in which version.
        base: Base,
        /// How many bytes of edits follow among the operations.
        edits: u64,
    },
    /// So many pages of the target's offer, numbered one behind the other.
    Held {
        /// With the headers of their records.
        headed: bool,
        /// The first one's number.
        first: u32,
        /// How many.
        count: u64,
    },
}

/// What a slot held when the encoder referred to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Base {
    /// The slot.
    pub slot: u32,
    /// Counts what was put there, from 1.
    pub version: u32,
}

impl Base {
    fn put(self, out: &mut Vec<u8>) {
        varint::put(out, self.slot.into());
        varint::put(out, self.version.into());
    }

    fn take(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self { slot: take_u32(bytes)?, version: take_u32(bytes)? })
    }
}

fn take_u32(bytes: &mut &[u8]) -> Option<u32> {
    varint::take(bytes)?.try_into().ok()
}

impl Op {
    /// Appends it.
    pub fn put(self, out: &mut Vec<u8>) {
        let (code, headed) = self.code();
        out.push(code | if headed { HEADED } else { 0 });
        match self {
            Self::Bytes(count)
            | Self::ZeroRecords(count)
            | Self::Pages { count, .. }
            | Self::Blank { count, .. } => varint::put(out, count),
            Self::Seek(pages) => varint::put(out, varint::fold(pages)),
            Self::Keep { slot, .. } => varint::put(out, slot.into()),
            Self::Reference { base, .. } => base.put(out),
            Self::Delta { base, edits, .. } => {
                base.put(out);
                varint::put(out, edits);
            }
            Self::Held { first, count, .. } => {
                varint::put(out, first.into());
                varint::put(out, count);
            }
        }
    }

    fn code(self) -> (u8, bool) {
        match self {
            Self::Bytes(_) => (0, false),
            Self::Seek(_) => (1, false),
            Self::ZeroRecords(_) => (2, false),
            Self::Pages { headed, .. } => (3, headed),
            Self::Blank { headed, .. } => (4, headed),
            Self::Keep { headed, .. } => (5, headed),
            Self::Reference { headed, .. } => (6, headed),
            Self::Delta { headed, .. } => (7, headed),
            Self::Held { headed, .. } => (8, headed),
        }
    }

    /// Takes one from the front of `bytes`; `None` if no encoder wrote that.
    pub fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        *bytes = rest;
        let headed = first & HEADED != 0;
        Some(match first & !HEADED {
            0 => Self::Bytes(varint::take(bytes)?),
            1 => Self::Seek(varint::unfold(varint::take(bytes)?)),
            2 => Self::ZeroRecords(varint::take(bytes)?),
            3 => Self::Pages { headed, count: varint::take(bytes)? },
            4 => Self::Blank { headed, count: varint::take(bytes)? },
            5 => Self::Keep { headed, slot: take_u32(bytes)? },
            6 => Self::Reference { headed, base: Base::take(bytes)? },
            7 => Self::Delta { headed, base: Base::take(bytes)?, edits: varint::take(bytes)? },
            8 => Self::Held { headed, first: take_u32(bytes)?, count: varint::take(bytes)? },
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_reads_back() {
        let base = Base { slot: 70_000, version: 300 };
        let all = [
            Op::Bytes(1 << 40),
            Op::Seek(-5),
            Op::ZeroRecords(3),
            Op::Pages { headed: true, count: 9 },
            Op::Blank { headed: false, count: 1 },
            Op::Keep { headed: true, slot: 4 },
            Op::Reference { headed: false, base },
            Op::Delta { headed: true, base, edits: 11 },
            Op::Held { headed: true, first: 90_000, count: 7 },
        ];
        let mut bytes = Vec::new();
        all.into_iter().for_each(|op| op.put(&mut bytes));
        let mut rest = bytes.as_slice();
        let read: Vec<Op> = std::iter::from_fn(|| Op::take(&mut rest)).collect();
        assert_eq!((read.as_slice(), rest), (all.as_slice(), [].as_slice()));
    }
}
