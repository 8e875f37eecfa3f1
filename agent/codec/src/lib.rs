//! The page codec of live migration: QEMU's stream in, fewer bytes on the wire, QEMU's stream out, byte for byte.
//!
//! One [`Encoder`] and one [`Decoder`] serve one lane (one channel that QEMU opened). Both are pure: bytes in, bytes out;
//! time and rates come as arguments. `CODEC.md` describes the frames between them.

mod batch;
mod cache;
mod choice;
mod decode;
mod encode;
mod pack;
pub mod parse;
mod proof;
mod rebuild;
mod stats;
mod stock;
mod wire;

pub use cache::{SLOT_COST, Stale};
pub use choice::{Choice, Means, Measured, Outcome, Policy};
pub use decode::{DecodeError, Decoder, Position};
pub use encode::{Encoder, Settings};
pub use proof::{PrintKey, Printer, Secret};
pub use rebuild::BadOps;
pub use stats::{Kind, Stats};
pub use stock::{HOLE, Library, NotHeld, OFFERED_MAX, Offered, Print, STOCK_MAX, TooMany, Witness};
pub use wire::frame::{BODY_MAX, PLAIN_MAX};

/// Bytes of a page, of every machine that NovaCron moves (x86-64).
pub const PAGE: usize = 4096;
/// A page's content.
pub type Page = [u8; PAGE];

/// What the caches of one lane may take of memory, on each side, unless told otherwise.
pub const CACHE_DEFAULT: usize = 96 << 20;

/// What an encoder takes of memory beside its cache, at most: a batch, its blob, what zstd makes of it and zstd's state,
/// the pages seen, and its operations. (`tests/memory.rs` counts it.)
pub const ENCODER_WORK: usize = 4 << 20;
/// The same of a decoder, whatever the peer sends: a frame, an unpacked blob, and zstd's state.
pub const DECODER_WORK: usize = 3 << 20;
/// zstd's part of [`ENCODER_WORK`]; it takes it in C.
pub const ZSTD_STATE: usize = 1 << 20;

/// How many pages fit into so many bytes of memory, indices included.
fn slots_in(bytes: usize) -> u32 {
    u32::try_from(bytes / SLOT_COST).unwrap_or(u32::MAX)
}
