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
mod wire;

pub use cache::{SLOT_COST, Stale};
pub use choice::{Choice, Means, Measured, Outcome, Policy};
pub use decode::{DecodeError, Decoder, Position};
pub use encode::{Encoder, Settings};
pub use proof::Secret;
pub use stats::{Kind, Stats};
pub use wire::frame::{BODY_MAX, PLAIN_MAX};

/// Bytes of a page, of every machine that NovaCron moves (x86-64).
pub const PAGE: usize = 4096;
/// A page's content.
pub type Page = [u8; PAGE];

/// What the caches of one lane may take of memory, on each side, unless told otherwise.
pub const CACHE_DEFAULT: usize = 96 << 20;

/// How many pages fit into so many bytes of memory, indices included.
fn slots_in(bytes: usize) -> u32 {
    u32::try_from(bytes / SLOT_COST).unwrap_or(u32::MAX)
}
