//! The oracle: which instants a line is due at around an offset change, found by looking at the wall clock at every
//! minute (or second) of the window, and at nothing else.

use crate::line::Line;
use chrono::{DateTime, NaiveDate, Offset, TimeZone as _, Timelike};
use chrono_tz::Tz;
use novacron_common::spec::{Dst, Fold, Gap};
use std::collections::BTreeSet;

/// What the wall clock shows; both in seconds since 1970.
pub fn shown_at(tz: Tz, instant: i64) -> i64 {
    let utc = DateTime::from_timestamp(instant, 0).unwrap().naive_utc();
    instant + i64::from(tz.offset_from_utc_datetime(&utc).fix().local_minus_utc())
}

/// No zone changes its offset twice within a quarter of an hour.
const QUARTER: i64 = 900;

/// Instants and what the clock shows at each. Where the offset is the same at both ends of the quarter, it is not
/// asked for in between (debug builds of chrono take half a microsecond).
fn shown_in_quarter(tz: Tz, start: i64, step: i64) -> impl Iterator<Item = (i64, i64)> {
    let offset = shown_at(tz, start) - start;
    let steady = shown_at(tz, start + QUARTER) - (start + QUARTER) == offset;
    (start..start + QUARTER)
        .step_by(step as usize)
        .map(move |at| (at, if steady { at + offset } else { shown_at(tz, at) }))
}

/// A walk through a window: what the clock shows at every step.
pub struct Walk {
    step: i64,
    /// (instant, what the clock shows), by instant.
    by_instant: Vec<(i64, i64)>,
    /// (what the clock shows, instant), sorted.
    by_wall: Vec<(i64, i64)>,
    /// What the clock leaves out, with the first instant after.
    left_out: Vec<(i64, i64)>,
}

impl Walk {
    pub fn new(tz: Tz, from: i64, to: i64, step: i64) -> Self {
        let by_instant: Vec<_> = (from..to)
            .step_by(QUARTER as usize)
            .flat_map(|quarter| shown_in_quarter(tz, quarter, step))
            .filter(|(at, _)| *at < to)
            .collect();
        let mut by_wall: Vec<_> = by_instant.iter().map(|(at, wall)| (*wall, *at)).collect();
        by_wall.sort_unstable();
        let mut left_out = Vec::new();
        let mut latest_shown = i64::MIN;
        for pair in by_instant.windows(2) {
            latest_shown = latest_shown.max(pair[0].1);
            for wall in (pair[0].1 + step..pair[1].1).step_by(step as usize) {
                let shown = by_wall.binary_search_by_key(&wall, |(wall, _)| *wall).is_ok();
                if !shown && wall > latest_shown {
                    left_out.push((wall, pair[1].0));
                }
            }
        }
        Self { step, by_instant, by_wall, left_out }
    }

    /// The instants that this line is due at, by the rules that SCHEDULES.md states.
    pub fn due(&self, line: &Line, dst: Dst) -> BTreeSet<i64> {
        let matches = Matcher::new(line);
        let mut due = BTreeSet::new();
        if line.runs_every_hour() {
            due.extend(self.by_instant.iter().filter(|(_, wall)| matches.at(*wall)).map(|(at, _)| *at));
            return due;
        }
        for same in self.by_wall.chunk_by(|a, b| a.0 == b.0) {
            if !matches.at(same[0].0) {
                continue;
            }
            match dst.fold {
                Fold::First => due.extend(same.first().map(|(_, at)| *at)),
                Fold::Second => due.extend(same.last().map(|(_, at)| *at)),
                Fold::Both => due.extend(same.iter().map(|(_, at)| *at)),
            }
        }
        for (_, gap_end) in self.left_out.iter().filter(|(wall, _)| matches.at(*wall)) {
            match dst.gap {
                Gap::Skip => {}
                Gap::RunAtGapEnd => due.extend([*gap_end]),
                Gap::RunBefore => due.extend([*gap_end - 1]),
            }
        }
        due
    }

    pub fn steps(&self) -> usize {
        self.by_instant.len()
    }

    /// Whether a walk by minutes sees all there is: clock and instants pass whole minutes together.
    pub fn sees_all(&self) -> bool {
        self.step == 1
            || self.by_instant.iter().all(|(at, wall)| at % self.step == 0 && wall % self.step == 0)
    }
}

struct Matcher<'a> {
    line: &'a Line,
    times: crate::line::Times,
    /// The last date asked about.
    date: std::cell::Cell<Option<(NaiveDate, bool)>>,
}

impl<'a> Matcher<'a> {
    fn new(line: &'a Line) -> Self {
        Self { line, times: line.times(), date: std::cell::Cell::new(None) }
    }

    fn at(&self, wall: i64) -> bool {
        let of_day = wall.rem_euclid(86_400);
        let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
        let time = self.times.seconds[second as usize]
            && self.times.minutes[minute as usize]
            && self.times.hours[hour as usize];
        time && self.on(wall)
    }

    fn on(&self, wall: i64) -> bool {
        let at = DateTime::from_timestamp(wall, 0).unwrap().naive_utc();
        debug_assert_eq!(i64::from(at.num_seconds_from_midnight()), wall.rem_euclid(86_400));
        match self.date.get() {
            Some((date, holds)) if date == at.date() => holds,
            _ => {
                let holds = self.line.on(at.date());
                self.date.set(Some((at.date(), holds)));
                holds
            }
        }
    }
}
