//! QEMU's bytes in, frames out. What zstd is still to pack goes out as it is: [`Parcel::pack`] is the dear part, and
//! several parcels can be packed at once, as long as their frames are sent in order.

use std::sync::Arc;

use crate::batch::{BLOB_MAX, Batch, PIECE_MAX};
use crate::cache::{Found, Held};
use crate::choice::{Choice, Means, Measured, Outcome, Policy};
use crate::effort::Effort;
use crate::parcel::{Parcel, Unpacked};
use crate::parse::{Channel, Parser, Piece, Place};
use crate::proof::{Printer, Prover, Secret};
use crate::stats::Stats;
use crate::stock::{Offered, PageObserver};
use crate::wire::frame::{self, Kind, Open};
use crate::wire::op::Op;
use crate::wire::varint;
use crate::{CACHE_DEFAULT, PAGE, Page, slots_in};

/// No piece needs more bytes to be told; the longest is a command with its argument.
const WHOLE_MAX: usize = 70_000;

/// Where bytes that are left alone go so fast, a second, they are not shown to an observer either: keeping a page would take
/// more time than sending it.
const FAST: u64 = 300 << 20;

/// Begins what [`Framer::suspend`] leaves.
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
    /// Who chooses the means.
    pub policy: Policy,
}

impl Settings {
    /// The usual ones.
    #[must_use]
    pub fn new(secret: Secret, lane: u32) -> Self {
        Self { secret, lane, cache: CACHE_DEFAULT, policy: Policy::Adaptive }
    }
}

/// The encoder of one lane, but for the packing.
pub struct Framer {
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
    choice: Choice,
    stats: Stats,
    /// What the target held before the migration.
    offered: Option<Arc<Offered>>,
    observer: Option<Box<dyn PageObserver>>,
}

impl Framer {
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
            choice: Choice::default(),
            stats: Stats::default(),
            offered: None,
            observer: None,
            settings,
        }
    }

    /// As it is, with what the target offered to refer to; more may be added to that while it runs. It holds until a new
    /// generation begins.
    #[must_use]
    pub fn with_offer(self, offered: Arc<Offered>) -> Self {
        Self { offered: Some(offered), choice: self.choice.with_offer(), ..self }
    }

    /// As it is, with someone to see the pages that pass, unless bytes that are left alone go too fast to be kept.
    #[must_use]
    pub fn with_observer(self, observer: Box<dyn PageObserver>) -> Self {
        Self { observer: Some(observer), ..self }
    }

    /// Takes in what QEMU wrote, and appends the frames that are full to `out`. Each is to be packed, and
    /// [`Framer::sent`] told what came of it.
    pub fn push(&mut self, bytes: &[u8], out: &mut Vec<Parcel>) {
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
    fn complete<'a>(&mut self, bytes: &'a [u8], out: &mut Vec<Parcel>) -> &'a [u8] {
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
    pub fn flush(&mut self, out: &mut Vec<Parcel>) {
        self.close_batch(out);
    }

    /// Sends everything, and that it was everything.
    pub fn finish(&mut self, out: &mut Vec<Parcel>) {
        let arrived = std::mem::take(&mut self.arrived);
        self.take_in(Piece::Bytes(arrived.len()), &arrived, out);
        self.close_batch(out);
        let mut ready = self.opening();
        let length = (self.before + self.stats.plain).to_le_bytes();
        let tag = self.prover.next(&length);
        frame::put(&mut ready, Kind::End, |ready| {
            ready.extend(tag);
            ready.extend(length);
        });
        out.push(Parcel::new(ready, None, Outcome::default()));
    }

    /// Forgets every page: whoever decodes from here on holds none. What waits is sent before.
    pub fn new_generation(&mut self, out: &mut Vec<Parcel>) {
        self.close_batch(out);
        self.generation += 1;
        self.opened = false;
        self.offered = None;
        self.held = held(&self.settings, self.generation);
        self.prover = Prover::new(&self.settings.secret, self.settings.lane, self.generation);
    }

    /// Ends this encoder's part: what waits is sent, and what a successor needs is returned, as bytes for
    /// [`Framer::resume`]. Its statistics count from 0 again.
    #[must_use]
    pub fn suspend(mut self, out: &mut Vec<Parcel>) -> Vec<u8> {
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

    /// Takes in what became of a parcel.
    pub fn sent(&mut self, outcome: &Outcome) {
        self.stats.wire += outcome.wire as u64;
        if let Some(compressed) = outcome.compressed {
            self.stats.compressed_from += outcome.blob as u64;
            self.stats.compressed_to += compressed as u64;
        }
        self.choice.sent(outcome);
    }

    /// Takes in what the pump measured, for the choice of the means.
    pub fn measured(&mut self, measured: Measured) {
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

    fn effort(&self) -> Effort {
        match self.settings.policy {
            Policy::Fixed(_) => Effort::default(),
            Policy::Adaptive => self.choice.effort(),
        }
    }

    fn take_in(&mut self, piece: Piece, bytes: &[u8], out: &mut Vec<Parcel>) {
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

    fn bytes(&mut self, bytes: &[u8], out: &mut Vec<Parcel>) {
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
        let passes = means == Means::Off && self.choice.rate(means).is_some_and(|rate| rate > FAST as f64);
        if let (Some(observer), Some(_), false) = (&mut self.observer, place, passes)
            && *content != [0; PAGE]
        {
            observer.page(place, content);
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

    fn close_batch(&mut self, out: &mut Vec<Parcel>) {
        if self.batch.plain().is_empty() {
            return;
        }
        let mut ready = self.opening();
        let (plain, full) = (self.batch.plain().len(), self.means() == Means::Full);
        let tag = self.prover.next(self.batch.plain());
        let mut outcome = std::mem::take(&mut self.outcome);
        (outcome.plain, outcome.blob, outcome.full) = (plain, plain, full);
        let batch = if self.batch.is_bare() && !full {
            frame::put(&mut ready, Kind::Plain, |ready| {
                ready.extend(tag);
                ready.extend(self.batch.plain());
            });
            None
        } else {
            let mut blob = Vec::with_capacity(BLOB_MAX);
            let ops = self.batch.blob(&mut blob);
            outcome.blob = blob.len();
            Some(Unpacked { tag, blob, ops, zstd: full.then(|| self.effort()) })
        };
        self.stats.plain += plain as u64;
        self.batch.clear();
        out.push(Parcel::new(ready, batch, outcome));
    }

    /// The frame that opens the generation, once.
    fn opening(&mut self) -> Vec<u8> {
        let mut ready = Vec::new();
        if !std::mem::replace(&mut self.opened, true) {
            Open { generation: self.generation, slots: self.held.count() }.put(&mut ready);
        }
        ready
    }
}

fn held(settings: &Settings, generation: u32) -> Held {
    let printer = Printer::new(&settings.secret, settings.lane, generation);
    Held::new(slots_in(settings.cache), printer)
}
