//! A multifd channel: a greeting, then packets of a header and the content of up to 128 pages.
//!
//! Zero pages are offsets in the header only. A payload that QEMU has compressed itself is passed on as it is.

use super::blocks::{Blocks, place};
use super::ram::number;
use super::reader::{Reader, Stop};
use super::{PAGE_BITS, Piece};
use crate::PAGE;
use crate::wire::varint;

pub const MAGIC: &[u8] = &[0x11, 0x22, 0x33, 0x44];
const VERSION: u32 = 1;
const GREETING: usize = 64;
const PAGES_MAX: usize = 128;
const BLOCK_NAME: usize = 256;
/// What of a header lies before the block's name.
const FIXED: usize = 64;
const HEADER: usize = FIXED + BLOCK_NAME + 8 * PAGES_MAX;

// `migration/multifd.h`: MULTIFD_FLAG_*.
const SYNC: u32 = 1;
const COMPRESSION: u32 = 0x3e;

enum At {
    Greeting,
    Header,
    /// The content of the page with this number in the packet.
    Page(usize),
    /// So many bytes of a compressed payload are still to come.
    Payload(usize),
}

pub struct Multifd {
    at: At,
    block: Option<u8>,
    /// Byte offsets of the packet's pages that are not zero.
    normal: Vec<u64>,
}

impl Default for Multifd {
    fn default() -> Self {
        Self { at: At::Greeting, block: None, normal: Vec::new() }
    }
}

impl Multifd {
    pub fn next(&mut self, bytes: &[u8], blocks: &mut Blocks) -> Result<Piece, Stop> {
        match self.at {
            At::Greeting => self.greeting(Reader::new(bytes)),
            At::Header => self.header(Reader::new(bytes), blocks),
            At::Page(number) => self.page(number, Reader::new(bytes)),
            At::Payload(left) => {
                let now = left.min(bytes.len());
                self.at = if now == left { At::Header } else { At::Payload(left - now) };
                Ok(Piece::Bytes(now))
            }
        }
    }

    fn greeting(&mut self, mut reader: Reader<'_>) -> Result<Piece, Stop> {
        let mut greeting = Reader::new(reader.take(GREETING)?);
        check_magic(&mut greeting)?;
        self.at = At::Header;
        Ok(Piece::Bytes(GREETING))
    }

    fn header(&mut self, mut reader: Reader<'_>, blocks: &mut Blocks) -> Result<Piece, Stop> {
        let header = reader.take(HEADER)?;
        let mut fields = Reader::new(header);
        check_magic(&mut fields)?;
        let (flags, _allocated) = (fields.u32()?, fields.u32()?);
        let (normal, payload) = (size(fields.u32()?)?, size(fields.u32()?)?);
        if flags & !(SYNC | COMPRESSION) != 0 || normal > PAGES_MAX {
            return Err(Stop::Lost);
        }
        let name = &header[FIXED..FIXED + BLOCK_NAME];
        let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
        self.block = if name.is_empty() { None } else { blocks.number(name) };
        self.normal = offsets(&header[FIXED + BLOCK_NAME..], normal)?;
        self.at = match (flags & COMPRESSION, payload) {
            (_, 0) => At::Header,
            (0, length) if flags & SYNC == 0 && length == normal * PAGE => At::Page(0),
            (0, _) => return Err(Stop::Lost),
            (_, length) => At::Payload(length),
        };
        Ok(Piece::Bytes(HEADER))
    }

    fn page(&mut self, number: usize, mut reader: Reader<'_>) -> Result<Piece, Stop> {
        reader.take(PAGE)?;
        let next = number + 1;
        self.at = if next == self.normal.len() { At::Header } else { At::Page(next) };
        Ok(Piece::Content { place: place(self.block, self.normal[number]) })
    }
}

impl Multifd {
    pub fn save(&self, out: &mut Vec<u8>) {
        let (code, left) = match self.at {
            At::Greeting => (0, 0),
            At::Header => (1, 0),
            At::Page(number) => (2, number),
            At::Payload(left) => (3, left),
        };
        varint::put(out, code);
        varint::put(out, left as u64);
        varint::put_option(out, self.block.map(u64::from));
        varint::put(out, self.normal.len() as u64);
        self.normal.iter().for_each(|offset| varint::put(out, *offset));
    }

    pub fn restore(bytes: &mut &[u8]) -> Option<Self> {
        let (code, left) = (varint::take(bytes)?, usize::try_from(varint::take(bytes)?).ok()?);
        let block = number(varint::take_option(bytes)?)?;
        let count = varint::take(bytes).filter(|count| *count <= PAGES_MAX as u64)?;
        let normal = (0..count).map(|_| varint::take(bytes)).collect::<Option<Vec<_>>>()?;
        let at = match code {
            0 => At::Greeting,
            1 => At::Header,
            2 if left < normal.len() => At::Page(left),
            3 if left > 0 => At::Payload(left),
            _ => return None,
        };
        Some(Self { at, block, normal })
    }
}

fn check_magic(reader: &mut Reader<'_>) -> Result<(), Stop> {
    let known = reader.take(MAGIC.len())? == MAGIC && reader.u32()? == VERSION;
    if known { Ok(()) } else { Err(Stop::Lost) }
}

fn size(value: u32) -> Result<usize, Stop> {
    usize::try_from(value).map_err(|_| Stop::Lost)
}

fn offsets(bytes: &[u8], count: usize) -> Result<Vec<u64>, Stop> {
    let mut reader = Reader::new(bytes);
    let offsets = (0..count).map(|_| reader.u64()).collect::<Result<Vec<u64>, Stop>>()?;
    let aligned = offsets.iter().all(|offset| offset.trailing_zeros() >= PAGE_BITS);
    if aligned { Ok(offsets) } else { Err(Stop::Lost) }
}
