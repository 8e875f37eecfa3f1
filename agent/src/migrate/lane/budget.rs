//! How much memory the page codec may take for one migration, on either side: the one place where that is said.
//!
//! Each memory lane has an encoder or a decoder of its own. It takes what is stated for it and no more (the codec's
//! `tests/memory.rs` counts), so the sum over all lanes that there may be bounds a migration, whatever the machine's
//! size and however it dirties its memory. The sums are asserted here, when the program is built.

use super::{packing::PACKERS_MAX, relay::BUFFER};
use crate::migrate::{checkpoint::KEEPING, link::window};
use novacron_codec::{DECODER_WORK, FRAMER_WORK, OFFERED_MAX, Offered, PACKER_WORK, PARCEL};

const MIB: usize = 1 << 20;

/// QEMU's main channel carries nearly everything: pages that a busy guest writes to again and again are worth their room.
const CACHE_MAIN: usize = 126 * MIB;
/// On one of many channels (multifd spreads pages over all of them) a page seldom comes back.
const CACHE_FURTHER: usize = MIB / 2;

/// Parcels of a lane that are packed or wait for it. Further channels are packed beside each other anyway.
const LINE_MAIN: usize = PACKERS_MAX;
const LINE_FURTHER: usize = 1;

/// What a lane reads into, both ways.
const BUFFERS: usize = 2 * BUFFER;
/// All lanes share them.
const PACKERS: usize = PACKERS_MAX * PACKER_WORK;

/// An agent that moves one machine, whatever it does, over as many channels as a migration may have.
const AGENT_MOST: usize = 256 * MIB;
/// What the rest of an agent takes, the slack of its allocator included.
const REST: usize = 64 * MIB;

/// The codec in all memory lanes of a migration.
const ALL: usize = CACHE_MAIN
    + work(LINE_MAIN)
    + (window::MEMORY_MAX as usize - 1) * (CACHE_FURTHER + work(LINE_FURTHER))
    + PACKERS;

const _: () = assert!(
    ALL + KEEPING + window::SUM + REST <= AGENT_MOST,
    "all lanes of a migration must fit an agent's memory"
);
const _: () = assert!(OFFERED_MAX <= CACHE_MAIN / 2, "what is offered must leave room for what is sent");

/// What kept pages may take of memory on each side of a memory lane.
pub const fn cache_of(lane: u8) -> usize {
    if lane == 0 { CACHE_MAIN } else { CACHE_FURTHER }
}

/// What is left of that to an encoder beside the table of what the target offers. All share the table; the main channel's pays.
pub fn cache_beside(lane: u8, offered: &Offered) -> usize {
    if lane == 0 { CACHE_MAIN - offered.memory().min(CACHE_MAIN) } else { CACHE_FURTHER }
}

/// How many parcels of a memory lane may be on their way.
pub const fn line_of(lane: u8) -> usize {
    if lane == 0 { LINE_MAIN } else { LINE_FURTHER }
}

/// What a lane takes beside its cache: on a source what frames, and the parcels on their way; on a target the decoder.
const fn work(line: usize) -> usize {
    let framing = FRAMER_WORK + line * PARCEL;
    BUFFERS + if framing > DECODER_WORK { framing } else { DECODER_WORK }
}
