//! Fires and the tries at them, as shown.

use crate::{
    ids::{FireCause, HostId, JobId},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a fire is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FireState {
    /// Committed; no host has taken it yet.
    Waiting,
    /// An attempt runs.
    Running,
    /// Done.
    Succeeded,
    /// Every try failed.
    Failed,
    /// The host of its attempt is not heard from: neither done nor failed.
    Unknown,
    /// Cancelled.
    Cancelled,
    /// Its start deadline passed before any host took it.
    Missed,
}

/// One try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AttemptView {
    /// 1 for the first.
    pub number: u32,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostId>,
    /// `running`, `exited(0)`, `timed_out`, …
    pub outcome: String,
    /// Exit code, where it exited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// What it printed: the first and the last part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<String>,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
}

/// One fire of a job (`GET /api/v1/jobs/{id}/fires`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FireView {
    /// `fire-<job>-<cause><ms>`.
    pub id: String,
    /// The job.
    pub job: JobId,
    /// The instant that it was scheduled for.
    pub scheduled_at: UnixMillis,
    /// When it was committed.
    pub committed_at: UnixMillis,
    /// Why it exists.
    pub cause: FireCause,
    /// How it is.
    pub state: FireState,
    /// From its instant to its commit, milliseconds.
    #[serde(default)]
    pub late_ms: u64,
    /// Whether it waits for another fire of its job to end.
    #[serde(default)]
    pub queued: bool,
    /// Whether it had not succeeded within `expected_by`.
    #[serde(default)]
    pub overdue: bool,
    /// No attempt before this instant (jitter, back-off), while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<UnixMillis>,
    /// Since when nothing is known of its attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown_since: Option<UnixMillis>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// Every try so far.
    pub attempts: Vec<AttemptView>,
}

/// `202` of `POST /api/v1/jobs/{id}/execute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecuteAccepted {
    /// The fire that was committed.
    pub fire: String,
}
