//! `POST` and `PUT` of a job: what users send, and how it is checked.

use super::{ConcurrencyBody, JobTargetBody, MisfireBody, Period, RetentionBody, RetryBody, unique};
use crate::spec::{
    Concurrency, Dst, Faults, JobSpec, JobTarget, Misfire, Name, OnLeaseLost, Retention, RetryPolicy,
    Schedule, TimeZone,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The two bodies differ in what must be there, and in nothing else.
macro_rules! job_bodies {
    ($($(#[$doc:meta])* $body:ident { $($(#[$field_doc:meta])* $field:ident: $kind:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
        #[serde(deny_unknown_fields)]
        pub struct $body {
            $($(#[$field_doc])* pub $field: $kind,)*
            /// An IANA zone (default `UTC`).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub timezone: Option<String>,
            /// What happens where the zone's clock jumps (default: no run is lost and none doubled).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub dst: Option<Dst>,
            /// Whether it fires (default true).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub enabled: Option<bool>,
            /// 0 to 9 (default 5); the higher goes first where attempts have to wait.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub priority: Option<u8>,
            /// Tries after the first (default 0); the same as `retry.max_retries`.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub max_retries: Option<u32>,
            /// Tries after the first.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub retry: Option<RetryBody>,
            /// Ends an attempt (default one hour, at most a week).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub timeout: Option<Period>,
            /// What becomes of ticks that nobody was there to commit in time.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub misfire: Option<MisfireBody>,
            /// A fire that has not started this long after its instant is missed (default and 0: never).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub start_deadline: Option<Period>,
            /// What becomes of a fire while another has not ended (default `allow`).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub concurrency: Option<ConcurrencyBody>,
            /// Each fire starts up to this much later than its instant, always equally much for one instant.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub jitter: Option<Period>,
            /// What an attempt does that is cut off from every coordinator (default `keep`).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub on_lease_lost: Option<OnLeaseLost>,
            /// Raise an alarm for a fire that has not succeeded this long after its instant (0: never).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub expected_by: Option<Period>,
            /// For people and filters; a `PUT` replaces all of them.
            #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "unique::some_map")]
            pub labels: Option<BTreeMap<String, String>>,
            /// How many ended fires are kept one by one.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub retention: Option<RetentionBody>,
            /// What it does (default nothing).
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub target: Option<JobTargetBody>,
        }

        impl $body {
            /// Changes what is given, and nothing else.
            fn options_into(&self, spec: &mut JobSpec, faults: &mut Faults) {
                let periods = Periods {
                    timeout: self.timeout.as_ref(),
                    start_deadline: self.start_deadline.as_ref(),
                    jitter: self.jitter.as_ref(),
                    expected_by: self.expected_by.as_ref(),
                };
                set(&mut spec.timezone, self.timezone.as_ref().and_then(|z| faults.take("timezone", z.parse())));
                periods.into_spec(spec, faults);
                set(&mut spec.target, self.target.as_ref().map(|t| t.check("target", faults)));
                set(&mut spec.dst, self.dst);
                set(&mut spec.enabled, self.enabled);
                set(&mut spec.priority, self.priority);
                retry_into(spec, self.max_retries, self.retry.as_ref(), faults);
                set(&mut spec.misfire, self.misfire.as_ref().map(|m| m.check(faults)));
                set(&mut spec.concurrency, self.concurrency.map(|c| c.check(faults)));
                set(&mut spec.on_lease_lost, self.on_lease_lost);
                set(&mut spec.labels, self.labels.clone());
                set(&mut spec.retention, self.retention.as_ref().map(|r| r.check(faults)));
                check_numbers(spec, faults);
            }
        }
    )*};
}

job_bodies! {
    /// `POST /api/v1/jobs`. `{name, schedule}` is enough.
    JobCreate {
        /// Unique in the cluster.
        name: String,
        /// A cron expression.
        schedule: String,
    }
    /// `PUT /api/v1/jobs/{id}`: fields that are absent stay as they are.
    JobUpdate {
        /// A new name.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// A new cron expression.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        schedule: Option<String>,
    }
}

fn set<T>(field: &mut T, given: Option<T>) {
    if let Some(given) = given {
        *field = given;
    }
}

struct Periods<'a> {
    timeout: Option<&'a Period>,
    start_deadline: Option<&'a Period>,
    jitter: Option<&'a Period>,
    expected_by: Option<&'a Period>,
}

impl Periods<'_> {
    fn into_spec(self, spec: &mut JobSpec, faults: &mut Faults) {
        let mut read =
            |field: &str, given: Option<&Period>| given.and_then(|p| faults.take(field, p.millis()));
        let timeout = read("timeout", self.timeout);
        let start_deadline = read("start_deadline", self.start_deadline);
        let jitter = read("jitter", self.jitter);
        let expected_by = read("expected_by", self.expected_by);
        set(&mut spec.timeout_ms, timeout);
        set(&mut spec.jitter_ms, jitter);
        set(&mut spec.start_deadline_ms, start_deadline.map(|ms| (ms > 0).then_some(ms)));
        set(&mut spec.expected_by_ms, expected_by.map(|ms| (ms > 0).then_some(ms)));
    }
}

fn retry_into(spec: &mut JobSpec, max_retries: Option<u32>, retry: Option<&RetryBody>, faults: &mut Faults) {
    if let Some(retry) = retry {
        let kept = spec.retry.max_retries;
        spec.retry = retry.check("retry", faults);
        if retry.max_retries.is_none() {
            spec.retry.max_retries = kept;
        }
        if retry.max_retries.zip(max_retries).is_some_and(|(a, b)| a != b) {
            faults.add("max_retries", "differs from retry.max_retries: give one of them");
        }
    }
    if let Some(max_retries) = max_retries {
        spec.retry.max_retries = max_retries;
        if max_retries > JobSpec::RETRIES_MAX {
            faults.add("max_retries", format!("must be at most {}", JobSpec::RETRIES_MAX));
        }
    }
}

fn check_numbers(spec: &JobSpec, faults: &mut Faults) {
    if spec.priority > JobSpec::PRIORITY_MAX {
        faults.add("priority", format!("must be 0 to {}", JobSpec::PRIORITY_MAX));
    }
    if !(1..=JobSpec::TIMEOUT_MAX_MS).contains(&spec.timeout_ms) {
        faults.add("timeout", format!("must be 1 to {} milliseconds (a week)", JobSpec::TIMEOUT_MAX_MS));
    }
    if spec.jitter_ms > JobSpec::JITTER_MAX_MS {
        faults.add("jitter", "must be at most a day");
    }
    if spec.start_deadline_ms.is_some_and(|deadline| deadline <= spec.jitter_ms) {
        faults.add("start_deadline", "must be longer than jitter: every fire would be missed");
    }
    check_labels(&spec.labels, faults);
}

fn check_labels(labels: &BTreeMap<String, String>, faults: &mut Faults) {
    if labels.len() > JobSpec::LABELS_MAX {
        faults.add("labels", format!("are more than {}", JobSpec::LABELS_MAX));
    }
    let is_key = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    for (key, value) in labels.iter().take(JobSpec::LABELS_MAX) {
        let shown: String = key.chars().take(80).collect();
        if key.is_empty() || key.len() > 63 || !key.chars().all(is_key) {
            faults.add(format!("labels.{shown}"), "must be 1 to 63 letters, digits, '.', '_', '-' or '/'");
        }
        if value.len() > 256 || value.chars().any(char::is_control) {
            faults.add(format!("labels.{shown}"), "must have at most 256 bytes, without control characters");
        }
    }
}

/// What a job is of which nothing but this is said.
fn usual(name: Name, schedule: Schedule) -> JobSpec {
    JobSpec {
        name,
        schedule,
        timezone: TimeZone::UTC,
        dst: Dst::default(),
        enabled: true,
        priority: JobSpec::PRIORITY_DEFAULT,
        timeout_ms: 3_600_000,
        target: JobTarget::Noop,
        retry: RetryPolicy::default(),
        misfire: Misfire::default(),
        start_deadline_ms: None,
        concurrency: Concurrency::default(),
        jitter_ms: 0,
        on_lease_lost: OnLeaseLost::default(),
        expected_by_ms: None,
        labels: BTreeMap::new(),
        retention: Retention::default(),
    }
}

/// Stands in while the options of a body are checked whose name or schedule is wrong, so that all faults are told.
fn stand_in() -> Option<JobSpec> {
    Some(usual("stand-in".parse().ok()?, "@daily".parse().ok()?))
}

impl TryFrom<&JobCreate> for JobSpec {
    type Error = Faults;
    fn try_from(body: &JobCreate) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let name = faults.take("name", body.name.parse());
        let schedule = faults.take("schedule", body.schedule.parse());
        let known = name.zip(schedule).map(|(name, schedule)| usual(name, schedule));
        let mut spec = known.or_else(stand_in);
        if let Some(spec) = &mut spec {
            body.options_into(spec, &mut faults);
        }
        faults.into_result(spec)
    }
}

impl JobUpdate {
    /// The job after the update.
    ///
    /// # Errors
    /// [`Faults`] name every field that is wrong.
    pub fn apply_to(&self, spec: &JobSpec) -> Result<JobSpec, Faults> {
        let mut faults = Faults::default();
        let mut new = spec.clone();
        set(&mut new.name, self.name.as_ref().and_then(|n| faults.take("name", n.parse())));
        set(&mut new.schedule, self.schedule.as_ref().and_then(|s| faults.take("schedule", s.parse())));
        self.options_into(&mut new, &mut faults);
        faults.into_result(Some(new))
    }
}
