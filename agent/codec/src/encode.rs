//! QEMU's bytes in, frames out.

use std::sync::Arc;

use crate::batch::{Batch, PIECE_MAX};
use crate::cache::{Found, Held};
use crate::choice::{Choice, Means, Measured, Outcome, Policy};
use crate::pack::Packer;
use crate::parse::{Channel, Parser, Piece, Place};
use crate::proof::{Printer, Prover, Secret, Tag};
use crate::stats::Stats;
use crate::stock::{Offered, Witness};
use crate::wire::frame::{self, BatchHead, Kind, Open, Packing};
use crate::wire::op::Op;
use crate::wire::varint;
use crate::{CACHE_DEFAULT, PAGE, Page, slots_in};

/// No piece needs more bytes to be told; the longest is a command with its argument.
const WHOLE_MAX: usize = 70_000;

/// On a link that carries so much a second, bytes, what the codec leaves alone is not shown to a witness either: keeping
/// a page would take more time than sending it.
const FAST_LINK: u64 = 300 << 20;

/// Begins what [`Encoder::suspend`] leaves.
const SAVED: &[u8] = b"NVS1";

/// What an encoder is made with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Shared with the decoder.
    pub secret: Secret,
    /// Which lane of the migration this is; no two have the same.
    pub lane: u32,
    /// What the kept pages may take of memory, in bytes.
    pub cache: usize,
    /// How much of that pages may fill that were sent once only, in bytes: the rest is taken by those that come back.
    pub fresh: usize,
    /// Who chooses the means.
    pub policy: Policy,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn new(secret: Secret, lane: u32) -> Self {
        Self { secret, lane, cache: CACHE_DEFAULT, fresh: CACHE_DEFAULT, policy: Policy::Adaptive }
    }
}

/// The encoder of one lane.
pub struct Encoder {
    settings: Settings,
    generation: u32,
    opened: bool,
    /// Bytes that predecessors sent.
    before: u64,
    parser: Parser,
    /// The beginning of a piece whose rest has not arrived.
    arrived: Vec<u8>,
    batch: Batch,
    outcome: Outcome,
    held: Held,
    edits: Vec<u8>,
    prover: Prover,
    packer: Packer,
    choice: Choice,
    stats: Stats,
    /// What the target held before the migration.
    offered: Option<Arc<Offered>>,
    witness: Option<Box<dyn Witness>>,
    /// Whether the link carries more than pages can be kept.
    fast: bool,
}

impl Encoder {
    /// For a channel from its first byte.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self::of_generation(settings, 0)
    }

    fn of_generation(settings: Settings, generation: u32) -> Self {
        Self {
            generation,
            opened: false,
            before: 0,
            parser: Parser::default(),
            arrived: Vec::new(),
            batch: Batch::default(),
            outcome: Outcome::default(),
            held: held(&settings, generation),
            edits: Vec::new(),
            prover: Prover::new(&settings.secret, settings.lane, generation),
            packer: Packer::new(),
            choice: Choice::default(),
            stats: Stats::default(),
            offered: None,
            witness: None,
            fast: false,
            settings,
        }
    }

    /// As it is, with what the target offered to refer to; more may be added to that while it runs. It holds until a new
    /// generation begins.
    #[must_use]
    pub fn with_offer(self, offered: Arc<Offered>) -> Self {
        Self { offered: Some(offered), ..self }
    }

    /// As it is, with someone to see the pages that pass, unless the link is so fast that pages pass as bytes.
    #[must_use]
    pub fn with_witness(self, witness: Box<dyn Witness>) -> Self {
        Self { witness: Some(witness), ..self }
    }

    /// Takes in what QEMU wrote, and appends the frames that are full to `out`: at most as many bytes as were taken in
    /// since the last frame, and 2 % more.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        let mut rest = self.complete(bytes, out);
        while let Some(piece) = self.parser.next(rest) {
            let (now, behind) = rest.split_at(piece.length());
            self.take_in(piece, now, out);
            rest = behind;
        }
        self.arrived.extend(rest);
    }

    /// Takes in the piece whose beginning had arrived before, and returns what follows it. If it is still not whole, all
    /// of `bytes` has arrived with it, and nothing follows.
    fn complete<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<u8>) -> &'a [u8] {
        let before = self.arrived.len();
        if before == 0 {
            return bytes;
        }
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.extend(&bytes[..bytes.len().min(WHOLE_MAX)]);
        let Some(piece) = self.parser.next(&arrived) else {
            self.arrived = arrived;
            return &[];
        };
        self.take_in(piece, &arrived[..piece.length()], out);
        let taken = piece.length() - before;
        arrived.clear();
        self.arrived = arrived;
        &bytes[taken..]
    }

    /// Sends what is waiting for more: to be called when QEMU pauses. What stays is a piece that is not whole yet, at
    /// most a page and its header; QEMU never pauses in the middle of one.
    pub fn flush(&mut self, out: &mut Vec<u8>) {
        self.close_batch(out);
    }

    /// Sends everything, and that it was everything.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let arrived = std::mem::take(&mut self.arrived);
        self.take_in(Piece::Bytes(arrived.len()), &arrived, out);
        self.close_batch(out);
        self.open(out);
        let length = (self.before + self.stats.plain).to_le_bytes();
        let tag = self.prover.next(&length);
        let before = out.len();
        frame::put(out, Kind::End, |out| {
            out.extend(tag);
            out.extend(length);
        });
        self.stats.wire += (out.len() - before) as u64;
    }

    /// Forgets every page: whoever decodes from here on holds none. What waits is sent before.
    pub fn new_generation(&mut self, out: &mut Vec<u8>) {
        self.close_batch(out);
        self.generation += 1;
        self.opened = false;
        self.offered = None;
        self.held = held(&self.settings, self.generation);
        self.prover = Prover::new(&self.settings.secret, self.settings.lane, self.generation);
    }

    /// Ends this encoder's part: what waits is sent, and what a successor needs is returned, as bytes for
    /// [`Encoder::resume`]. Its statistics count from 0 again.
    #[must_use]
    pub fn suspend(mut self, out: &mut Vec<u8>) -> Vec<u8> {
        self.close_batch(out);
        let mut saved = SAVED.to_vec();
        varint::put(&mut saved, self.generation.into());
        varint::put(&mut saved, self.before + self.stats.plain);
        varint::put_bytes(&mut saved, &self.arrived);
        self.parser.save(&mut saved);
        saved
    }

    /// Goes on with a stream where a predecessor suspended it, in a new generation. `None` if these are not bytes that it
    /// left.
    #[must_use]
    pub fn resume(settings: Settings, saved: &[u8]) -> Option<Self> {
        let mut rest = saved.strip_prefix(SAVED)?;
        let generation = u32::try_from(varint::take(&mut rest)?).ok()?.checked_add(1)?;
        let before = varint::take(&mut rest).filter(|before| *before <= u64::MAX / 2)?;
        let arrived = varint::take_bytes(&mut rest).filter(|arrived| arrived.len() <= WHOLE_MAX)?.to_vec();
        let mut parser = Parser::restore(&mut rest).filter(|_| rest.is_empty())?;
        if parser.next(&arrived).is_some() {
            return None;
        }
        Some(Self { before, arrived, parser, ..Self::of_generation(settings, generation) })
    }

    /// Takes in what the pump measured, for the choice of the means.
    pub fn measured(&mut self, measured: Measured) {
        self.fast = measured.link.is_some_and(|rate| rate > FAST_LINK);
        self.choice.measured(measured);
    }

    /// What was sent so far.
    #[must_use]
    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// What the channel has turned out to be.
    #[must_use]
    pub fn channel(&self) -> Channel {
        self.parser.channel()
    }

    /// The means in use.
    #[must_use]
    pub fn means(&self) -> Means {
        match self.settings.policy {
            Policy::Fixed(means) => means,
            Policy::Adaptive => self.choice.means(),
        }
    }

    fn take_in(&mut self, piece: Piece, bytes: &[u8], out: &mut Vec<u8>) {
        match (piece, self.means()) {
            (Piece::Bytes(_), _) => self.bytes(bytes, out),
            (Piece::ZeroRecord { .. }, Means::Off) => {
                self.stats.zero.count(1, bytes.len());
                self.batch.bytes(bytes);
            }
            (Piece::ZeroRecord { page }, _) => {
                self.stats.zero.count(1, 0);
                self.batch.zero_record(page, bytes);
            }
            (Piece::PageRecord { page, place }, means) => self.page(means, Some(page), place, bytes),
            (Piece::Content { place }, means) => self.page(means, None, place, bytes),
        }
        if self.batch.is_full() {
            self.close_batch(out);
        }
    }

    fn bytes(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        self.stats.other_bytes += bytes.len() as u64;
        for part in bytes.chunks(PIECE_MAX) {
            self.batch.bytes(part);
            if self.batch.is_full() {
                self.close_batch(out);
            }
        }
    }

    /// A page, with the header of its record if that has a number.
    fn page(&mut self, means: Means, page: Option<u64>, place: Option<Place>, record: &[u8]) {
        let again = place.is_some_and(|place| self.held.again(place));
        self.outcome.pages += 1;
        self.outcome.again += u32::from(again);
        self.stats.sent_again += u64::from(again);
        let content: &Page = record[record.len() - PAGE..].try_into().expect("a page ends its record");
        self.show(means, place, content);
        if means == Means::Off {
            self.stats.raw_page();
            return self.batch.bytes(record);
        }
        let op = self.op(page.is_some(), place, again, content);
        self.batch.page(page, record, op, &self.edits);
    }

    fn show(&mut self, means: Means, place: Option<Place>, content: &Page) {
        let passes = means == Means::Off && self.fast;
        if let (Some(witness), Some(place), false) = (&mut self.witness, place, passes)
            && *content != [0; PAGE]
        {
            witness.page(place, content);
        }
    }

    fn op(&mut self, headed: bool, place: Option<Place>, again: bool, content: &Page) -> Op {
        self.edits.clear();
        if *content == [0; PAGE] {
            self.stats.zero.count(1, 0);
            return Op::Blank { headed, count: 1 };
        }
        if let Some(first) = self.offered.as_ref().and_then(|offered| offered.find(content)) {
            self.stats.held.count(1, 0);
            return Op::Held { headed, first, count: 1 };
        }
        match self.held.send(place, again, content, &mut self.edits) {
            Found::Reference(base) => {
                self.stats.reference.count(1, 0);
                Op::Reference { headed, base }
            }
            Found::Delta(base) => {
                self.stats.delta.count(1, self.edits.len());
                Op::Delta { headed, base, edits: self.edits.len() as u64 }
            }
            Found::Keep(slot) => {
                self.stats.raw_page();
                Op::Keep { headed, slot }
            }
            Found::Literal => {
                self.stats.raw_page();
                Op::Pages { headed, count: 1 }
            }
        }
    }

    fn close_batch(&mut self, out: &mut Vec<u8>) {
        if self.batch.plain().is_empty() {
            return;
        }
        self.open(out);
        let before = out.len();
        let (plain, full) = (self.batch.plain().len(), self.means() == Means::Full);
        let tag = self.prover.next(self.batch.plain());
        if self.batch.is_bare() && !full {
            self.outcome.blob = plain;
            frame::put(out, Kind::Plain, |out| {
                out.extend(tag);
                out.extend(self.batch.plain());
            });
        } else {
            self.put_batch(tag, full, out);
        }
        (self.outcome.plain, self.outcome.wire) = (plain, out.len() - before);
        self.stats.plain += plain as u64;
        self.stats.wire += (out.len() - before) as u64;
        self.batch.clear();
        self.choice.sent(std::mem::take(&mut self.outcome));
    }

    fn put_batch(&mut self, tag: Tag, full: bool, out: &mut Vec<u8>) {
        let ops = self.packer.fill(&mut self.batch);
        let packing = if full { self.packer.pack() } else { Packing::Stored };
        let (blob, body) = (self.packer.blob(), self.packer.body(packing));
        let head = BatchHead { tag, packing, blob, ops, plain: self.batch.plain().len() };
        frame::put(out, Kind::Batch, |out| {
            head.put(out);
            out.extend(body);
        });
        self.outcome.blob = blob;
        if packing == Packing::Zstd {
            self.stats.compressed_from += blob as u64;
            self.stats.compressed_to += body.len() as u64;
        }
    }

    /// Opens the generation, once.
    fn open(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.opened, true) {
            let before = out.len();
            Open { generation: self.generation, slots: self.held.count() }.put(out);
            self.stats.wire += (out.len() - before) as u64;
        }
    }
}

fn held(settings: &Settings, generation: u32) -> Held {
    let printer = Printer::new(&settings.secret, settings.lane, generation);
    Held::new(slots_in(settings.cache), slots_in(settings.fresh), printer)
}
