//! A job as the ledger keeps it.

mod policy;
mod target;

pub use policy::{Backoff, Concurrency, ExitCodes, Misfire, MisfirePolicy, Retention, RetryOn, RetryPolicy};
pub use target::{
    CommandTarget, HttpMethod, HttpTarget, JobTarget, Program, Root, STDIN_MAX, StatusRange, VmCommandTarget,
    VmVerb, VmVerbTarget,
};

use super::{Dst, Name, OnLeaseLost, Schedule, TimeZone};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A scheduled job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// Unique in the cluster.
    pub name: Name,
    /// When it is due.
    pub schedule: Schedule,
    /// Whose wall clock the schedule means.
    pub timezone: TimeZone,
    /// What happens where that clock jumps.
    pub dst: Dst,
    /// Whether it fires at all; a paused job does not.
    pub enabled: bool,
    /// 0 to 9; the higher goes first where attempts have to wait.
    pub priority: u8,
    /// Ends an attempt; milliseconds.
    pub timeout_ms: u64,
    /// What it does.
    pub target: JobTarget,
    /// Tries after the first.
    pub retry: RetryPolicy,
    /// What becomes of ticks that nobody was there to commit in time.
    pub misfire: Misfire,
    /// A fire that has not started this long after its instant is missed; milliseconds.
    pub start_deadline_ms: Option<u64>,
    /// What becomes of a fire while another has not ended.
    pub concurrency: Concurrency,
    /// Each fire is started up to this much later than its instant, always equally much for one instant;
    /// milliseconds.
    pub jitter_ms: u64,
    /// What an attempt does that is cut off.
    pub on_lease_lost: OnLeaseLost,
    /// An alarm is raised for a fire that has not succeeded this long after its instant; milliseconds.
    pub expected_by_ms: Option<u64>,
    /// For people and filters.
    pub labels: BTreeMap<String, String>,
    /// How many ended fires are kept.
    pub retention: Retention,
}

impl JobSpec {
    /// Longest time that an attempt may take: a week.
    pub const TIMEOUT_MAX_MS: u64 = 7 * 24 * 3600 * 1000;
    /// Most tries after the first.
    pub const RETRIES_MAX: u32 = 100;
    /// Highest priority.
    pub const PRIORITY_MAX: u8 = 9;
    /// The priority of a job that states none.
    pub const PRIORITY_DEFAULT: u8 = 5;
    /// Longest jitter: a day.
    pub const JITTER_MAX_MS: u64 = 24 * 3600 * 1000;
    /// Most labels.
    pub const LABELS_MAX: usize = 32;
}
