//! Holds an implementation against the oracle around every offset change of every zone.

use crate::{
    dice::Dice,
    line::Line,
    oracle::{Walk, shown_at},
    zones::Zone,
};
use novacron_common::{
    spec::{Dst, Fold, Gap, Schedule, TimeZone, schedule::BadSchedule},
    units::UnixMillis,
};
use std::{collections::BTreeSet, ops::AddAssign, ops::Bound};

/// What is checked: the product's `next_after`, or one with a planted mistake.
pub type Candidate = fn(&Schedule, TimeZone, Dst, UnixMillis) -> Option<UnixMillis>;

const HOUR: i64 = 3600;
/// So many ticks of a line are asked for one after the other.
const TICKS_IN_TURN: usize = 200;
const POLICIES: [Dst; 9] = {
    const fn of(gap: Gap, fold: Fold) -> Dst {
        Dst { gap, fold }
    }
    [
        of(Gap::RunAtGapEnd, Fold::First),
        of(Gap::RunAtGapEnd, Fold::Second),
        of(Gap::RunAtGapEnd, Fold::Both),
        of(Gap::Skip, Fold::First),
        of(Gap::Skip, Fold::Second),
        of(Gap::Skip, Fold::Both),
        of(Gap::RunBefore, Fold::First),
        of(Gap::RunBefore, Fold::Second),
        of(Gap::RunBefore, Fold::Both),
    ]
};

/// What a run has looked at.
#[derive(Debug, Default, Clone, Copy)]
pub struct Covered {
    pub changes: u64,
    pub lines: u64,
    pub ticks: u64,
    pub steps: u64,
}

impl AddAssign for Covered {
    fn add_assign(&mut self, more: Self) {
        self.changes += more.changes;
        self.lines += more.lines;
        self.ticks += more.ticks;
        self.steps += more.steps;
    }
}

/// How much is looked at around each change.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Lines of five fields; the window is 36 hours to either side.
    pub lines: u64,
    /// Lines with seconds; the window is two hours to either side. So many in a hundred changes get them.
    pub percent_with_seconds: u64,
    pub seed: u64,
}

/// Every change of this zone; the first disagreement ends it.
pub fn check(zone: &Zone, effort: Effort, candidate: Candidate) -> Result<Covered, String> {
    let mut covered = Covered::default();
    for change in &zone.changes {
        let mut dice = Dice::new(effort.seed ^ (*change as u64).rotate_left(20) ^ zone.tz as u64);
        let around = Around { zone, change: *change, candidate };
        covered += around.check(&mut dice, effort.lines, 36 * HOUR, 60)?;
        if dice.within(0, 99) < effort.percent_with_seconds as i64 {
            covered += around.check(&mut dice, 1 + effort.lines / 4, 2 * HOUR, 1)?;
        }
        covered.changes += 1;
    }
    Ok(covered)
}

struct Around<'a> {
    zone: &'a Zone,
    change: i64,
    candidate: Candidate,
}

impl Around<'_> {
    fn check(&self, dice: &mut Dice, lines: u64, reach: i64, step: i64) -> Result<Covered, String> {
        let (from, to) = (self.change / 60 * 60 - reach, self.change / 60 * 60 + reach);
        let shown = |at| shown_at(self.zone.tz, at);
        let jump = (shown(self.change) - shown(self.change - 1) - 1).abs();
        // What is shown twice or left out in the window has its twin or its end at most this far away.
        let margin = 2 * jump + HOUR;
        let walk = Walk::new(self.zone.tz, from - margin, to + margin, step);
        if !walk.sees_all() {
            return self.check(dice, 1, HOUR.min(reach), 1);
        }
        let mut covered = Covered { steps: walk.steps() as u64, ..Covered::default() };
        for _ in 0..lines {
            let near = self.change + dice.within(-2 * jump, 2 * jump);
            let wall = chrono::DateTime::from_timestamp(shown(near), 0).unwrap().naive_utc();
            let line = Line::near(dice, wall, step == 1);
            let dst = dice.pick(&POLICIES);
            let due = walk.due(&line, dst).range(from..to).copied().collect();
            covered.ticks += self.compare(dice, &line, dst, &due, from..to)?;
            covered.lines += 1;
        }
        Ok(covered)
    }

    /// The ticks in turn, then some at random; says how many there were.
    fn compare(
        &self,
        dice: &mut Dice,
        line: &Line,
        dst: Dst,
        due: &BTreeSet<i64>,
        window: std::ops::Range<i64>,
    ) -> Result<u64, String> {
        let text = line.text();
        let schedule: Schedule = match text.parse() {
            Ok(schedule) => schedule,
            Err(BadSchedule::Never) if due.is_empty() => return Ok(0),
            Err(error) => return Err(format!("{text:?} {error}, but is due at {due:?}")),
        };
        let zone: TimeZone = self.zone.tz.name().parse().map_err(|e| format!("{e}"))?;
        let expect = |after: UnixMillis| -> Result<Option<i64>, String> {
            let second = after.0.div_euclid(1000);
            let want = due.range((Bound::Excluded(second), Bound::Unbounded)).next().map(|at| at * 1000);
            let got = (self.candidate)(&schedule, zone, dst, after).map(|at| at.0);
            if got.filter(|at| *at < window.end * 1000) == want {
                return Ok(want);
            }
            let show = |at: Option<i64>| at.map(|at| UnixMillis(at).to_string());
            Err(format!(
                "{text:?} in {zone} with {dst:?} after {after}: expected {:?}, got {:?} (the clock changes at {})",
                show(want),
                show(got),
                UnixMillis(self.change * 1000)
            ))
        };
        // A line of every minute has thousands of ticks: those at the window's beginning and around the change do.
        for start in [window.start, self.change - (window.end - window.start) / 36] {
            let mut after = UnixMillis(start * 1000 - 1);
            for _ in 0..TICKS_IN_TURN {
                match expect(after)? {
                    Some(at) => after = UnixMillis(at),
                    None => break,
                }
            }
        }
        for _ in 0..3 {
            expect(UnixMillis(dice.within(window.start * 1000, window.end * 1000 - 1)))?;
        }
        Ok(due.len() as u64)
    }
}
