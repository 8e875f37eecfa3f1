//! QEMU names a RAM block by text; the codec counts them.

use super::Place;
use crate::wire::varint;

/// More blocks than this are not told apart: their pages are sent without deltas.
const BLOCKS_MAX: usize = 255;

/// The RAM blocks that a channel has named so far.
#[derive(Default)]
pub struct Blocks(Vec<Box<[u8]>>);

impl Blocks {
    /// The number of the block of that name, which is its own as long as the channel lives.
    pub fn number(&mut self, name: &[u8]) -> Option<u8> {
        let known = self.0.iter().position(|known| **known == *name);
        let number = known.or_else(|| {
            let room = self.0.len() < BLOCKS_MAX;
            room.then(|| self.0.push(name.into())).map(|()| self.0.len() - 1)
        })?;
        u8::try_from(number).ok()
    }

    pub fn save(&self, out: &mut Vec<u8>) {
        varint::put(out, self.0.len() as u64);
        self.0.iter().for_each(|name| varint::put_bytes(out, name));
    }

    pub fn restore(bytes: &mut &[u8]) -> Option<Self> {
        let count = varint::take(bytes).filter(|count| *count <= BLOCKS_MAX as u64)?;
        let names = (0..count).map(|_| varint::take_bytes(bytes).map(Box::from));
        names.collect::<Option<Vec<_>>>().map(Self)
    }
}

/// The page at a byte offset of a block; `None` for a block that is not told apart.
pub fn place(block: Option<u8>, offset: u64) -> Option<Place> {
    block.map(|block| Place { block, page: offset >> super::PAGE_BITS })
}
