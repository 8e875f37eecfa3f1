//! When jobs are due: cron on a wall clock that jumps, and what happens to ticks that nobody was there to commit.

mod due;
mod next;

pub use due::{MISFIRE_AFTER, SKIPS_COUNTED_MAX, due, next_due, tick};
pub use next::next_after;
