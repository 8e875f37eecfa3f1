//! Frames: a kind, a length, and a body that is read as a whole.

use crate::proof::{TAG, Tag};

/// Kind and length.
pub const HEAD: usize = 5;
/// What a frame's body may be long. A peer that claims more is refused before a byte is kept.
pub const BODY_MAX: usize = 1 << 20;
/// What a frame may rebuild.
pub const PLAIN_MAX: usize = 1 << 20;
/// What a compressed body may unpack to.
pub const BLOB_MAX: usize = 1 << 20;
/// Opens every generation: the codec's name and the version of its frames.
pub const MAGIC: [u8; 4] = *b"NVC1";

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A generation begins, with empty caches.
    Open = 1,
    /// Bytes as they are.
    Plain = 2,
    /// Operations that rebuild bytes, and what they take literally.
    Batch = 3,
    /// The channel's end, with its length.
    End = 4,
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Open, Self::Plain, Self::Batch, Self::End].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// The head of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// What the frame is.
    pub kind: Kind,
    /// How long its body is.
    pub length: usize,
}

/// Why five bytes are no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadHead {
    /// No frame has this kind.
    Kind(u8),
    /// No frame may be this long.
    Length(u32),
}

impl Head {
    /// Reads a head, and refuses what no encoder writes.
    pub fn read(bytes: [u8; HEAD]) -> Result<Self, BadHead> {
        let [kind, length @ ..] = bytes;
        let length = u32::from_le_bytes(length);
        let kind = Kind::of(kind).ok_or(BadHead::Kind(kind))?;
        let fits = usize::try_from(length).ok().filter(|length| *length <= BODY_MAX);
        Ok(Self { kind, length: fits.ok_or(BadHead::Length(length))? })
    }
}

/// Appends a frame whose body `write` appends.
pub fn put(out: &mut Vec<u8>, kind: Kind, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([kind as u8, 0, 0, 0, 0]);
    write(out);
    let length = u32::try_from(out.len() - start - HEAD).expect("a body is at most BODY_MAX");
    out[start + 1..start + HEAD].copy_from_slice(&length.to_le_bytes());
}

/// The body of [`Kind::Open`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    /// Counts from 0, up by one at each restart.
    pub generation: u32,
    /// How many pages both caches hold.
    pub slots: u32,
}

impl Open {
    /// Appends the frame.
    pub fn put(self, out: &mut Vec<u8>) {
        put(out, Kind::Open, |out| {
            out.extend(MAGIC);
            out.extend(self.generation.to_le_bytes());
            out.extend(self.slots.to_le_bytes());
        });
    }

    /// Reads a body.
    pub fn read(mut body: &[u8]) -> Option<Self> {
        let known = take::<4>(&mut body)? == MAGIC;
        let open = Self { generation: take_u32(&mut body)?, slots: take_u32(&mut body)? };
        (known && body.is_empty()).then_some(open)
    }
}

/// How a batch's blob crosses the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Packing {
    /// As it is.
    Stored = 0,
    /// One zstd frame.
    Zstd = 1,
}

/// What precedes a batch's blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHead {
    /// The proof of what the batch rebuilds.
    pub tag: Tag,
    /// How the blob is packed.
    pub packing: Packing,
    /// How long the unpacked blob is.
    pub blob: usize,
    /// How much of it is operations; the rest is literals.
    pub ops: usize,
    /// How many bytes the operations rebuild.
    pub plain: usize,
}

impl BatchHead {
    /// Appends it.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend(self.tag);
        out.push(self.packing as u8);
        for length in [self.blob, self.ops, self.plain] {
            out.extend(u32::try_from(length).expect("a batch is at most PLAIN_MAX").to_le_bytes());
        }
    }

    /// Takes it from the front of a body. `None` for what no encoder writes, lengths above the limits included.
    pub fn take(body: &mut &[u8]) -> Option<Self> {
        let tag = take::<TAG>(body)?;
        let packing = match take::<1>(body)? {
            [0] => Packing::Stored,
            [1] => Packing::Zstd,
            _ => return None,
        };
        let [blob, ops, plain] = [take_u32(body)?, take_u32(body)?, take_u32(body)?].map(usize::try_from);
        let head = Self { tag, packing, blob: blob.ok()?, ops: ops.ok()?, plain: plain.ok()? };
        let bounded = head.blob <= BLOB_MAX && head.ops <= head.blob && head.plain <= PLAIN_MAX;
        bounded.then_some(head)
    }
}

/// Takes so many bytes from the front of `body`.
pub fn take<const N: usize>(body: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = body.split_first_chunk::<N>()?;
    *body = rest;
    Some(*taken)
}

fn take_u32(body: &mut &[u8]) -> Option<u32> {
    take(body).map(u32::from_le_bytes)
}
