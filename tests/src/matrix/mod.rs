//! The crash matrix of live migration, as a description: who is struck, how, when, and what may be true afterwards.
//!
//! Nothing here touches a machine. The suite `faults_real` carries cells out on real QEMU and hands what it saw to
//! [`judge`], so that what counts as a failure is decided, and tested, apart from how it was brought about.

mod cell;
mod expect;
mod judge;
mod sample;

pub use cell::{Blow, Cell, Edge, Victim, all};
pub use expect::{Outcome, allowed};
pub use judge::{Place, Seen, judge};
pub use sample::{sample, seed, selected};
