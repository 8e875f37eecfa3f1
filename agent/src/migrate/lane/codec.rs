//! The page codec in a memory lane: QEMU's bytes become frames on the source, and QEMU's bytes again on the target.
//!
//! ```text
//!  QEMU ──unix──▶ frame ──▶ pack ──▶ lane ══▶ lane ──▶ decode ──unix──▶ QEMU
//! ```
//!
//! The other direction (the return path of post-copy, a few bytes) is copied as it is.

use super::{
    Counters,
    budget::{FRESH, cache_beside, cache_of, line_of},
    packing::{Line, Packers},
    relay::{BUFFER, Way},
};
use crate::migrate::{
    checkpoint::{Sink, Stock},
    link::lane::LaneWriter,
};
use novacron_codec::{
    DecodeError, Decoder, Framer, Measured, Offered, Packed, Parcel, Secret, Settings, Stats,
};
use novacron_common::{record::Ticket, wire::LaneKind};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::sleep,
};

/// QEMU writes in small pieces. Only when nothing follows for so long does it pause, and waits for the target perhaps.
const PAUSE: Duration = Duration::from_millis(1);

fn secret_of(ticket: &Ticket) -> Secret {
    Secret(ticket.secret)
}

/// The source's end of memory lane `lane`.
pub fn framer(ticket: &Ticket, lane: u8) -> Framer {
    let usual = Settings::new(secret_of(ticket), lane.into());
    Framer::new(Settings { cache: cache_of(lane), fresh: FRESH, ..usual })
}

/// The source's end of the main channel, given what the target offered, and who keeps what passes.
pub fn main_framer(ticket: &Ticket, offered: Option<Arc<Offered>>, sink: Option<Sink>) -> Framer {
    let mut framer = framer(ticket, 0);
    if let Some(offered) = offered {
        let usual = Settings::new(secret_of(ticket), 0);
        let settings = Settings { cache: cache_beside(&offered), fresh: FRESH, ..usual };
        framer = Framer::new(settings).with_offer(offered);
    }
    match sink {
        Some(sink) => framer.with_observer(Box::new(sink)),
        None => framer,
    }
}

/// The target's end.
pub fn decoder(ticket: &Ticket, lane: u8) -> Decoder {
    Decoder::new(secret_of(ticket), lane.into(), cache_of(lane))
}

/// The target's end of the main channel, given what it offered, and who keeps what crosses.
pub fn main_decoder(ticket: &Ticket, stock: Option<&Arc<Stock>>, sink: Option<Sink>) -> Decoder {
    let mut decoder = decoder(ticket, 0);
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

impl Weighs for LaneWriter {
    fn weigh(&mut self, plain: u64) {
        Self::weigh(self, plain);
    }
}

/// As [`super::relay::copy`], through `framer` and `packers`, of memory lane `lane`. Counts what crosses the wire, and how;
/// returns what became of it.
///
/// # Errors
/// The system's, when either side breaks.
pub async fn encode<R, W>(
    way: &mut Way<R, W>,
    (framer, packers): (Framer, Packers),
    lane: u8,
    counters: &Counters,
) -> io::Result<Stats>
where
    R: AsyncRead + Unpin,
    W: Weighs + Unpin,
{
    let line = Line::new(packers, line_of(lane));
    let mut source = Source { framer, parcels: Vec::new(), line, cost: Measured::default(), lane, counters };
    let mut buffer = vec![0; BUFFER];
    let mut paused = false;
    loop {
        // What is packed goes out as soon as it is, whether QEMU writes or not.
        let read = tokio::select! {
            packed = source.line.next() => {
                source.send(packed?, &mut way.to).await?;
                continue;
            }
            read = way.from.read(&mut buffer) => read?,
            () = sleep(PAUSE), if !paused => {
                paused = true;
                source.framer.flush(&mut source.parcels);
                source.put(&mut way.to).await?;
                continue;
            }
        };
        if read == 0 {
            break;
        }
        paused = false;
        source.push(&buffer[..read], &mut way.to).await?;
    }
    source.framer.finish(&mut source.parcels);
    source.put(&mut way.to).await?;
    while !source.line.is_empty() {
        let packed = source.line.next().await?;
        source.send(packed, &mut way.to).await?;
    }
    way.to.shutdown().await?;
    Ok(*source.framer.stats())
}

struct Source<'a> {
    framer: Framer,
    parcels: Vec<Parcel>,
    line: Line,
    /// What was measured since the framer was told.
    cost: Measured,
    lane: u8,
    counters: &'a Counters,
}

impl Source<'_> {
    /// Takes in what QEMU wrote, and tells the framer how long it and what came before took.
    async fn push(&mut self, bytes: &[u8], to: &mut (impl Weighs + Unpin)) -> io::Result<()> {
        let began = Instant::now();
        self.framer.push(bytes, &mut self.parcels);
        self.cost.busy += began.elapsed();
        self.cost.plain += bytes.len() as u64;
        self.put(to).await?;
        self.framer.measured(std::mem::take(&mut self.cost));
        Ok(())
    }

    /// Hands the parcels on to be packed; the first ones on their way go out, as far as that takes.
    async fn put(&mut self, to: &mut (impl Weighs + Unpin)) -> io::Result<()> {
        for parcel in std::mem::take(&mut self.parcels) {
            while self.line.is_full() {
                let began = Instant::now();
                let packed = self.line.next().await?;
                self.cost.busy += began.elapsed();
                self.send(packed, to).await?;
            }
            self.line.put(parcel);
        }
        Ok(())
    }

    async fn send(&mut self, packed: Packed, to: &mut (impl Weighs + Unpin)) -> io::Result<()> {
        self.framer.sent(&packed.outcome);
        // Before the write: who has read the bytes finds them counted.
        self.counters.of(LaneKind::Memory).fetch_add(packed.bytes.len() as u64, Ordering::Relaxed);
        self.counters.encoded(self.lane, self.framer.stats());
        let began = Instant::now();
        to.write_all(&packed.bytes).await?;
        to.weigh(packed.outcome.plain as u64);
        let blocked = began.elapsed();
        self.cost.blocked += blocked;
        self.cost.busy += blocked;
        Ok(())
    }
}

/// Decodes one frame. Held pages are read from the disk: meanwhile other tasks go on elsewhere.
fn step(decoder: &mut Decoder, frames: &[u8], rebuilt: &mut Vec<u8>) -> Result<usize, DecodeError> {
    if decoder.has_library() {
        return tokio::task::block_in_place(|| decoder.decode(frames, rebuilt));
    }
    decoder.decode(frames, rebuilt)
}

/// As [`super::relay::copy`], through `decoder`.
///
/// # Errors
/// The system's, when either side breaks; [`io::ErrorKind::InvalidData`] with the decoder's reason, when the peer sends what
/// no encoder of this lane wrote.
pub async fn decode<R, W>(way: &mut Way<R, W>, mut decoder: Decoder) -> io::Result<()>
where
    R: AsyncBufRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let mut rebuilt = Vec::new();
    loop {
        let frames = way.from.fill_buf().await?;
        if frames.is_empty() {
            decoder.finish().map_err(invalid)?;
            return way.to.shutdown().await;
        }
        let taken = step(&mut decoder, frames, &mut rebuilt).map_err(invalid)?;
        way.to.write_all(&rebuilt).await?;
        rebuilt.clear();
        // Only now: the source is not to be far ahead of QEMU.
        way.from.consume(taken);
    }
}
