//! Jobs over HTTP.

use crate::{
    ids::{FireCause, HostId, JobId},
    spec::{CommandTarget, Faults, JobSpec, JobTarget, Root, TimeZone},
    units::{ByteCount, UnixMillis},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use utoipa::ToSchema;

/// A time-out: a number of milliseconds, or a text such as `"30s"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Timeout {
    /// Milliseconds.
    Millis(u64),
    /// A number with a unit: `ms`, `s`, `m` or `h`.
    Text(String),
}

impl Timeout {
    fn millis(&self) -> Result<u64, String> {
        match self {
            Self::Millis(n) => Ok(*n),
            Self::Text(text) => {
                parse_duration(text).ok_or_else(|| format!("{text:?} is no duration: write 30000 or \"30s\""))
            }
        }
    }
}

fn parse_duration(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let factor = match &text[split..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    text[..split].parse::<u64>().ok()?.checked_mul(factor)
}

/// A command in a throw-away namespace machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommandTargetBody {
    /// Program and arguments; no shell is added.
    pub command: Vec<String>,
    /// Variables.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Where it starts (default `/`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub working_dir: Option<String>,
    /// RAM in MiB (default 256).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mb: Option<u64>,
    /// Processes (default 256).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pids: Option<u32>,
    /// Thousandths of a CPU (default 1000).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u32>,
}

/// What a fire does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum JobTargetBody {
    /// Nothing but its own record (the default).
    Noop,
    /// A command in a throw-away namespace machine.
    Command(CommandTargetBody),
}

impl CommandTargetBody {
    /// Most bytes in arguments and environment together.
    const TEXT_MAX: usize = 32 * 1024;

    fn check(&self, faults: &mut Faults) -> CommandTarget {
        if self.command.first().is_none_or(String::is_empty) {
            faults.add("target.command", "names no program");
        }
        let text = self.command.iter().map(String::len).sum::<usize>()
            + self.env.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
        if text > Self::TEXT_MAX {
            faults.add("target.command", format!("and env have more than {} bytes together", Self::TEXT_MAX));
        }
        let has_nul = |s: &String| s.contains('\0');
        if self.command.iter().any(has_nul) || self.env.iter().any(|(k, v)| has_nul(k) || has_nul(v)) {
            faults.add("target.command", "or env has a NUL character");
        }
        for key in self.env.keys().filter(|k| k.is_empty() || k.contains('=') || k.starts_with("NOVACRON_")) {
            faults.add(
                format!("target.env.{key}"),
                "is no name for a variable, or one that NovaCron sets itself",
            );
        }
        if self.working_dir.as_ref().is_some_and(|d| !d.starts_with('/')) {
            faults.add("target.working_dir", "must be an absolute path");
        }
        let memory_mb = self.memory_mb.unwrap_or(256);
        if !(4..=1 << 20).contains(&memory_mb) {
            faults.add("target.memory_mb", "must be 4 to 1048576");
        }
        let pids = self.pids.unwrap_or(256);
        if !(1..=32_768).contains(&pids) {
            faults.add("target.pids", "must be 1 to 32768");
        }
        let cpu_millis = self.cpu_millis.unwrap_or(1000);
        if !(10..=512_000).contains(&cpu_millis) {
            faults.add("target.cpu_millis", "must be 10 to 512000");
        }
        CommandTarget {
            argv: self.command.clone(),
            env: self.env.iter().map(|(k, v)| (k.clone(), v.clone())).collect(),
            working_dir: self.working_dir.clone(),
            memory_max: ByteCount(memory_mb.min(1 << 20) << 20),
            pids_max: pids,
            cpu_millis,
            root: Root::Host,
        }
    }
}

impl JobTargetBody {
    fn check(&self, faults: &mut Faults) -> JobTarget {
        match self {
            Self::Noop => JobTarget::Noop,
            Self::Command(command) => JobTarget::Command(command.check(faults)),
        }
    }
}

impl From<&JobTarget> for JobTargetBody {
    fn from(target: &JobTarget) -> Self {
        match target {
            JobTarget::Noop => Self::Noop,
            JobTarget::Command(c) => Self::Command(CommandTargetBody {
                command: c.argv.clone(),
                env: c.env.iter().cloned().collect(),
                working_dir: c.working_dir.clone(),
                memory_mb: Some(c.memory_max.as_mib()),
                pids: Some(c.pids_max),
                cpu_millis: Some(c.cpu_millis),
            }),
        }
    }
}

/// `POST /api/v1/jobs`. `{name, schedule}` is enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobCreate {
    /// Unique in the cluster.
    pub name: String,
    /// A cron expression.
    pub schedule: String,
    /// An IANA zone (default `UTC`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Whether it fires (default true).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// 0 to 9 (default 5).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Tries after the first (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Ends an attempt (default one hour).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// What it does (default nothing).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<JobTargetBody>,
}

/// `PUT /api/v1/jobs/{id}`: fields that are absent stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JobUpdate {
    /// A new name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// A new cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// Another zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// Whether it fires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// Another priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<u8>,
    /// Another number of tries.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Another time-out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Timeout>,
    /// Another target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<JobTargetBody>,
}

impl JobUpdate {
    /// The job after the update.
    ///
    /// # Errors
    /// [`Faults`] name every field that is wrong.
    pub fn apply_to(&self, spec: &JobSpec) -> Result<JobSpec, Faults> {
        let mut faults = Faults::default();
        let mut new = spec.clone();
        if let Some(name) = self.name.as_ref().and_then(|n| faults.take("name", n.parse())) {
            new.name = name;
        }
        if let Some(schedule) = self.schedule.as_ref().and_then(|s| faults.take("schedule", s.parse())) {
            new.schedule = schedule;
        }
        if let Some(zone) = self.timezone.as_ref().and_then(|z| faults.take("timezone", z.parse())) {
            new.timezone = zone;
        }
        if let Some(timeout) = self.timeout.as_ref().and_then(|t| faults.take("timeout", t.millis())) {
            new.timeout_ms = timeout;
        }
        if let Some(target) = &self.target {
            new.target = target.check(&mut faults);
        }
        new.enabled = self.enabled.unwrap_or(new.enabled);
        new.priority = self.priority.unwrap_or(new.priority);
        new.max_retries = self.max_retries.unwrap_or(new.max_retries);
        check_numbers(&new, &mut faults);
        faults.into_result(Some(new))
    }
}

fn check_numbers(spec: &JobSpec, faults: &mut Faults) {
    if spec.priority > JobSpec::PRIORITY_MAX {
        faults.add("priority", format!("must be 0 to {}", JobSpec::PRIORITY_MAX));
    }
    if spec.max_retries > JobSpec::RETRIES_MAX {
        faults.add("max_retries", format!("must be at most {}", JobSpec::RETRIES_MAX));
    }
    if !(1..=JobSpec::TIMEOUT_MAX_MS).contains(&spec.timeout_ms) {
        faults.add("timeout", format!("must be 1 to {} milliseconds (a week)", JobSpec::TIMEOUT_MAX_MS));
    }
}

impl TryFrom<&JobCreate> for JobSpec {
    type Error = Faults;
    fn try_from(body: &JobCreate) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let name = faults.take("name", body.name.parse());
        let schedule = faults.take("schedule", body.schedule.parse());
        let timezone = match &body.timezone {
            Some(zone) => faults.take("timezone", zone.parse()),
            None => Some(TimeZone::UTC),
        };
        let timeout_ms = match &body.timeout {
            Some(timeout) => faults.take("timeout", timeout.millis()).unwrap_or(1),
            None => u64::try_from(Duration::from_secs(3600).as_millis()).unwrap_or(u64::MAX),
        };
        let target = body.target.as_ref().map_or(JobTarget::Noop, |t| t.check(&mut faults));
        let spec = name.zip(schedule).zip(timezone).map(|((name, schedule), timezone)| Self {
            name,
            schedule,
            timezone,
            enabled: body.enabled.unwrap_or(true),
            priority: body.priority.unwrap_or(5),
            max_retries: body.max_retries.unwrap_or(0),
            timeout_ms,
            target,
        });
        if let Some(spec) = &spec {
            check_numbers(spec, &mut faults);
        }
        faults.into_result(spec)
    }
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
    /// Milliseconds.
    pub timeout: u64,
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
            max_retries: spec.max_retries,
            timeout: spec.timeout_ms,
            target: (&spec.target).into(),
            next_fire_at: None,
            last_fire_at: None,
            fires: 0,
            succeeded: 0,
            failed: 0,
            created_at,
        }
    }
}

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
    /// Cancelled before it ran.
    Cancelled,
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
    /// Every try so far.
    pub attempts: Vec<AttemptView>,
}

/// `202` of `POST /api/v1/jobs/{id}/execute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ExecuteAccepted {
    /// The fire that was committed.
    pub fire: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_body_is_taken_as_it_stands() {
        let body = r#"{"name":"data-pipeline","schedule":"0 2 * * *","timezone":"UTC","enabled":true,
                       "priority":5,"max_retries":3,"timeout":30000}"#;
        let body: JobCreate = serde_json::from_str(body).unwrap();
        let spec = JobSpec::try_from(&body).unwrap();
        assert_eq!((spec.timeout_ms, spec.priority, spec.max_retries), (30_000, 5, 3));
    }

    #[test]
    fn every_fault_is_named_at_once() {
        let body: JobCreate =
            serde_json::from_str(r#"{"name":"a b","schedule":"x","timezone":"Mars/Base","timeout":"1y"}"#)
                .unwrap();
        let faults = JobSpec::try_from(&body).unwrap_err();
        let fields: Vec<_> = faults.0.iter().map(|f| f.field.as_str()).collect();
        assert_eq!(fields, ["name", "schedule", "timezone", "timeout"]);
    }

    #[test]
    fn a_partial_update_leaves_the_rest() {
        let create: JobCreate = serde_json::from_str(r#"{"name":"a","schedule":"@daily"}"#).unwrap();
        let spec = JobSpec::try_from(&create).unwrap();
        let update: JobUpdate = serde_json::from_str(r#"{"name":"b","enabled":false}"#).unwrap();
        let new = update.apply_to(&spec).unwrap();
        assert_eq!((new.name.as_str(), new.enabled, new.schedule), ("b", false, spec.schedule));
    }

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("30s"), Some(30_000));
        assert_eq!(parse_duration("250ms"), Some(250));
        for bad in ["", "s", "30", "30d", "-1s", "99999999999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
