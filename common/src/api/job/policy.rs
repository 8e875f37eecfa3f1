//! When a job is tried, tried again and left alone, as JSON.

use super::Period;
use crate::spec::{
    Backoff, Concurrency, ExitCodes, Faults, JobSpec, Misfire, MisfirePolicy, Retention, RetryOn, RetryPolicy,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How long the next try waits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackoffBody {
    /// After the first failed try (default 1 s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial: Option<Period>,
    /// Never longer than this (default 5 m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<Period>,
    /// What each further wait is of the one before, in percent, 100 to 1000 (default 200: it doubles).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub factor_percent: Option<u32>,
    /// How far a wait may be from the computed one, in percent of it, 0 to 100 (default 10).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jitter_percent: Option<u32>,
}

/// Which ends are worth another try; all by default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryOnBody {
    /// These exit codes (default: every one but 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_codes: Option<Vec<i32>>,
    /// A signal, or too little memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<bool>,
    /// Its time was up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<bool>,
    /// Its host was lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lost_host: Option<bool>,
    /// It never started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_start: Option<bool>,
}

/// Tries after the first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryBody {
    /// How many (default: `max_retries` of the job, or 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// When.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backoff: Option<BackoffBody>,
    /// After what.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_on: Option<RetryOnBody>,
    /// Whether a try avoids the host of the one before, where there is another (default false).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_host: Option<bool>,
}

impl RetryBody {
    /// The policy, with its faults named as fields of `at`.
    pub fn check(&self, at: &str, faults: &mut Faults) -> RetryPolicy {
        let max_retries = self.max_retries.unwrap_or(0);
        if max_retries > JobSpec::RETRIES_MAX {
            faults.add(format!("{at}.max_retries"), format!("must be at most {}", JobSpec::RETRIES_MAX));
        }
        let at_backoff = format!("{at}.backoff");
        RetryPolicy {
            max_retries,
            backoff: self.backoff.as_ref().map_or_else(Backoff::default, |b| b.check(&at_backoff, faults)),
            retry_on: self.retry_on.as_ref().map_or_else(RetryOn::default, |on| on.check(at, faults)),
            other_host: self.other_host.unwrap_or(false),
        }
    }
}

impl BackoffBody {
    /// Longest wait: a day.
    const WAIT_MAX_MS: u64 = 24 * 3600 * 1000;

    fn check(&self, at: &str, faults: &mut Faults) -> Backoff {
        let usual = Backoff::default();
        let mut wait = |field: &str, given: Option<&Period>, usual: u64| {
            let field = format!("{at}.{field}");
            let given = given.and_then(|g| faults.take(&field, g.millis())).unwrap_or(usual);
            if !(1..=Self::WAIT_MAX_MS).contains(&given) {
                faults.add(field, "must be 1 ms to a day");
            }
            given
        };
        let initial_ms = wait("initial", self.initial.as_ref(), usual.initial_ms);
        let max_ms = wait("max", self.max.as_ref(), usual.max_ms.max(initial_ms));
        if max_ms < initial_ms {
            faults.add(format!("{at}.max"), "is less than initial");
        }
        let factor_percent = self.factor_percent.unwrap_or(usual.factor_percent);
        if !(100..=1000).contains(&factor_percent) {
            faults.add(format!("{at}.factor_percent"), "must be 100 to 1000: 200 doubles each wait");
        }
        let jitter_percent = self.jitter_percent.unwrap_or(usual.jitter_percent);
        if jitter_percent > 100 {
            faults.add(format!("{at}.jitter_percent"), "must be at most 100");
        }
        Backoff { initial_ms, max_ms, factor_percent, jitter_percent }
    }
}

impl RetryOnBody {
    fn check(&self, at: &str, faults: &mut Faults) -> RetryOn {
        const CODES_MAX: usize = 64;
        let codes = self.exit_codes.as_ref();
        if codes.is_some_and(|c| c.len() > CODES_MAX || c.contains(&0)) {
            faults.add(
                format!("{at}.retry_on.exit_codes"),
                format!("must be at most {CODES_MAX} codes other than 0: 0 is success"),
            );
        }
        RetryOn {
            exit_codes: codes.map_or(ExitCodes::Any, |c| ExitCodes::List(c.clone())),
            signal: self.signal.unwrap_or(true),
            timeout: self.timeout.unwrap_or(true),
            lost_host: self.lost_host.unwrap_or(true),
            failed_start: self.failed_start.unwrap_or(true),
        }
    }
}

impl From<&RetryPolicy> for RetryBody {
    fn from(retry: &RetryPolicy) -> Self {
        let (backoff, on) = (&retry.backoff, &retry.retry_on);
        Self {
            max_retries: Some(retry.max_retries),
            backoff: Some(BackoffBody {
                initial: Some(Period::Millis(backoff.initial_ms)),
                max: Some(Period::Millis(backoff.max_ms)),
                factor_percent: Some(backoff.factor_percent),
                jitter_percent: Some(backoff.jitter_percent),
            }),
            retry_on: Some(RetryOnBody {
                exit_codes: match &on.exit_codes {
                    ExitCodes::Any => None,
                    ExitCodes::List(codes) => Some(codes.clone()),
                },
                signal: Some(on.signal),
                timeout: Some(on.timeout),
                lost_host: Some(on.lost_host),
                failed_start: Some(on.failed_start),
            }),
            other_host: Some(retry.other_host),
        }
    }
}

/// What becomes of ticks that nobody was there to commit in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MisfirePolicyBody {
    /// They are recorded as missed.
    None,
    /// Of several the last is fired, late (the default).
    #[default]
    Last,
    /// Each is fired, late, up to `max` of them.
    All,
}

/// What becomes of ticks that nobody was there to commit in time, with limits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MisfireBody {
    /// What is done.
    #[serde(default)]
    pub policy: MisfirePolicyBody,
    /// Most late fires at once for `all`, 1 to 1000 (default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// Older ticks are missed in any case (default: none is too old).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Period>,
}

impl MisfireBody {
    pub(crate) fn check(&self, faults: &mut Faults) -> Misfire {
        let max = self.max.unwrap_or(Misfire::default().max);
        if !(1..=Misfire::MAX_MAX).contains(&max) {
            faults.add("misfire.max", format!("must be 1 to {}", Misfire::MAX_MAX));
        }
        let policy = match self.policy {
            MisfirePolicyBody::None => MisfirePolicy::None,
            MisfirePolicyBody::Last => MisfirePolicy::Last,
            MisfirePolicyBody::All => MisfirePolicy::All,
        };
        let window_ms = self.window.as_ref().and_then(|w| faults.take("misfire.window", w.millis()));
        Misfire { policy, max, window_ms }
    }
}

impl From<Misfire> for MisfireBody {
    fn from(misfire: Misfire) -> Self {
        Self {
            policy: match misfire.policy {
                MisfirePolicy::None => MisfirePolicyBody::None,
                MisfirePolicy::Last => MisfirePolicyBody::Last,
                MisfirePolicy::All => MisfirePolicyBody::All,
            },
            max: Some(misfire.max),
            window: misfire.window_ms.map(Period::Millis),
        }
    }
}

/// What becomes of a fire while another of the same job has not ended: `"allow"`, `"forbid"`, `"replace"` or
/// `{"queue": {"max": 10}}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcurrencyBody {
    /// Both run (the default).
    Allow,
    /// The tick is skipped.
    Forbid,
    /// The earlier one is cancelled; the later one starts once that has ended.
    Replace,
    /// It waits until the earlier ones have ended.
    Queue {
        /// Most fires that wait so, 1 to 500; further ticks are skipped.
        max: u32,
    },
}

impl ConcurrencyBody {
    pub(crate) fn check(self, faults: &mut Faults) -> Concurrency {
        match self {
            Self::Allow => Concurrency::Allow,
            Self::Forbid => Concurrency::Forbid,
            Self::Replace => Concurrency::Replace,
            Self::Queue { max } => {
                if !(1..=Concurrency::QUEUE_MAX).contains(&max) {
                    faults.add("concurrency.queue.max", format!("must be 1 to {}", Concurrency::QUEUE_MAX));
                }
                Concurrency::Queue { max }
            }
        }
    }
}

impl From<Concurrency> for ConcurrencyBody {
    fn from(concurrency: Concurrency) -> Self {
        match concurrency {
            Concurrency::Allow => Self::Allow,
            Concurrency::Forbid => Self::Forbid,
            Concurrency::Replace => Self::Replace,
            Concurrency::Queue { max } => Self::Queue { max },
        }
    }
}

/// How many ended fires are kept one by one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionBody {
    /// At most this many, 1 to 10000 (default 1000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fires: Option<u32>,
    /// At most this old (default 7 days).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<Period>,
}

impl RetentionBody {
    pub(crate) fn check(&self, faults: &mut Faults) -> Retention {
        let usual = Retention::default();
        let fires = self.fires.unwrap_or(usual.fires);
        if !(1..=Retention::FIRES_MAX).contains(&fires) {
            faults.add("retention.fires", format!("must be 1 to {}", Retention::FIRES_MAX));
        }
        let age = self.age.as_ref().and_then(|age| faults.take("retention.age", age.millis()));
        Retention { fires, age_ms: age.unwrap_or(usual.age_ms) }
    }
}

impl From<Retention> for RetentionBody {
    fn from(retention: Retention) -> Self {
        Self { fires: Some(retention.fires), age: Some(Period::Millis(retention.age_ms)) }
    }
}
