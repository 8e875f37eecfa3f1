//! What an agent leaves of a memory lane goes through its service manager to an agent that may be of another version: no bytes
//! panic the successor's codec, and none make it take more memory than it would have taken anyway. What it goes on from, it
//! leaves as it was to the next one.
//!
//! The codec is taken in as it stands, with proofs that always hold: behind them lies what is to be tested.

#![no_main]

use decode::Decoder;
use framer::{Framer, Settings};
use libfuzzer_sys::fuzz_target;
use proof::Secret;

mod codec;

codec::modules!();

fuzz_target!(|data: &[u8]| {
    let Some((cut, data)) = data.split_first() else { return };
    let (saved, more) = data.split_at(data.len().min(usize::from(*cut) * 64));
    let resumed = |saved: &[u8]| Decoder::resume((Secret([0; 32]), 0), CACHE_DEFAULT, saved, || None);
    if let Ok(decoder) = resumed(saved) {
        let mut again = Vec::new();
        decoder.suspend(&mut again).expect("it has not failed");
        let mut decoder = resumed(&again).expect("it was left so");
        let mut twice = Vec::new();
        resumed(&again).expect("it was left so").suspend(&mut twice).expect("it has not failed");
        assert!(twice == again, "it is left as it was");
        let (mut rest, mut out) = (more, Vec::new());
        while !rest.is_empty() {
            out.clear();
            let Ok(taken) = decoder.decode(rest, &mut out) else { break };
            assert!(taken > 0, "it goes on");
            rest = &rest[taken..];
        }
    }
    if let Some(mut framer) = Framer::resume(Settings::new(Secret([0; 32]), 0), saved) {
        let mut parcels = Vec::new();
        framer.push(more, &mut parcels);
        framer.finish(&mut parcels);
    }
});
