//! RAM records: the content of the main channel's `ram` sections, and the whole of the preempt channel.

use super::blocks::{Blocks, place};
use super::reader::{Reader, Stop};
use super::{CONTINUE, PAGE_BITS, PAGE_FLAG, Piece, Place, ZERO, ZERO_RECORD};
use crate::PAGE;
use crate::wire::varint;

const MEM_SIZE: u64 = 0x04;
const EOS: u64 = 0x10;
const XBZRLE: u64 = 0x40;
const MULTIFD_FLUSH: u64 = 0x200;
const FLAGS: u64 = (1 << PAGE_BITS) - 1;
/// `ENCODING_FLAG_XBZRLE`.
const XBZRLE_ENCODING: u8 = 1;

/// What [`Ram::next`] found.
pub enum Record {
    Piece(Piece),
    /// The record that ends a section: eight bytes.
    End,
}

/// The state between two records.
#[derive(Default)]
pub struct Ram {
    /// The block that a record with CONTINUE belongs to.
    block: Option<u8>,
    /// Whether any record has named a block.
    named: bool,
    /// The content of this page is next: its header named a block and went before.
    owed: Option<Owed>,
    /// Bytes of RAM whose blocks the list of blocks has yet to name.
    listed: u64,
}

struct Owed(Option<Place>);

impl Ram {
    pub fn next(&mut self, bytes: &[u8], blocks: &mut Blocks) -> Result<Record, Stop> {
        let mut reader = Reader::new(bytes);
        if let Some(Owed(place)) = &self.owed {
            reader.take(PAGE)?;
            let piece = Piece::Content { place: *place };
            self.owed = None;
            return Ok(Record::Piece(piece));
        }
        if self.listed > 0 {
            return self.list_entry(&mut reader).map(Record::Piece);
        }
        let head = reader.u64()?;
        let address = head & !FLAGS;
        match head & FLAGS & !CONTINUE {
            EOS if head == EOS => Ok(Record::End),
            MULTIFD_FLUSH => Ok(Record::Piece(Piece::Bytes(reader.used()))),
            MEM_SIZE => {
                self.listed = address;
                Ok(Record::Piece(Piece::Bytes(reader.used())))
            }
            ZERO | PAGE_FLAG | XBZRLE => self.page(head, reader, blocks).map(Record::Piece),
            _ => Err(Stop::Lost),
        }
    }

    /// A block in the list at the start: name and length. What further options of QEMU's add is not told apart.
    fn list_entry(&mut self, reader: &mut Reader<'_>) -> Result<Piece, Stop> {
        reader.name()?;
        let length = reader.u64()?;
        self.listed = self.listed.checked_sub(length).ok_or(Stop::Lost)?;
        Ok(Piece::Bytes(reader.used()))
    }

    fn page(&mut self, head: u64, mut reader: Reader<'_>, blocks: &mut Blocks) -> Result<Piece, Stop> {
        let (address, continues) = (head & !FLAGS, head & CONTINUE != 0);
        let name = if continues { None } else { Some(reader.name()?) };
        if continues && !self.named {
            return Err(Stop::Lost);
        }
        let piece = match head & FLAGS & !CONTINUE {
            ZERO => zero(address, continues, &mut reader)?,
            PAGE_FLAG => {
                if continues {
                    reader.take(PAGE)?;
                }
                Piece::Bytes(reader.used())
            }
            _ => xbzrle(&mut reader)?,
        };
        // Only now is the whole record there: nothing may change before.
        if let Some(name) = name {
            (self.block, self.named) = (blocks.number(name), true);
        }
        let place = place(self.block, address);
        Ok(match (head & FLAGS & !CONTINUE, continues) {
            (PAGE_FLAG, true) => Piece::PageRecord { page: address >> PAGE_BITS, place },
            (PAGE_FLAG, false) => {
                self.owed = Some(Owed(place));
                piece
            }
            _ => piece,
        })
    }
}

impl Ram {
    pub fn save(&self, out: &mut Vec<u8>) {
        varint::put_option(out, self.block.map(u64::from));
        varint::put(out, self.named.into());
        varint::put(out, self.owed.is_some().into());
        let place = self.owed.as_ref().and_then(|Owed(place)| *place);
        varint::put_option(out, place.map(|place| place.block.into()));
        varint::put(out, place.map_or(0, |place| place.page));
        varint::put(out, self.listed);
    }

    pub fn restore(bytes: &mut &[u8]) -> Option<Self> {
        let block = number(varint::take_option(bytes)?)?;
        let (named, owed) = (varint::take(bytes)? != 0, varint::take(bytes)? != 0);
        let (owed_block, page) = (number(varint::take_option(bytes)?)?, varint::take(bytes)?);
        let place = owed_block.map(|block| Place { block, page });
        Some(Self { block, named, owed: owed.then_some(Owed(place)), listed: varint::take(bytes)? })
    }
}

/// A block's number as it was saved: refused if it is none.
pub fn number(saved: Option<u64>) -> Option<Option<u8>> {
    saved.map(u8::try_from).transpose().ok()
}

/// Old versions of QEMU filled pages with other bytes than 0.
fn zero(address: u64, continues: bool, reader: &mut Reader<'_>) -> Result<Piece, Stop> {
    let fill = reader.u8()?;
    Ok(match reader.used() {
        ZERO_RECORD if continues && fill == 0 => Piece::ZeroRecord { page: address >> PAGE_BITS },
        length => Piece::Bytes(length),
    })
}

/// A page that QEMU itself has encoded against the version it sent before.
fn xbzrle(reader: &mut Reader<'_>) -> Result<Piece, Stop> {
    let (encoding, length) = (reader.u8()?, usize::from(reader.u16()?));
    if encoding != XBZRLE_ENCODING || length > PAGE {
        return Err(Stop::Lost);
    }
    reader.take(length)?;
    Ok(Piece::Bytes(reader.used()))
}
