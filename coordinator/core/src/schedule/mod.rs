//! When jobs are due: cron on a wall clock that jumps, and what happens to ticks that nobody was there to commit.

mod due;
mod misfire;
mod next;
mod offsets;
mod preview;
mod warnings;

pub use due::{DuePlace, due, due_behind, next_due, tick};
pub(crate) use misfire::{Lateness, choose};
pub use misfire::{MISFIRE_AFTER, SKIPS_COUNTED_MAX};
pub use next::next_after;
pub use preview::{PREVIEW_MAX, preview};
pub use warnings::{AHEAD, TICKS_COUNTED_MAX, warnings};
