//! A job, as shown.

use super::{ConcurrencyBody, JobTargetBody, MisfireBody, RetentionBody, RetryBody};
use crate::{
    api::ScheduleWarning,
    ids::JobId,
    spec::{Dst, JobSpec, OnLeaseLost},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Whether a job fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// It fires.
    Active,
    /// It does not, until it is resumed.
    Paused,
    /// Its schedule has no more ticks.
    Finished,
    /// It goes with the last of its attempts.
    Deleting,
}

/// A job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JobView {
    /// Its id.
    pub id: JobId,
    /// Its name.
    pub name: String,
    /// Its cron expression.
    pub schedule: String,
    /// Its zone.
    pub timezone: String,
    /// Whether it fires.
    pub enabled: bool,
    /// 0 to 9.
    pub priority: u8,
    /// Tries after the first.
    pub max_retries: u32,
    /// Tries after the first, in full.
    pub retry: RetryBody,
    /// Milliseconds.
    pub timeout: u64,
    /// What happens where the zone's clock jumps.
    pub dst: Dst,
    /// What becomes of ticks that nobody was there to commit in time.
    pub misfire: MisfireBody,
    /// A fire that has not started this long after its instant is missed; milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_deadline: Option<u64>,
    /// What becomes of a fire while another has not ended.
    pub concurrency: ConcurrencyBody,
    /// Milliseconds.
    pub jitter: u64,
    /// What an attempt does that is cut off from every coordinator.
    pub on_lease_lost: OnLeaseLost,
    /// An alarm is raised for a fire that has not succeeded this long after its instant; milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_by: Option<u64>,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// How many ended fires are kept one by one.
    pub retention: RetentionBody,
    /// What it does.
    pub target: JobTargetBody,
    /// When it is due next.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_fire_at: Option<UnixMillis>,
    /// When it was due last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fire_at: Option<UnixMillis>,
    /// Fires committed so far.
    pub fires: u64,
    /// Fires that ended well.
    pub succeeded: u64,
    /// Fires that did not.
    pub failed: u64,
    /// Ticks without a fire by the job's own rules (concurrency, pause).
    #[serde(default)]
    pub skipped: u64,
    /// Ticks that nobody was there to fire or start in time.
    #[serde(default)]
    pub missed: u64,
    /// Fires and ticks that had not succeeded within `expected_by`.
    #[serde(default)]
    pub overdue: u64,
    /// The oldest of them since the last success: the alarm is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overdue_since: Option<UnixMillis>,
    /// Whether it fires.
    pub status: JobStatus,
    /// What may surprise about its schedule; in the answer to `POST` and `PUT` only.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<ScheduleWarning>,
    /// When it was made.
    pub created_at: UnixMillis,
}

impl JobView {
    /// A view of what was asked for; the caller adds what happened.
    pub fn new(id: JobId, spec: &JobSpec, created_at: UnixMillis) -> Self {
        Self {
            id,
            name: spec.name.to_string(),
            schedule: spec.schedule.to_string(),
            timezone: spec.timezone.to_string(),
            enabled: spec.enabled,
            priority: spec.priority,
            max_retries: spec.retry.max_retries,
            retry: (&spec.retry).into(),
            timeout: spec.timeout_ms,
            dst: spec.dst,
            misfire: spec.misfire.into(),
            start_deadline: spec.start_deadline_ms,
            concurrency: spec.concurrency.into(),
            jitter: spec.jitter_ms,
            on_lease_lost: spec.on_lease_lost,
            expected_by: spec.expected_by_ms,
            labels: spec.labels.clone(),
            retention: spec.retention.into(),
            target: (&spec.target).into(),
            next_fire_at: None,
            last_fire_at: None,
            fires: 0,
            succeeded: 0,
            failed: 0,
            skipped: 0,
            missed: 0,
            overdue: 0,
            overdue_since: None,
            status: if spec.enabled { JobStatus::Active } else { JobStatus::Paused },
            warnings: Vec::new(),
            created_at,
        }
    }
}
