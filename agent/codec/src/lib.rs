//! The page codec of live migration: QEMU's stream in, fewer bytes on the wire, QEMU's stream out, byte for byte.
//!
//! One [`Encoder`] and one [`Decoder`] serve one lane (one channel that QEMU opened). Both are pure: bytes in, bytes out;
//! time and rates come as arguments. `CODEC.md` describes the frames between them.

mod batch;
mod cache;
mod choice;
mod decode;
mod effort;
mod encode;
mod framer;
mod pack;
mod parcel;
pub mod parse;
mod proof;
mod rebuild;
mod stats;
mod stock;
mod wire;

pub use cache::{SLOT_COST, Stale};
pub use choice::{Choice, Means, Measured, Outcome, Policy};
pub use decode::{DecodeError, Decoder};
pub use effort::Effort;
pub use encode::Encoder;
pub use framer::{Framer, Settings};
pub use pack::Packer;
pub use parcel::{Packed, Parcel};
pub use proof::{PrintKey, Printer, Secret};
pub use rebuild::BadOps;
pub use stats::{Kind, Stats};
pub use stock::{HOLE, Library, NotHeld, OFFERED_MAX, Offered, PageObserver, Print, STOCK_MAX, TooMany};
pub use wire::frame::{BODY_MAX, PLAIN_MAX};

/// Bytes of a page, of every machine that NovaCron moves (x86-64).
pub const PAGE: usize = 4096;
/// A page's content.
pub type Page = [u8; PAGE];

/// What the caches of one lane may take of memory, on each side, unless told otherwise.
pub const CACHE_DEFAULT: usize = 96 << 20;

/// What a framer takes of memory beside its cache, at most: a batch, its operations, the pages seen. (`tests/memory.rs`
/// counts it.)
pub const FRAMER_WORK: usize = 2 << 20;
/// What a packer takes: what zstd makes of a blob, and zstd's state.
pub const PACKER_WORK: usize = ZSTD_STATE + (384 << 10);
/// What a parcel takes until it is sent, at most: its blob, and its frames.
pub const PARCEL: usize = 704 << 10;
/// What a decoder takes beside its cache, whatever the peer sends: a frame, an unpacked blob, and zstd's state.
pub const DECODER_WORK: usize = 3 << 20;
/// zstd's part of [`PACKER_WORK`]; it takes it in C.
pub const ZSTD_STATE: usize = 1 << 20;

/// How many pages fit into so many bytes of memory, indices included.
fn slots_in(bytes: usize) -> u32 {
    u32::try_from(bytes / SLOT_COST).unwrap_or(u32::MAX)
}
