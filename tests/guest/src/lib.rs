//! What the test guest and its judge on the host must agree on, and the pure parts of the guest.
//!
//! The binary of this crate is `/init` of an initramfs (see `main.rs`). The library exists so that the lab parses ticks and
//! compares disks with the very code that wrote them, and so that the content rules are unit-tested on the build machine.

pub mod content;
pub mod disk;
pub mod hash;
pub mod memory;
pub mod options;
pub mod pace;
pub mod stats;
pub mod tick;
