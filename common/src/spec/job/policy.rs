//! When a job is tried, tried again, and left alone.

use serde::{Deserialize, Serialize};

/// How long the next try waits: `initial_ms × factor^(failed tries − 1)`, at most `max_ms`, give or take the jitter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// After the first failed try, milliseconds.
    pub initial_ms: u64,
    /// Never longer than this, milliseconds.
    pub max_ms: u64,
    /// What each further wait is of the one before, in percent: 200 doubles it.
    pub factor_percent: u32,
    /// How far a wait may be from the computed one, in percent of it, so that jobs that failed together do not come
    /// back together.
    pub jitter_percent: u32,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { initial_ms: 1000, max_ms: 300_000, factor_percent: 200, jitter_percent: 10 }
    }
}

/// Which exit codes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitCodes {
    /// Every one but 0.
    #[default]
    Any,
    /// These.
    List(Vec<i32>),
}

impl ExitCodes {
    /// Whether `code` is one of them.
    pub fn hold(&self, code: i32) -> bool {
        match self {
            Self::Any => code != 0,
            Self::List(codes) => codes.contains(&code),
        }
    }
}

/// Which ends of an attempt are worth another try.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryOn {
    /// It exited with one of these. A call or a verb that failed counts as any exit code.
    pub exit_codes: ExitCodes,
    /// A signal ended it, or it ran out of memory.
    pub signal: bool,
    /// Its time was up.
    pub timeout: bool,
    /// Its host was lost, and it is certain that it runs there no more.
    pub lost_host: bool,
    /// It never started.
    pub failed_start: bool,
}

impl Default for RetryOn {
    fn default() -> Self {
        Self { exit_codes: ExitCodes::Any, signal: true, timeout: true, lost_host: true, failed_start: true }
    }
}

/// Tries after the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// How many.
    pub max_retries: u32,
    /// When.
    pub backoff: Backoff,
    /// After what.
    pub retry_on: RetryOn,
    /// Whether a try avoids the host of the one before, where there is another.
    pub other_host: bool,
}

/// What becomes of ticks that nobody was there to commit in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MisfirePolicy {
    /// They are recorded as missed.
    None,
    /// Of several the last is fired, late.
    #[default]
    Last,
    /// Each is fired, late, up to [`Misfire::max`] of them (the latest).
    All,
}

/// [`MisfirePolicy`] with its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Misfire {
    /// What is done.
    pub policy: MisfirePolicy,
    /// Most late fires at once, for [`MisfirePolicy::All`].
    pub max: u32,
    /// Ticks older than this are missed in any case, milliseconds.
    pub window_ms: Option<u64>,
}

impl Misfire {
    /// Largest [`Misfire::max`].
    pub const MAX_MAX: u32 = 1000;
}

impl Default for Misfire {
    fn default() -> Self {
        Self { policy: MisfirePolicy::Last, max: 100, window_ms: None }
    }
}

/// What becomes of a fire while another of the same job has not ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Concurrency {
    /// Both run.
    #[default]
    Allow,
    /// The tick is skipped.
    Forbid,
    /// The earlier one is cancelled; the later one starts once that has ended.
    Replace,
    /// It waits until the earlier ones have ended.
    Queue {
        /// Most fires that wait so; further ticks are skipped.
        max: u32,
    },
}

impl Concurrency {
    /// Largest [`Concurrency::Queue`].
    pub const QUEUE_MAX: u32 = 500;

    /// Whether at most one attempt of the job may be alive.
    pub const fn is_serial(self) -> bool {
        match self {
            Self::Allow => false,
            Self::Forbid | Self::Replace | Self::Queue { .. } => true,
        }
    }
}

/// How many ended fires are kept one by one; older ones are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// At most this many.
    pub fires: u32,
    /// At most this old, milliseconds.
    pub age_ms: u64,
}

impl Retention {
    /// Most fires that are kept of a job.
    pub const FIRES_MAX: u32 = 10_000;
}

impl Default for Retention {
    /// 1,000 fires or 7 days.
    fn default() -> Self {
        Self { fires: 1000, age_ms: 7 * 24 * 3600 * 1000 }
    }
}
