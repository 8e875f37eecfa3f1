//! How a machine is asked whether it is well, over HTTP.

use super::parse_duration;
use crate::spec::{Faults, HealthSpec, HealthTest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A command that is run in a namespace machine again and again, with the machine's own limits and rights: the machine is healthy
/// while it succeeds. What is left out is as the image says (`HEALTHCHECK`), or else as Docker has it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthBody {
    /// Run by the machine's `/bin/sh -c`; exit code 0 is healthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// Between an answer and the next question, such as `30s` (default 30s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<String>,
    /// How long an answer may take (default 30s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// So many failures in a row, and the machine is unhealthy (default 3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<u32>,
    /// How long after its start failures do not count, until the first success (default 0s).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<String>,
    /// Nobody asks, whatever the image says.
    #[serde(default)]
    pub disable: bool,
}

impl HealthBody {
    /// Checks it as the field `health` of a request.
    pub fn check(&self, faults: &mut Faults) -> HealthSpec {
        let mut period = |name: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            let ms = parse_duration(text);
            if ms.is_none() {
                faults.add(format!("health.{name}"), "must be a length of time such as 500ms, 30s or 5m");
            }
            ms
        };
        let (interval_ms, timeout_ms) =
            (period("interval", &self.interval), period("timeout", &self.timeout));
        let start_period_ms = period("start_period", &self.start_period);
        let test = self.cmd.clone().map(HealthTest::Shell);
        if self.disable && *self != (Self { disable: true, ..Self::default() }) {
            faults.add("health.disable", "must stand alone: nobody asks then");
        }
        let test = if self.disable { Some(HealthTest::Off) } else { test };
        let spec = HealthSpec { test, interval_ms, timeout_ms, retries: self.retries, start_period_ms };
        spec.check("health", faults);
        spec
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(body: &HealthBody) -> Result<HealthSpec, Faults> {
        let mut faults = Faults::default();
        let spec = body.check(&mut faults);
        faults.into_result(Some(spec))
    }

    #[test]
    fn lengths_of_time_are_written_with_their_unit() {
        let body = HealthBody {
            cmd: Some("true".into()),
            interval: Some("5s".into()),
            timeout: Some("1m".into()),
            start_period: Some("500ms".into()),
            ..HealthBody::default()
        };
        let spec = checked(&body).unwrap();
        assert_eq!(spec.test, Some(HealthTest::Shell("true".into())));
        assert_eq!((spec.interval_ms, spec.timeout_ms), (Some(5000), Some(60_000)));
        assert_eq!((spec.start_period_ms, spec.retries), (Some(500), None));
        let wrong = checked(&HealthBody { interval: Some("5".into()), ..body }).unwrap_err();
        assert_eq!(wrong.0[0].field, "health.interval");
    }

    #[test]
    fn a_check_that_is_disabled_has_nothing_else() {
        let off = HealthBody { disable: true, ..HealthBody::default() };
        assert_eq!(checked(&off).unwrap().test, Some(HealthTest::Off));
        let both = HealthBody { cmd: Some("true".into()), ..off };
        assert_eq!(checked(&both).unwrap_err().0[0].field, "health.disable");
    }
}
