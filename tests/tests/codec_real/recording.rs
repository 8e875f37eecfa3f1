//! What one channel carried, and its way through the codec again, under other means and other cuts.

use anyhow::{Result, ensure};
use novacron_codec::parse::Channel;
use novacron_codec::{Decoder, Encoder, Means, Policy, Secret, Settings, Stats};

/// Less than the guest has, so that pages are evicted.
pub const CACHE: usize = 24 << 20;

/// A channel's bytes, all of them.
pub struct Recording {
    pub bytes: Vec<u8>,
    /// What its first bytes told.
    pub channel: Channel,
    /// Whether it ended as bytes that were not understood, as a main channel does: with the devices' state.
    pub lost: bool,
    /// How it was treated on its way.
    pub means: Means,
    pub stats: Stats,
}

pub fn secret() -> Secret {
    Secret([0x5e; 32])
}

/// The pages that were recognised.
pub fn total(stats: &Stats) -> u64 {
    stats.raw.pages + stats.zero.pages + stats.reference.pages + stats.delta.pages
}

/// Byte for byte, whoever chooses the means and however the bytes arrive.
pub fn comes_back(recording: &Recording) -> Result<()> {
    let bytes = &recording.bytes;
    for (policy, piece, cut) in [
        (Policy::Fixed(Means::Off), 65_536, 65_536),
        (Policy::Fixed(Means::Pages), 4104, 1 << 20),
        (Policy::Fixed(Means::Full), 1 << 20, 999),
        (Policy::Adaptive, 30_011, 30_011),
    ] {
        let mut encoder = Encoder::new(Settings { cache: CACHE, policy, ..Settings::new(secret(), 0) });
        let mut wire = Vec::new();
        bytes.chunks(piece).for_each(|piece| encoder.push(piece, &mut wire));
        encoder.finish(&mut wire);
        ensure!(
            wire.len() as u64 <= bytes.len() as u64 * 102 / 100 + 200,
            "{policy:?}: {:?}",
            encoder.stats()
        );

        let (mut decoder, mut given, mut back) = (Decoder::new(secret(), 0, CACHE), 0, Vec::new());
        for mut part in wire.chunks(cut) {
            while !part.is_empty() {
                part = &part[decoder.decode(part, &mut back)?..];
                ensure!(bytes[given..].starts_with(&back), "{policy:?}: other bytes at {given}");
                given += back.len();
                back.clear();
            }
        }
        decoder.finish()?;
        ensure!(given == bytes.len(), "{policy:?}: {given} of {} bytes", bytes.len());
    }
    Ok(())
}
