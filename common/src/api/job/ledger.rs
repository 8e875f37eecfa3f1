//! Every tick of a job and what became of it, and the ticks to come, as shown.

use super::FireState;
use crate::units::UnixMillis;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What became of a tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TickState {
    /// There is a fire for it.
    Fired,
    /// There is none, by the job's own rules.
    Skipped,
    /// There is none, or it was not started, because nobody was there in time.
    Missed,
}

/// One tick, or consecutive ticks of one fate (`GET /api/v1/jobs/{id}/ledger`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerEntry {
    /// The (first) tick.
    pub from: UnixMillis,
    /// The last tick; the same as `from` where it is one.
    pub until: UnixMillis,
    /// How many ticks; a lower bound where it is 10,000 or more and they were missed.
    pub count: u64,
    /// What became of them.
    pub tick: TickState,
    /// How their fires ended, or are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fire: Option<FireState>,
    /// Why there is no fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// From the tick to its commit, milliseconds; the longest of several.
    pub late_ms: u64,
}

/// Ticks that are so old that they are only counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerTotals {
    /// The first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<UnixMillis>,
    /// The last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
    /// Fired, and done.
    pub succeeded: u64,
    /// Fired, and not done.
    pub failed: u64,
    /// Not fired by the job's own rules.
    pub skipped: u64,
    /// Not fired or not started in time.
    pub missed: u64,
}

/// Every tick of a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LedgerView {
    /// The newest first.
    pub ticks: Vec<LedgerEntry>,
    /// Whether there are more than were asked for between these and `older`.
    pub more: bool,
    /// What was before everything that is told apart.
    pub older: LedgerTotals,
}
