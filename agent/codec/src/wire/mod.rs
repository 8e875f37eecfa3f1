//! How the codec's frames are laid out: `CODEC.md` in bytes.

pub mod frame;
pub mod op;
pub mod varint;
