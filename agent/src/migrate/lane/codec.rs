//! The page codec in a memory lane: QEMU's bytes become frames on the source, and QEMU's bytes again on the target.
//!
//! ```text
//!  QEMU ──unix──▶ encode ──▶ lane ══▶ lane ──▶ decode ──unix──▶ QEMU
//! ```
//!
//! The other direction (the return path of post-copy, a few bytes) is copied as it is.

use super::{
    Counters,
    budget::{FRESH, cache_beside, cache_of},
    relay::{BUFFER, Way},
};
use crate::migrate::checkpoint::{Sink, Stock};
use novacron_codec::{DecodeError, Decoder, Encoder, Measured, Offered, Secret, Settings, Stats};
use novacron_common::{record::Ticket, wire::LaneKind};
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    time::timeout,
};

/// QEMU writes in small pieces. Only when nothing follows for so long does it pause, and waits for the target perhaps.
const PAUSE: Duration = Duration::from_millis(1);
/// After so many bytes the encoder is told what they cost.
const MEASURED_BYTES: u64 = 1 << 20;

fn secret_of(ticket: &Ticket) -> Secret {
    Secret(ticket.secret)
}

/// The source's end of memory lane `lane`.
pub fn encoder(ticket: &Ticket, lane: u8) -> Encoder {
    let usual = Settings::new(secret_of(ticket), lane.into());
    Encoder::new(Settings { cache: cache_of(lane), fresh: FRESH, ..usual })
}

/// The source's end of the main channel, given what the target offered, and who keeps what passes.
pub fn main_encoder(ticket: &Ticket, offered: Option<Arc<Offered>>, sink: Option<Sink>) -> Encoder {
    let mut encoder = encoder(ticket, 0);
    if let Some(offered) = offered {
        let usual = Settings::new(secret_of(ticket), 0);
        let settings = Settings { cache: cache_beside(&offered), fresh: FRESH, ..usual };
        encoder = Encoder::new(settings).with_offer(offered);
    }
    match sink {
        Some(sink) => encoder.with_witness(Box::new(sink)),
        None => encoder,
    }
}

/// The target's end.
pub fn decoder(ticket: &Ticket, lane: u8) -> Decoder {
    Decoder::new(secret_of(ticket), lane.into(), cache_of(lane))
}

/// The target's end of the main channel, given what it offered.
pub fn main_decoder(ticket: &Ticket, stock: Option<&Arc<Stock>>) -> Decoder {
    let decoder = decoder(ticket, 0);
    match stock {
        Some(stock) => decoder.with_library(Box::new(stock.reader())),
        None => decoder,
    }
}

/// As [`super::relay::copy`], through `encoder`, of memory lane `lane`. Counts what crosses the wire, and how; returns what
/// became of it.
///
/// # Errors
/// The system's, when either side breaks.
pub async fn encode<R, W>(
    way: &mut Way<R, W>,
    encoder: Encoder,
    lane: u8,
    counters: &Counters,
) -> io::Result<Stats>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut source = Source { encoder, frames: Vec::new(), cost: Cost::default(), lane, counters };
    let mut buffer = vec![0; BUFFER];
    loop {
        let read = match timeout(PAUSE, way.from.read(&mut buffer)).await {
            Ok(read) => read?,
            Err(_paused) => {
                source.encoder.flush(&mut source.frames);
                source.send(&mut way.to).await?;
                way.from.read(&mut buffer).await?
            }
        };
        if read == 0 {
            break;
        }
        source.push(&buffer[..read]);
        source.send(&mut way.to).await?;
    }
    source.encoder.finish(&mut source.frames);
    source.send(&mut way.to).await?;
    way.to.shutdown().await?;
    Ok(*source.encoder.stats())
}

struct Source<'a> {
    encoder: Encoder,
    frames: Vec<u8>,
    cost: Cost,
    lane: u8,
    counters: &'a Counters,
}

/// What was measured since the encoder was told.
#[derive(Default)]
struct Cost {
    encoding: Duration,
    sending: Duration,
    plain: u64,
    wire: u64,
}

impl Source<'_> {
    fn push(&mut self, bytes: &[u8]) {
        let began = Instant::now();
        self.encoder.push(bytes, &mut self.frames);
        self.cost.encoding += began.elapsed();
        self.cost.plain += bytes.len() as u64;
        if self.cost.plain >= MEASURED_BYTES {
            let Cost { encoding, plain, .. } = self.cost;
            self.encoder.measured(Measured { link: Some(self.cost.link_rate()), encoding, plain });
            self.cost = Cost::default();
        }
    }

    async fn send(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        let began = Instant::now();
        // Before the write: who has read the bytes finds them counted.
        self.counters.of(LaneKind::Memory).fetch_add(self.frames.len() as u64, Ordering::Relaxed);
        self.counters.encoded(self.lane, self.encoder.stats());
        to.write_all(&self.frames).await?;
        self.cost.sending += began.elapsed();
        self.cost.wire += self.frames.len() as u64;
        self.frames.clear();
        Ok(())
    }
}

impl Cost {
    /// Bytes a second that the link takes. One that takes everything at once is fast, however little it was given.
    fn link_rate(&self) -> u64 {
        let rate = u128::from(self.wire) * 1_000_000_000 / self.sending.as_nanos().max(1);
        u64::try_from(rate).unwrap_or(u64::MAX)
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
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let (mut buffer, mut rebuilt) = (vec![0; BUFFER], Vec::new());
    loop {
        let read = way.from.read(&mut buffer).await?;
        if read == 0 {
            decoder.finish().map_err(invalid)?;
            return way.to.shutdown().await;
        }
        let mut frames = &buffer[..read];
        while !frames.is_empty() {
            let taken = step(&mut decoder, frames, &mut rebuilt).map_err(invalid)?;
            frames = &frames[taken..];
            way.to.write_all(&rebuilt).await?;
            rebuilt.clear();
        }
    }
}
