//! The request for a move, and what is wrong with it.

use super::Period;
use crate::{
    ids::GangId,
    record::{MoveLimits, Strategy},
    spec::Faults,
};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU32;
use utoipa::ToSchema;

/// Shorter than any copy takes, milliseconds.
const DEADLINE_MS_MIN: u64 = 1000;
/// A week, milliseconds.
const DEADLINE_MS_MAX: u64 = 7 * 24 * 3_600_000;

fn yes() -> bool {
    true
}

/// `POST /api/v1/vms/{id}/migrate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MigrateRequest {
    /// A host's name or id; without it the placement decides and says why.
    #[serde(default, alias = "target_node", skip_serializing_if = "Option::is_none")]
    pub target_host: Option<String>,
    /// `true` (default) moves it running; `false` stops it, moves it and starts it again.
    #[serde(default = "yes")]
    pub live: bool,
    /// The longest pause of the guest that may be planned for (default 300): milliseconds, or a text such as `"2s"`. With
    /// `stop_and_copy` there is no limit unless it is given here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_downtime_ms: Option<Period>,
    /// How much of its processors' time may be withheld from a guest that changes its memory too fast: 0 (default) to 99
    /// percent. Only `auto` withholds any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_slowdown_pct: Option<u32>,
    /// How long the copy may take: milliseconds, or a text such as `"10m"`. What has not arrived by then is fully back.
    /// Without it, a copy goes on for as long as it converges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Period>,
    /// `auto` (default), `precopy`, `stop_and_copy` or `postcopy`; the last only for a machine with `post_copy`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<Strategy>,
    /// Moves of one gang from one host to another take turns, in the order in which they were asked for, and what one
    /// machine has in memory as another that went before it crosses as a reference. Any new id makes a gang; only live
    /// moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<GangId>,
    /// What this move may take of its host's link, Mbit (10⁶ bits) a second, beside what the host's configuration allows all
    /// its moves together. For moves of stopped machines, too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_mbit: Option<u32>,
    /// Compares the disk that was copied with the one it was copied from, both read anew. Meanwhile the machine stands still; if they
    /// differ, it is the source's again and starts from its disk there. Not with `postcopy`, in which it runs before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub verify_disk: bool,
}

impl MigrateRequest {
    /// What the move has to keep to.
    ///
    /// # Errors
    /// [`Faults`] name every field that is wrong, or that contradicts another.
    pub fn limits(&self) -> Result<MoveLimits, Faults> {
        let mut faults = Faults::default();
        let strategy = self.strategy.unwrap_or_default();
        let deadline_ms = self.deadline.as_ref().and_then(|given| deadline(given, &mut faults));
        let max_downtime_ms = self.max_downtime_ms.as_ref().and_then(|given| pause(given, &mut faults));
        let max_slowdown_pct = slowdown(self.max_slowdown_pct.unwrap_or(0), strategy, &mut faults);
        if let Some((pause, deadline)) = max_downtime_ms.zip(deadline_ms)
            && u64::from(pause) >= deadline
        {
            faults
                .add("max_downtime_ms", "must be shorter than the deadline, which has room for the copy too");
        }
        let bandwidth_mbit = self.bandwidth_mbit.and_then(|given| bandwidth(given, &mut faults));
        self.refuse_limits_of_a_stopped_move(&mut faults);
        let verify_disk = self.verify_disk;
        if verify_disk && strategy == Strategy::Postcopy {
            faults
                .add("verify_disk", "needs a machine that waits for it: leave out the strategy \"postcopy\"");
        }
        let limits = MoveLimits {
            strategy,
            max_downtime_ms,
            max_slowdown_pct,
            deadline_ms,
            bandwidth_mbit,
            verify_disk,
        };
        faults.into_result(Some(limits))
    }

    fn refuse_limits_of_a_stopped_move(&self, faults: &mut Faults) {
        let given = [
            ("max_downtime_ms", self.max_downtime_ms.is_some()),
            ("max_slowdown_pct", self.max_slowdown_pct.is_some()),
            ("deadline", self.deadline.is_some()),
            ("strategy", self.strategy.is_some()),
            ("gang", self.gang.is_some()),
        ];
        for (field, _) in given.into_iter().filter(|(_, given)| *given && !self.live) {
            faults.add(
                field,
                "is for a live move: leave it out, or leave out \"live\": false, which stops the guest first",
            );
        }
    }
}

fn pause(given: &Period, faults: &mut Faults) -> Option<u32> {
    const FIELD: &str = "max_downtime_ms";
    let millis = faults.take(FIELD, given.millis())?;
    let fits = u32::try_from(millis).ok().filter(|ms| (1..=MoveLimits::PAUSE_MS_MAX).contains(ms));
    if fits.is_none() {
        faults.add(
            FIELD,
            format!(
                "must be 1 to {} (milliseconds): no live move is without a pause",
                MoveLimits::PAUSE_MS_MAX
            ),
        );
    }
    fits
}

fn deadline(given: &Period, faults: &mut Faults) -> Option<u64> {
    let millis = faults.take("deadline", given.millis())?;
    let fits = (DEADLINE_MS_MIN..=DEADLINE_MS_MAX).contains(&millis);
    if !fits {
        faults.add("deadline", "must be 1s to 7d from the beginning of the copy (a number is milliseconds)");
    }
    fits.then_some(millis)
}

fn bandwidth(mbit: u32, faults: &mut Faults) -> Option<NonZeroU32> {
    let fits = NonZeroU32::new(mbit);
    if fits.is_none() {
        faults.add("bandwidth_mbit", "must be 1 or more (Mbit a second); leave it out for no limit");
    }
    fits
}

fn slowdown(percent: u32, strategy: Strategy, faults: &mut Faults) -> u8 {
    const FIELD: &str = "max_slowdown_pct";
    let fits = u8::try_from(percent).ok().filter(|percent| *percent <= MoveLimits::SLOWDOWN_PCT_MAX);
    if fits.is_none() {
        faults.add(FIELD, "must be 0 to 99 (percent of the processors' time)");
    }
    if percent > 0 && strategy != Strategy::Auto {
        faults.add(FIELD, "needs the strategy \"auto\": no other one ever slows the guest");
    }
    fits.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(body: &str) -> Result<MoveLimits, Vec<String>> {
        let request: MigrateRequest = serde_json::from_str(body).unwrap();
        request.limits().map_err(|faults| faults.0.into_iter().map(|fault| fault.field).collect())
    }

    #[test]
    fn both_names_of_the_target_are_taken() {
        for body in [r#"{"target_host":"node-2","live":true}"#, r#"{"target_node":"node-2"}"#] {
            let request: MigrateRequest = serde_json::from_str(body).unwrap();
            assert_eq!(request.target_host.as_deref(), Some("node-2"));
            assert!(request.live);
        }
        assert!(serde_json::from_str::<MigrateRequest>(r#"{"targt_host":"x"}"#).is_err());
    }

    #[test]
    fn lengths_of_time_are_numbers_or_texts() {
        let wanted = MoveLimits {
            strategy: Strategy::Auto,
            max_downtime_ms: Some(2000),
            max_slowdown_pct: 30,
            deadline_ms: Some(600_000),
            bandwidth_mbit: NonZeroU32::new(400),
            verify_disk: true,
        };
        for body in [
            r#"{"max_downtime_ms": 2000, "max_slowdown_pct": 30, "deadline": 600000, "bandwidth_mbit": 400,
                "verify_disk": true}"#,
            r#"{"max_downtime_ms": "2s", "max_slowdown_pct": 30, "deadline": "10m", "strategy": "auto",
                "bandwidth_mbit": 400, "verify_disk": true}"#,
        ] {
            assert_eq!(limits(body), Ok(wanted), "{body}");
        }
    }

    #[test]
    fn who_sets_no_limits_gets_the_gentle_ones() {
        let limits = limits("{}").unwrap();
        assert_eq!(limits, MoveLimits::default());
        assert_eq!((limits.pause_ms(), limits.max_slowdown_pct, limits.strategy), (300, 0, Strategy::Auto));
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        for (body, field) in [
            (r#"{"max_downtime_ms": 0}"#, "max_downtime_ms"),
            (r#"{"max_downtime_ms": 2000001}"#, "max_downtime_ms"),
            (r#"{"max_downtime_ms": 99999999999}"#, "max_downtime_ms"),
            (r#"{"max_downtime_ms": "soon"}"#, "max_downtime_ms"),
            (r#"{"max_slowdown_pct": 100}"#, "max_slowdown_pct"),
            (r#"{"max_slowdown_pct": 4000000000}"#, "max_slowdown_pct"),
            (r#"{"deadline": 999}"#, "deadline"),
            (r#"{"deadline": "8d"}"#, "deadline"),
            (r#"{"deadline": "-1s"}"#, "deadline"),
            (r#"{"bandwidth_mbit": 0}"#, "bandwidth_mbit"),
        ] {
            assert_eq!(limits(body), Err(vec![field.to_owned()]), "{body}");
        }
        let unknown = serde_json::from_str::<MigrateRequest>(r#"{"strategy": "magic"}"#).unwrap_err();
        assert!(unknown.to_string().contains("stop_and_copy"), "{unknown}");
    }

    #[test]
    fn contradictions_are_named() {
        let stopped = r#"{"live": false, "max_downtime_ms": 5, "deadline": "10m", "strategy": "auto"}"#;
        assert_eq!(
            limits(stopped),
            Err(["max_downtime_ms", "deadline", "strategy"].map(str::to_owned).into())
        );
        for strategy in ["precopy", "stop_and_copy", "postcopy"] {
            let slowed = format!(r#"{{"max_slowdown_pct": 10, "strategy": "{strategy}"}}"#);
            assert_eq!(limits(&slowed), Err(vec!["max_slowdown_pct".to_owned()]));
            let not_slowed = format!(r#"{{"max_slowdown_pct": 0, "strategy": "{strategy}"}}"#);
            assert!(limits(&not_slowed).is_ok());
        }
        let longer = r#"{"max_downtime_ms": "20s", "deadline": "10s"}"#;
        assert_eq!(limits(longer), Err(vec!["max_downtime_ms".to_owned()]));
        let runs_before = r#"{"verify_disk": true, "strategy": "postcopy"}"#;
        assert_eq!(limits(runs_before), Err(vec!["verify_disk".to_owned()]));
        assert!(!limits(r#"{"verify_disk": true}"#).unwrap().may_split(), "auto may not go over either");
        assert_eq!(limits(r#"{"live": false}"#), Ok(MoveLimits::default()));
        let slow = MoveLimits { bandwidth_mbit: NonZeroU32::new(9), ..MoveLimits::default() };
        assert_eq!(limits(r#"{"live": false, "bandwidth_mbit": 9}"#), Ok(slow), "a disk takes the link, too");
    }
}
