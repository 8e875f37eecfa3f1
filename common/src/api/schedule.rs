//! What a schedule will do: the next instants, and where the clock's jumps meet it.

use crate::units::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A jump of the wall clock that a tick meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Transition {
    /// The clock leaves out a stretch of time (spring).
    Gap,
    /// The clock shows a stretch of time twice (autumn).
    Fold,
}

/// An instant at which a schedule is due.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PreviewTick {
    /// The instant.
    pub at: UnixMillis,
    /// The same on the schedule's own wall clock, as RFC 3339 with its offset.
    pub local: String,
    /// `gap`: it stands in for a time that the clock leaves out. `fold`: the clock shows this time of day twice.
    pub transition: Option<Transition>,
}

/// A jump of the clock within a year that changes what a schedule does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduleWarning {
    /// When the clock jumps.
    pub at: UnixMillis,
    /// Which way.
    pub transition: Transition,
    /// The first time of day that is met, on the wall clock, without an offset (it has none, or two).
    pub first: String,
    /// How many are met.
    pub ticks: u32,
    /// Which tick, what will happen, and what could be chosen instead.
    pub message: String,
}
