//! The page codec in a memory lane: QEMU's bytes become frames on the source, and QEMU's bytes again on the target.
//!
//! ```text
//!  QEMU ──unix──▶ frame ──▶ pack ──▶ lane ══▶ lane ──▶ decode ──unix──▶ QEMU
//! ```
//!
//! The other direction (the return path of post-copy, a few bytes) is copied as it is.

use super::{
    Counters,
    budget::{cache_beside, cache_of, line_of},
    connection::rest,
    packing::{Line, Packers},
    relay::{Flow, Way},
};
use crate::migrate::{
    checkpoint::{LaneSink, Stock},
    link::lane::LaneWriter,
};
use bytes::Bytes;
use novacron_codec::{
    DecodeError, Decoder, Framer, Measured, Offered, Packed, Parcel, Secret, Settings, Stats,
};
use novacron_common::{record::Ticket, wire::LaneKind};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt},
    time::sleep,
};

/// QEMU writes in small pieces. Only when nothing follows for so long does it pause, and waits for the target perhaps.
const PAUSE: Duration = Duration::from_millis(1);

fn settings(ticket: &Ticket, lane: u8) -> Settings {
    let usual = Settings::new(secret_of(ticket), lane.into());
    Settings { cache: cache_of(lane), ..usual }
}

fn secret_of(ticket: &Ticket) -> Secret {
    Secret(ticket.secret)
}

/// The source's end of memory lane `lane`.
pub fn framer(ticket: &Ticket, lane: u8) -> Framer {
    Framer::new(settings(ticket, lane))
}

/// The source's end of memory lane `lane`, given what the target offered, and who keeps what passes.
pub fn framer_beside(
    ticket: &Ticket,
    lane: u8,
    offered: Option<Arc<Offered>>,
    sink: Option<LaneSink>,
) -> Framer {
    let framer = match offered {
        None => framer(ticket, lane),
        Some(offered) => {
            let cache = cache_beside(lane, &offered);
            Framer::new(Settings { cache, ..settings(ticket, lane) }).with_offer(offered)
        }
    };
    match sink {
        Some(sink) => framer.with_observer(Box::new(sink)),
        None => framer,
    }
}

/// The target's end.
pub fn decoder(ticket: &Ticket, lane: u8) -> Decoder {
    Decoder::new(secret_of(ticket), lane.into(), cache_of(lane))
}

/// The target's end, given what it offered, and who keeps what crosses.
pub fn decoder_beside(
    ticket: &Ticket,
    lane: u8,
    stock: Option<&Arc<Stock>>,
    sink: Option<LaneSink>,
) -> Decoder {
    let mut decoder = decoder(ticket, lane);
    if let Some(stock) = stock {
        decoder = decoder.with_library(Box::new(stock.reader()));
    }
    match sink {
        Some(sink) => decoder.with_observer(Box::new(sink)),
        None => decoder,
    }
}

/// Takes frames towards the target, and what each of them stands for there.
pub trait Weighs: AsyncWrite {
    /// As [`LaneWriter::weigh`].
    fn weigh(&mut self, plain: u64);
}

impl<W: Weighs + Unpin + ?Sized> Weighs for &mut W {
    fn weigh(&mut self, plain: u64) {
        (**self).weigh(plain);
    }
}

impl Weighs for LaneWriter {
    fn weigh(&mut self, plain: u64) {
        Self::weigh(self, plain);
    }
}

/// A memory lane's bytes on their way into the lane: the encoder, what it waits for, and what the lane has not taken yet.
pub struct Encoding {
    framer: Framer,
    /// What QEMU wrote.
    read: Flow,
    parcels: VecDeque<Parcel>,
    line: Line,
    /// What was packed, and what it stands for at the target, bytes.
    packed: Flow,
    weight: u64,
    /// What was measured since the framer was told.
    cost: Measured,
    lane: u8,
    counters: Arc<Counters>,
}

/// An encoding as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedEncoding {
    /// [`Framer::suspend`]'s.
    framer: Bytes,
    /// What was packed, and the lane has not taken.
    packed: Bytes,
}

impl Encoding {
    /// Of memory lane `lane`, through `framer` and `packers`.
    pub fn new((framer, packers): (Framer, Packers), lane: u8, counters: Arc<Counters>) -> Self {
        Self {
            framer,
            read: Flow::default(),
            parcels: VecDeque::new(),
            line: Line::new(packers, line_of(lane)),
            packed: Flow::default(),
            weight: 0,
            cost: Measured::default(),
            lane,
            counters,
        }
    }

    /// Goes on where a predecessor was, in a new generation, with empty caches. `None` if it left something else.
    pub fn restore(
        saved: &SavedEncoding,
        ticket: &Ticket,
        packers: Packers,
        lane: u8,
        counters: Arc<Counters>,
    ) -> Option<Self> {
        let framer = Framer::resume(settings(ticket, lane), &saved.framer)?;
        let packed = Flow::of(saved.packed.to_vec());
        Some(Self { packed, ..Self::new((framer, packers), lane, counters) })
    }

    /// Ends this encoder's part, for a successor. All that QEMU wrote and was read is in what it returns.
    ///
    /// # Errors
    /// When the runtime ends.
    pub async fn save(self) -> io::Result<SavedEncoding> {
        let Self { mut framer, mut parcels, mut line, packed, lane, counters, .. } = self;
        let (mut rest, counter) = (packed.rest().to_vec(), counters.of(LaneKind::Memory));
        let mut keep = |packed: &Packed| {
            counter.fetch_add(packed.bytes.len() as u64, Ordering::Relaxed);
            rest.extend(&packed.bytes);
        };
        pack(&mut line, &mut parcels, |packed| {
            framer.sent(&packed.outcome);
            keep(packed);
        })
        .await?;
        counters.encoded(lane, framer.stats());
        let mut last = Vec::new();
        let framer = framer.suspend(&mut last);
        parcels.extend(last);
        pack(&mut line, &mut parcels, keep).await?;
        Ok(SavedEncoding { framer: framer.into(), packed: rest.into() })
    }

    /// As [`super::relay::copy`], through the encoder. Counts what crosses the wire, and how; returns what became of it.
    ///
    /// # Errors
    /// The system's, when either side breaks.
    pub async fn run<R, W>(&mut self, way: &mut Way<R, W>) -> io::Result<Stats>
    where
        R: AsyncRead + Unpin,
        W: Weighs + Unpin,
    {
        let mut paused = false;
        loop {
            self.put(&mut way.to).await?;
            // What is packed goes out as soon as it is, whether QEMU writes or not.
            let count = tokio::select! {
                packed = self.line.next() => {
                    self.take(packed?);
                    continue;
                }
                read = self.read.read(&mut way.from) => read?,
                () = sleep(PAUSE), if !paused => {
                    paused = true;
                    self.framer_does(Framer::flush);
                    continue;
                }
            };
            if count == 0 {
                break;
            }
            paused = false;
            self.push();
        }
        self.framer_does(Framer::finish);
        self.put(&mut way.to).await?;
        while !self.line.is_empty() {
            let packed = self.line.next().await?;
            self.take(packed);
            self.put(&mut way.to).await?;
        }
        way.to.shutdown().await?;
        Ok(*self.framer.stats())
    }

    fn framer_does(&mut self, what: impl FnOnce(&mut Framer, &mut Vec<Parcel>)) {
        let mut parcels = Vec::new();
        what(&mut self.framer, &mut parcels);
        self.parcels.extend(parcels);
    }

    /// Takes in what QEMU wrote, and tells the framer how long that took, and what came before it.
    fn push(&mut self) {
        let (began, mut parcels) = (Instant::now(), Vec::new());
        let bytes = self.read.rest();
        self.framer.push(bytes, &mut parcels);
        self.cost.plain += bytes.len() as u64;
        self.read.take(usize::MAX);
        self.parcels.extend(parcels);
        self.cost.busy += began.elapsed();
    }

    /// Writes what is packed, and hands the parcels on to be packed; the first ones on their way go out, as far as that takes.
    async fn put(&mut self, to: &mut (impl Weighs + Unpin)) -> io::Result<()> {
        loop {
            self.write(to).await?;
            while let Some(parcel) = self.parcels.pop_front_if(|_| !self.line.is_full()) {
                self.line.put(parcel);
            }
            if self.parcels.is_empty() {
                if self.cost.plain > 0 {
                    self.cost.packing += self.line.packing();
                    self.framer.measured(std::mem::take(&mut self.cost));
                }
                return Ok(());
            }
            let began = Instant::now();
            let packed = self.line.next().await?;
            self.cost.busy += began.elapsed();
            self.take(packed);
        }
    }

    fn take(&mut self, packed: Packed) {
        self.framer.sent(&packed.outcome);
        // Before the write: who has read the bytes finds them counted.
        self.counters.of(LaneKind::Memory).fetch_add(packed.bytes.len() as u64, Ordering::Relaxed);
        self.counters.encoded(self.lane, self.framer.stats());
        self.weight = packed.outcome.plain as u64;
        *self.packed.fill() = packed.bytes;
    }

    async fn write(&mut self, to: &mut (impl Weighs + Unpin)) -> io::Result<()> {
        if self.packed.rest().is_empty() {
            return Ok(());
        }
        let began = Instant::now();
        self.packed.write(to).await?;
        to.weigh(std::mem::take(&mut self.weight));
        let blocked = began.elapsed();
        self.cost.blocked += blocked;
        self.cost.busy += blocked;
        Ok(())
    }
}

/// Packs all of them, and shows each to `keep`.
async fn pack(
    line: &mut Line,
    parcels: &mut VecDeque<Parcel>,
    mut keep: impl FnMut(&Packed),
) -> io::Result<()> {
    loop {
        while let Some(parcel) = parcels.pop_front_if(|_| !line.is_full()) {
            line.put(parcel);
        }
        if line.is_empty() {
            return Ok(());
        }
        keep(&line.next().await?);
    }
}

/// A memory lane's bytes on their way out of the lane.
pub struct Decoding {
    decoder: Decoder,
    /// What was rebuilt of the frames that came last.
    rebuilt: Flow,
    /// So many bytes of the lane those were. They are not consumed before what they became is written: the source is not
    /// to be far ahead of QEMU.
    taken: usize,
}

/// A decoding as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDecoding {
    /// [`Decoder::suspend`]'s.
    decoder: Bytes,
    rebuilt: Bytes,
}

impl Decoding {
    /// Through `decoder`.
    pub fn new(decoder: Decoder) -> Self {
        Self { decoder, rebuilt: Flow::default(), taken: 0 }
    }

    /// Goes on where a predecessor was, of memory lane `lane`; `stock` is what was offered.
    ///
    /// # Errors
    /// [`DecodeError`] if it left something else, or held more than there is room for here.
    pub fn restore(
        saved: &SavedDecoding,
        ticket: &Ticket,
        lane: u8,
        stock: Option<&Arc<Stock>>,
    ) -> Result<Self, DecodeError> {
        let library = || stock.map(|stock| Box::new(stock.reader()) as _);
        let decoder =
            Decoder::resume((secret_of(ticket), lane.into()), cache_of(lane), &saved.decoder, library)?;
        Ok(Self { decoder, rebuilt: Flow::of(saved.rebuilt.to_vec()), taken: 0 })
    }

    /// Ends this decoder's part, for a successor; `from` is the lane, of which it keeps what it has decoded.
    ///
    /// # Errors
    /// If decoding had failed: nobody goes on then.
    pub fn save(self, from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<SavedDecoding> {
        let mut decoder = Vec::new();
        self.decoder.suspend(&mut decoder)?;
        from.consume(self.taken);
        Ok(SavedDecoding { decoder: decoder.into(), rebuilt: rest(&self.rebuilt) })
    }

    /// As [`super::relay::copy`], through the decoder.
    ///
    /// # Errors
    /// The system's, when either side breaks; [`io::ErrorKind::InvalidData`] with the decoder's reason, when the peer sends what
    /// no encoder of this lane wrote.
    pub async fn run<R, W>(&mut self, way: &mut Way<R, W>) -> io::Result<()>
    where
        R: AsyncBufRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        loop {
            self.rebuilt.write(&mut way.to).await?;
            way.from.consume(std::mem::take(&mut self.taken));
            let frames = way.from.fill_buf().await?;
            if frames.is_empty() {
                self.decoder.finish().map_err(invalid)?;
                return way.to.shutdown().await;
            }
            self.taken = step(&mut self.decoder, frames, self.rebuilt.fill()).map_err(invalid)?;
        }
    }
}

/// Decodes one frame. Held pages are read from the disk: meanwhile other tasks go on elsewhere.
fn step(decoder: &mut Decoder, frames: &[u8], rebuilt: &mut Vec<u8>) -> Result<usize, DecodeError> {
    if decoder.has_library() {
        return tokio::task::block_in_place(|| decoder.decode(frames, rebuilt));
    }
    decoder.decode(frames, rebuilt)
}
