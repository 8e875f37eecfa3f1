//! A file or a folder as a tar stream, and back. Both ends of a copy into or out of a machine use this: one side's archive
//! is the other side's, which may want to do it harm.
//!
//! The archive has one top, whose name says nothing: where it goes is the receiver's choice ([`destination`]). Files, folders
//! and symbolic links are carried, with their permissions and times; whose they are is the receiver's choice too.

mod pack;
mod unpack;

pub use pack::{Skipped, pack};
pub use unpack::{destination, unpack};

/// Permissions that are carried: no set-user-id, no sticky bit.
const PERMISSIONS: u32 = 0o777;
