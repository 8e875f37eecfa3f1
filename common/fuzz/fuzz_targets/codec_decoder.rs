//! Frames of a page stream come from another host into a process that runs as root: no frames panic the decoder, none make
//! it take more memory than it was made for, and no call gives out more than a frame may rebuild.
//!
//! The codec is taken in as it stands, with proofs that always hold: behind them lies what is to be tested.

#![no_main]

use decode::Decoder;
use libfuzzer_sys::fuzz_target;
use proof::Secret;

#[path = "../../../agent/codec/src/batch.rs"]
mod batch;
#[path = "../../../agent/codec/src/cache/mod.rs"]
mod cache;
#[path = "../../../agent/codec/src/choice.rs"]
mod choice;
#[path = "../../../agent/codec/src/decode.rs"]
mod decode;
#[path = "../../../agent/codec/src/encode.rs"]
mod encode;
#[path = "../../../agent/codec/src/pack.rs"]
mod pack;
#[path = "../../../agent/codec/src/parse/mod.rs"]
mod parse;
#[path = "../../../agent/codec/src/rebuild.rs"]
mod rebuild;
#[path = "../../../agent/codec/src/stats.rs"]
mod stats;
#[path = "../../../agent/codec/src/wire/mod.rs"]
mod wire;
#[path = "codec/proof.rs"]
mod proof;

/// As in the codec's own lib.rs.
const PAGE: usize = 4096;
type Page = [u8; PAGE];
const CACHE_DEFAULT: usize = 1 << 20;

fn slots_in(bytes: usize) -> u32 {
    u32::try_from(bytes / cache::SLOT_COST).unwrap_or(u32::MAX)
}

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(Secret([0; 32]), 0, CACHE_DEFAULT);
    let (mut rest, mut out) = (data, Vec::new());
    while !rest.is_empty() {
        out.clear();
        let Ok(taken) = decoder.decode(rest, &mut out) else { return };
        assert!(taken > 0, "it goes on");
        assert!(out.len() <= wire::frame::PLAIN_MAX, "{} bytes by one call", out.len());
        rest = &rest[taken..];
    }
});
