//! How a machine may be moved live: the limits that its user sets, and how far up the ladder of means a copy went.

use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use utoipa::ToSchema;

/// What may be done to a guest that changes its memory faster than the link carries it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Strategy {
    /// Pass after pass; if that does not converge, the guest is slowed and then paused for longer, each as far as the
    /// limits allow, and if its machine allows post-copy it goes over at last.
    #[default]
    Auto,
    /// Pass after pass, and nothing else.
    Precopy,
    /// Pass after pass; if that does not converge, the guest is paused until the rest has been sent.
    StopAndCopy,
    /// Pass after pass; if that does not converge, the guest goes over and the rest follows it (post-copy). Only for a
    /// machine that allows it.
    Postcopy,
}

/// What a live move must keep to. What it cannot keep to ends it, fully back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MoveLimits {
    /// By which means.
    pub strategy: Strategy,
    /// The longest pause that may be planned for, milliseconds. `null`: [`MoveLimits::PAUSE_MS`], except that
    /// `stop_and_copy` then pauses for as long as the rest takes.
    pub max_downtime_ms: Option<u32>,
    /// How much of its processors' time may be withheld from the guest, percent; 0: none.
    pub max_slowdown_pct: u8,
    /// How long the copy may take, milliseconds. `null`: as long as it converges.
    pub deadline_ms: Option<u64>,
    /// What the move may take of its host's link, Mbit (10⁶ bits) a second. `null`: what the host's moves may take together.
    #[schema(value_type = Option<u32>, minimum = 1)]
    pub bandwidth_mbit: Option<NonZeroU32>,
    /// Whether the disk that was copied is compared with the one it was copied from, before the machine goes on.
    #[serde(default)]
    pub verify_disk: bool,
}

impl MoveLimits {
    /// The pause that is planned for where nobody says another, milliseconds: QEMU's own default.
    pub const PAUSE_MS: u32 = 300;
    /// The pause that is planned for at first where nobody asked for a certain one, milliseconds: a guest that is not busy
    /// needs no longer one. One that does gets the usual pause after the first pass that did not help.
    pub const FIRST_PAUSE_MS: u32 = 40;
    /// The longest pause that QEMU plans for, milliseconds (`MAX_MIGRATE_DOWNTIME`).
    pub const PAUSE_MS_MAX: u32 = 2_000_000;
    /// The most that QEMU withholds, percent (`max-cpu-throttle`).
    pub const SLOWDOWN_PCT_MAX: u8 = 99;

    /// Passes without help before the next means, from the usual pause on.
    pub const ROUNDS_PER_RUNG: u32 = 3;
    /// On the highest rung, so many passes without help end it …
    pub const ROUNDS_OF_PATIENCE: u32 = 10;
    /// … and at least so long since the last that helped, milliseconds: a guest that is busy for a moment gets its chance.
    pub const PATIENCE_MS: u64 = 60_000;
    /// Shorter passes are judged together, milliseconds: the hypervisor measures over a second itself.
    pub const ROUND_MIN_MS: u64 = 1000;
    /// What QEMU withholds first, percent.
    pub const SLOWDOWN_FIRST_PCT: u8 = 20;
    /// What it adds each time, percent.
    pub const SLOWDOWN_MORE_PCT: u8 = 10;

    /// What the move may take of its host's link, bytes a second.
    pub fn bandwidth(&self) -> Option<u64> {
        self.bandwidth_mbit.map(bytes_per_second)
    }

    /// The longest pause that may be planned for, milliseconds.
    pub fn pause_ms(&self) -> u32 {
        self.max_downtime_ms.unwrap_or(Self::PAUSE_MS)
    }

    /// The pause that disturbs nobody, milliseconds.
    pub fn usual_pause_ms(&self) -> u32 {
        self.pause_ms().min(Self::PAUSE_MS)
    }

    /// The pause that is planned for at first, milliseconds.
    pub fn first_pause_ms(&self) -> u32 {
        match self.strategy {
            Strategy::Precopy => self.pause_ms(),
            Strategy::Auto | Strategy::StopAndCopy | Strategy::Postcopy => {
                self.pause_ms().min(Self::FIRST_PAUSE_MS)
            }
        }
    }

    /// Whether a copy may end by post-copy, if its machine allows it: not one that waits for its disk to be compared.
    pub fn may_split(&self) -> bool {
        !self.verify_disk && matches!(self.strategy, Strategy::Auto | Strategy::Postcopy)
    }

    /// With this pause planned for, passes without help before the next means.
    pub fn rounds(&self, pause_ms: u32) -> u32 {
        if pause_ms < self.usual_pause_ms() { 1 } else { Self::ROUNDS_PER_RUNG }
    }
}

/// So many Mbit (10⁶ bits) a second, in bytes.
pub fn bytes_per_second(mbit: NonZeroU32) -> u64 {
    u64::from(mbit.get()) * (1_000_000 / 8)
}

/// The means by which a copy is brought to its end, the gentlest first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Rung {
    /// Pass after pass beside a guest that runs as ever.
    #[default]
    Precopy,
    /// The guest was slowed.
    Throttle,
    /// A longer pause than the usual one was allowed.
    LongerPause,
    /// The guest was paused, and the rest sent meanwhile.
    StopAndCopy,
    /// The guest went over, and the rest of its memory followed (post-copy).
    Postcopy,
}

/// A limit that a copy could not keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// It would have taken longer than its deadline.
    Deadline,
    /// What was left never fitted into the longest pause.
    MaxDowntime,
}

/// How far up the ladder a copy went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Climb {
    /// The rung that it was on last: the one that ended it, if it arrived.
    pub rung: Rung,
    /// The most that was withheld of the guest's processors' time, percent.
    pub throttle_pct: u8,
    /// The pause that QEMU was allowed to plan for last, milliseconds; 0 before the copy began.
    pub pause_ms: u32,
    /// The limit that ended it, if one did.
    pub limit: Option<Limit>,
}
