//! An image's `HEALTHCHECK`: `Healthcheck` of Docker's image configuration (`HealthConfig` of its `spec.md`), which the OCI's
//! specification reserves the name of.

use super::{ManifestFault, checked};
use novacron_common::spec::{HealthSpec, HealthTest};
use serde::Deserialize;

const NANOSECONDS_PER_MS: i64 = 1_000_000;

/// As it is written. A length of time of 0 says nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Raw {
    test: Option<Vec<String>>,
    interval: i64,
    timeout: i64,
    start_period: i64,
    retries: i64,
}

impl Raw {
    /// What it says.
    ///
    /// # Errors
    /// [`ManifestFault::Words`] if its command is absurd.
    pub(super) fn check(self) -> Result<HealthSpec, ManifestFault> {
        let period = |nanoseconds: i64| {
            let ms = u64::try_from(nanoseconds / NANOSECONDS_PER_MS).ok()?;
            (nanoseconds > 0).then_some(ms)
        };
        Ok(HealthSpec {
            test: test(checked("health check", self.test.unwrap_or_default())?),
            interval_ms: period(self.interval),
            timeout_ms: period(self.timeout),
            retries: u32::try_from(self.retries).ok().filter(|retries| *retries > 0),
            start_period_ms: period(self.start_period),
        })
    }
}

/// The first word says of what kind the rest is.
fn test(words: Vec<String>) -> Option<HealthTest> {
    let (kind, rest) = words.split_first()?;
    match (kind.as_str(), rest) {
        ("NONE", _) => Some(HealthTest::Off),
        ("CMD-SHELL", [command, ..]) => Some(HealthTest::Shell(command.clone())),
        ("CMD", [_, ..]) => Some(HealthTest::Exec(rest.to_vec())),
        _ => None,
    }
}
