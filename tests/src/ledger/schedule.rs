//! The jobs that are watched: all of them due each second.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use novacron_common::api::JobView;
use novacron_common::ids::JobId;
use reqwest::Method;
use serde_json::{Value, json};

use super::api::Api;

/// Due each second …
const EACH_SECOND: &str = "* * * * * *";
/// … which is this many milliseconds.
pub const PERIOD_MS: i64 = 1000;
/// How long the API may take for one request, over all retries.
const LIMIT: Duration = Duration::from_secs(60);

/// What a job of the schedule does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Nothing but its record in the ledger.
    Noop,
    /// The built-in target that appends one line to its host's record file.
    Record,
    /// A command in a namespace of its own that says who it is, when it begins and when it ends.
    Command,
}

/// A job of the schedule.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// What it does.
    pub kind: Kind,
}

/// What a [`Kind::Command`] prints: two lines, `run FIRE ATTEMPT EPOCH MILLISECONDS` and `end …`.
const SCRIPT: &str = "say() { echo $1 $NOVACRON_FIRE_ID $NOVACRON_ATTEMPT $NOVACRON_EPOCH $(date +%s%3N); }; \
                      say run; sleep 0.2; say end";

impl Kind {
    /// Whether its attempts write down that they ran.
    #[must_use]
    pub fn is_traced(self) -> bool {
        match self {
            Self::Noop => false,
            Self::Record | Self::Command => true,
        }
    }

    fn target(self) -> Value {
        match self {
            Self::Noop => json!({"type": "noop"}),
            Self::Record => json!({"type": "record"}),
            Self::Command => json!({"type": "command", "command": ["/bin/sh", "-c", SCRIPT]}),
        }
    }
}

/// Makes `count` jobs of a kind.
///
/// # Errors
/// When the API refuses one.
pub async fn make(api: &Api, kind: Kind, count: usize) -> Result<Vec<Job>> {
    let mut jobs = Vec::with_capacity(count);
    for number in 0..count {
        let name = format!("{kind:?}-{number}").to_lowercase();
        let body = json!({
            "name": name, "schedule": EACH_SECOND, "target": kind.target(), "timeout": "30s", "max_retries": 3,
        });
        let answer = api.insist(Method::POST, "/api/v1/jobs", Some(&body), LIMIT).await?;
        let view: JobView = answer.into().with_context(|| format!("making {name}"))?;
        jobs.push(Job { id: view.id, kind });
    }
    Ok(jobs)
}

/// Ends the schedule. Doing so twice does no harm.
///
/// # Errors
/// When the API refuses.
pub async fn stop(api: &Api, jobs: &[Job]) -> Result<()> {
    for job in jobs {
        let body = json!({"enabled": false});
        let path = format!("/api/v1/jobs/{}", job.id);
        let answer = api.insist(Method::PUT, &path, Some(&body), LIMIT).await?;
        answer.into::<JobView>().with_context(|| format!("stopping {}", job.id))?;
    }
    Ok(())
}

/// This machine's clock, Unix milliseconds. All programs of the lab read the same one.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
