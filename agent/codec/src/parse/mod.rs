//! Cuts what QEMU writes on a migration channel into pieces, as they arrive: pages, zero pages, and the bytes between.
//!
//! The formats are those of QEMU 10.0 (`migration/{savevm,ram,multifd}.c`). What is not understood is passed on as bytes,
//! from there to the end of the channel: a codec that is lost must cost a migration nothing but compression.

mod blocks;
mod main_channel;
mod multifd;
mod ram;
mod reader;

use main_channel::MainChannel;
use multifd::Multifd;
use ram::{Ram, Record};
use reader::{Reader, Stop};

use crate::PAGE;
use crate::wire::varint;
use blocks::Blocks;

/// Pages are this many bits of an address; the flags of a RAM record lie below.
pub(crate) const PAGE_BITS: u32 = 12;

/// `migration/ram.c`: RAM_SAVE_FLAG_*.
pub(crate) const ZERO: u64 = 0x02;
pub(crate) const PAGE_FLAG: u64 = 0x08;
pub(crate) const CONTINUE: u64 = 0x20;

/// Where a page lies in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Number of the RAM block, in the order in which this channel named them.
    pub block: u8,
    /// Number of the page in its block.
    pub page: u64,
}

/// The next bytes of a channel, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// So many bytes that are no page.
    Bytes(usize),
    /// A zero page of the block named before: header with CONTINUE, fill byte 0. Nine bytes.
    ZeroRecord {
        /// Number of the page in its block.
        page: u64,
    },
    /// A page of the block named before: header with CONTINUE, then the content.
    PageRecord {
        /// Number of the page in its block.
        page: u64,
        /// Where it lies, if the codec tells its block apart.
        place: Option<Place>,
    },
    /// The content of a page whose header went before.
    Content {
        /// Where it lies, if the codec tells its block apart.
        place: Option<Place>,
    },
}

/// A zero page's record: header and fill byte.
pub(crate) const ZERO_RECORD: usize = 9;
/// The header of a RAM record that names no block.
pub(crate) const HEAD: usize = 8;

impl Piece {
    /// How many bytes of the channel it is, never 0.
    #[must_use]
    pub fn length(self) -> usize {
        match self {
            Self::Bytes(length) => length,
            Self::ZeroRecord { .. } => ZERO_RECORD,
            Self::PageRecord { .. } => HEAD + PAGE,
            Self::Content { .. } => PAGE,
        }
    }
}

/// What a channel carries, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channel {
    /// Too little has arrived to tell.
    Unknown,
    /// The stream of a whole machine.
    Main,
    /// One of several channels for pages beside the main one.
    Multifd,
    /// Pages that a guest waits for in post-copy.
    Preempt,
    /// Anything else, or from here on unknown: passed on as it is.
    Opaque,
}

enum State {
    Start,
    Main(MainChannel),
    Multifd(Box<Multifd>),
    Preempt(Ram),
    Opaque,
}

/// The parser of one channel.
pub struct Parser {
    state: State,
    blocks: Blocks,
}

impl Default for Parser {
    fn default() -> Self {
        Self { state: State::Start, blocks: Blocks::default() }
    }
}

impl Parser {
    /// The piece that `bytes`, all that has arrived and is not yet cut, begin with. `None` waits for more of them; no
    /// piece needs more than 64 KiB to be told.
    pub fn next(&mut self, bytes: &[u8]) -> Option<Piece> {
        if bytes.is_empty() {
            return None;
        }
        match self.cut(bytes) {
            Ok(piece) => Some(piece),
            Err(Stop::More) => None,
            Err(Stop::Lost) => {
                self.state = State::Opaque;
                Some(Piece::Bytes(bytes.len()))
            }
        }
    }

    /// What this channel has turned out to be.
    #[must_use]
    pub fn channel(&self) -> Channel {
        match self.state {
            State::Start => Channel::Unknown,
            State::Main(_) => Channel::Main,
            State::Multifd(_) => Channel::Multifd,
            State::Preempt(_) => Channel::Preempt,
            State::Opaque => Channel::Opaque,
        }
    }

    /// Appends its state, for a successor that goes on behind the last piece.
    pub fn save(&self, out: &mut Vec<u8>) {
        self.blocks.save(out);
        varint::put(out, self.channel() as u64);
        match &self.state {
            State::Main(main) => main.save(out),
            State::Multifd(multifd) => multifd.save(out),
            State::Preempt(ram) => ram.save(out),
            State::Start | State::Opaque => {}
        }
    }

    /// Takes what [`Parser::save`] appended; `None` if it did not.
    pub fn restore(bytes: &mut &[u8]) -> Option<Self> {
        let blocks = Blocks::restore(bytes)?;
        let channels = [Channel::Unknown, Channel::Main, Channel::Multifd, Channel::Preempt, Channel::Opaque];
        let state = match channels.get(usize::try_from(varint::take(bytes)?).ok()?)? {
            Channel::Unknown => State::Start,
            Channel::Main => State::Main(MainChannel::restore(bytes)?),
            Channel::Multifd => State::Multifd(Box::new(Multifd::restore(bytes)?)),
            Channel::Preempt => State::Preempt(Ram::restore(bytes)?),
            Channel::Opaque => State::Opaque,
        };
        Some(Self { state, blocks })
    }

    fn cut(&mut self, bytes: &[u8]) -> Result<Piece, Stop> {
        if matches!(self.state, State::Start) {
            self.state = first_state(bytes)?;
        }
        match &mut self.state {
            State::Main(main) => main.next(bytes, &mut self.blocks),
            State::Multifd(multifd) => multifd.next(bytes, &mut self.blocks),
            State::Preempt(ram) => match ram.next(bytes, &mut self.blocks)? {
                Record::Piece(piece) => Ok(piece),
                Record::End => Ok(Piece::Bytes(HEAD)),
            },
            State::Start | State::Opaque => Ok(Piece::Bytes(bytes.len())),
        }
    }
}

/// Tells the channels apart. A single byte can tell that this is none of them, so that no other protocol is held up.
fn first_state(bytes: &[u8]) -> Result<State, Stop> {
    let first = &bytes[..bytes.len().min(HEAD)];
    let begins = |magic: &[u8]| first.iter().zip(magic).all(|(byte, wanted)| byte == wanted);
    if begins(main_channel::MAGIC) && first.len() >= main_channel::MAGIC.len() {
        return Ok(State::Main(MainChannel::default()));
    }
    if begins(multifd::MAGIC) && first.len() >= multifd::MAGIC.len() {
        return Ok(State::Multifd(Box::default()));
    }
    let could_be_a_record = first[0] == 0;
    if !could_be_a_record && !begins(main_channel::MAGIC) && !begins(multifd::MAGIC) {
        return Err(Stop::Lost);
    }
    let flags = Reader::new(first).u64()? & ((1 << PAGE_BITS) - 1);
    match flags {
        PAGE_FLAG | ZERO => Ok(State::Preempt(Ram::default())),
        _ => Err(Stop::Lost),
    }
}
