//! Whether this coordinator's clock agrees with the others': a pure decision over samples.
//!
//! A sample is taken as NTP takes it (RFC 5905, section 8): the peer's clock against the middle of our question and
//! its answer, uncertain by half the round trip. The median of a majority cannot be moved by a minority of bad clocks.

use super::types::NodeId;
use std::{collections::BTreeMap, time::Duration};

/// A leader whose clock is further from the majority's median does not fire.
pub const CLOCK_OFF_MAX: Duration = Duration::from_millis(500);

/// What a coordinator may say of its own clock.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClockVerdict {
    /// Too few others were heard to say; nobody else is asked where there is nobody else.
    #[default]
    Unknown,
    /// It agrees with the majority.
    Agrees,
    /// It does not.
    Off {
        /// How far the majority's median is ahead of it, milliseconds; negative if behind.
        median_ahead_ms: i64,
    },
}

impl ClockVerdict {
    /// Whether a leader with this clock may fire what is due. One that knows nothing of the others may: a leader
    /// hears a majority, so that this is a matter of its first second.
    pub const fn may_fire(self) -> bool {
        !matches!(self, Self::Off { .. })
    }
}

/// One comparison with a peer's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClockSample {
    /// How far the peer's clock is ahead of ours, milliseconds.
    pub ahead_ms: i64,
    /// By how much that may be wrong.
    pub uncertainty: Duration,
}

impl ClockSample {
    /// From our clock when we asked, the peer's when it answered, and the time between question and answer.
    pub fn new(asked_ms: i64, theirs_ms: i64, round_trip: Duration) -> Self {
        let half = round_trip / 2;
        let middle = asked_ms.saturating_add(i64::try_from(half.as_millis()).unwrap_or(i64::MAX));
        Self { ahead_ms: theirs_ms.saturating_sub(middle), uncertainty: half }
    }

    /// A sample that says nothing: its answer took too long.
    pub fn is_vague(&self) -> bool {
        self.uncertainty > CLOCK_OFF_MAX / 4
    }
}

/// Judges our own clock by what `voters` showed; `samples` are of the others, at most one each.
pub fn judge(own: NodeId, voters: &[NodeId], samples: &BTreeMap<NodeId, ClockSample>) -> ClockVerdict {
    let others = voters.iter().filter(|node| **node != own).filter_map(|node| samples.get(node));
    let mut ahead: Vec<i64> =
        others.filter(|sample| !sample.is_vague()).map(|sample| sample.ahead_ms).collect();
    if voters.contains(&own) {
        ahead.push(0);
    }
    if voters.len() < 2 || ahead.len() <= voters.len() / 2 {
        return ClockVerdict::Unknown;
    }
    ahead.sort_unstable();
    let median_ahead_ms = median(&ahead);
    match Duration::from_millis(median_ahead_ms.unsigned_abs()) > CLOCK_OFF_MAX {
        true => ClockVerdict::Off { median_ahead_ms },
        false => ClockVerdict::Agrees,
    }
}

/// Of a sorted, non-empty list; of two middle ones the mean.
fn median(sorted: &[i64]) -> i64 {
    let half = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0);
    match sorted.len() % 2 {
        0 => at(half.saturating_sub(1)).midpoint(at(half)),
        _ => at(half),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(voters: &[NodeId], ahead: &[(NodeId, i64)]) -> ClockVerdict {
        let sample = |ms| ClockSample { ahead_ms: ms, uncertainty: Duration::from_millis(1) };
        judge(1, voters, &ahead.iter().map(|(node, ms)| (*node, sample(*ms))).collect())
    }

    #[test]
    fn ours_is_off_when_both_others_say_so() {
        let off = ClockVerdict::Off { median_ahead_ms: 600 };
        assert_eq!(judged(&[1, 2, 3], &[(2, 600), (3, 650)]), off);
        assert_eq!(judged(&[1, 2, 3], &[(2, -700), (3, -900)]), ClockVerdict::Off { median_ahead_ms: -700 });
        assert!(!off.may_fire());
    }

    #[test]
    fn one_bad_clock_of_three_is_not_the_median() {
        assert_eq!(judged(&[1, 2, 3], &[(2, 3_600_000), (3, 20)]), ClockVerdict::Agrees);
        assert_eq!(judged(&[1, 2, 3], &[(2, -10), (3, -3_600_000)]), ClockVerdict::Agrees);
        assert_eq!(judged(&[1, 2, 3, 4, 5], &[(2, 9000), (3, 9000), (4, 1), (5, 2)]), ClockVerdict::Agrees);
    }

    #[test]
    fn the_limit_itself_is_still_right() {
        assert_eq!(judged(&[1, 2, 3], &[(2, 500), (3, 500)]), ClockVerdict::Agrees);
        assert_eq!(judged(&[1, 2, 3], &[(2, 501), (3, 501)]), ClockVerdict::Off { median_ahead_ms: 501 });
    }

    #[test]
    fn a_minority_is_no_witness() {
        assert_eq!(judged(&[1, 2, 3], &[]), ClockVerdict::Unknown);
        assert_eq!(judged(&[1, 2, 3, 4, 5], &[(2, 9000)]), ClockVerdict::Unknown);
        assert_eq!(judged(&[1], &[]), ClockVerdict::Unknown);
        assert_eq!(judged(&[1, 2, 3], &[(7, 9000), (8, 9000)]), ClockVerdict::Unknown, "not voters");
        assert!(ClockVerdict::Unknown.may_fire());
    }

    #[test]
    fn of_two_that_differ_neither_is_trusted() {
        assert_eq!(judged(&[1, 2], &[(2, 1200)]), ClockVerdict::Off { median_ahead_ms: 600 });
        assert_eq!(judged(&[1, 2], &[(2, 900)]), ClockVerdict::Agrees);
    }

    #[test]
    fn the_round_trip_is_taken_into_account() {
        let sample = ClockSample::new(1_000, 1_250, Duration::from_millis(100));
        assert_eq!(sample, ClockSample { ahead_ms: 200, uncertainty: Duration::from_millis(50) });
        assert!(!sample.is_vague());
        let slow = ClockSample::new(0, 9_000, Duration::from_secs(2));
        assert!(slow.is_vague());
        assert_eq!(judge(1, &[1, 2, 3], &[(2, slow), (3, slow)].into()), ClockVerdict::Unknown);
    }
}
