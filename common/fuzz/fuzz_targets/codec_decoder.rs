//! Frames of a page stream come from another host into a process that runs as root: no frames panic the decoder, none make
//! it take more memory than it was made for, and no call gives out more than a frame may rebuild.
//!
//! The codec is taken in as it stands, with proofs that always hold: behind them lies what is to be tested.

#![no_main]

use decode::Decoder;
use libfuzzer_sys::fuzz_target;
use proof::Secret;
use stock::{Library, NotHeld};

mod codec;

codec::modules!();

/// Pages that were offered: the fourth one cannot be read any more.
struct Offer;

impl Library for Offer {
    fn page(&mut self, number: u32, into: &mut Page) -> Result<(), NotHeld> {
        *into = [number.to_le_bytes()[0]; PAGE];
        match number {
            3 => Err(NotHeld::Lost { number, reason: std::io::ErrorKind::InvalidData }),
            0..16 => Ok(()),
            _ => Err(NotHeld::NeverOffered { number: number.into(), offered: 16 }),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new(Secret([0; 32]), 0, CACHE_DEFAULT).with_library(Box::new(Offer));
    let (mut rest, mut out) = (data, Vec::new());
    while !rest.is_empty() {
        out.clear();
        let Ok(taken) = decoder.decode(rest, &mut out) else { return };
        assert!(taken > 0, "it goes on");
        assert!(out.len() <= wire::frame::PLAIN_MAX, "{} bytes by one call", out.len());
        rest = &rest[taken..];
    }
});
