//! What a user should know before the clock jumps: which ticks it meets within a year, what will become of them, and
//! what could be chosen instead.

use super::offsets::Offsets;
use novacron_common::{
    api::{ScheduleWarning, Transition},
    spec::{
        Dst, Fold, Gap, Schedule, TimeZone,
        schedule::{Cron, DAY, Ticks},
    },
    units::UnixMillis,
};
use std::{fmt, ops::Range, time::Duration};

/// How far is looked ahead.
pub const AHEAD: Duration = Duration::from_secs(366 * 24 * 3600);

/// Ticks that one jump meets are counted up to here.
pub const TICKS_COUNTED_MAX: u32 = 10_000;

/// The jumps within [`AHEAD`] that meet ticks of this schedule. An interval (`@every`, or a cron expression that runs
/// in every hour) keeps to elapsed time, and meets none.
pub fn warnings(schedule: &Schedule, zone: TimeZone, dst: Dst, from: UnixMillis) -> Vec<ScheduleWarning> {
    let Ticks::Cron(cron) = schedule.ticks() else { return Vec::new() };
    if cron.runs_every_hour() {
        return Vec::new();
    }
    let (offsets, from) = (Offsets::of(zone), from.0.div_euclid(1000));
    let until = from.saturating_add(i64::try_from(AHEAD.as_secs()).unwrap_or(i64::MAX));
    let jumps = (offsets.at(from) + 1..).map_while(|number| Jump::of(zone, offsets, number));
    jumps.take_while(|jump| jump.at <= until).filter_map(|jump| jump.warning(cron, dst)).collect()
}

/// An offset change.
struct Jump {
    zone: TimeZone,
    /// Seconds since 1970.
    at: i64,
    /// The wall clock when it would have gone on, and what it shows instead.
    old: i64,
    new: i64,
    transition: Transition,
    /// The wall-clock times that are left out, or shown twice.
    met: Range<i64>,
}

impl Jump {
    fn of(zone: TimeZone, offsets: Offsets, number: usize) -> Option<Self> {
        let stretch = offsets.get(number)?;
        let before = offsets.get(number.checked_sub(1)?)?;
        let (old, new) = (stretch.start + before.offset, stretch.start + stretch.offset);
        let (transition, met) = if new > old {
            (Transition::Gap, offsets.left_out(number))
        } else {
            (Transition::Fold, new..offsets.shown_before(number))
        };
        Some(Self { zone, at: stretch.start, old, new, transition, met })
    }

    fn warning(&self, cron: &Cron, dst: Dst) -> Option<ScheduleWarning> {
        let ticks = Met::of(cron, &self.met)?;
        let message = match self.transition {
            Transition::Gap => self.gap_message(&ticks, dst.gap),
            Transition::Fold => self.fold_message(&ticks, dst.fold),
        };
        Some(ScheduleWarning {
            at: UnixMillis(self.at.saturating_mul(1000)),
            transition: self.transition,
            first: Clock { wall: ticks.first, day: None }.to_string(),
            ticks: ticks.count,
            message,
        })
    }

    /// A wall-clock time in a sentence that has named this jump's day.
    fn clock(&self, wall: i64) -> Clock {
        Clock { wall, day: Some(self.old.div_euclid(DAY)) }
    }

    fn gap_message(&self, met: &Met, gap: Gap) -> String {
        let start = self.sentence_start("jumps ahead");
        let runs = met.words(|wall| self.clock(wall));
        let (end, before) = (self.clock(self.new), self.clock(self.old - 1));
        let what = match (gap, met.count) {
            (Gap::Skip, _) => {
                format!("With gap=skip there is no run then; gap=run_at_gap_end has one at {end}.")
            }
            (Gap::RunAtGapEnd, 1) => format!("With gap=run_at_gap_end it runs at {end}."),
            (Gap::RunAtGapEnd, _) => format!("With gap=run_at_gap_end one run at {end} stands in for all."),
            (Gap::RunBefore, 1) => format!("With gap=run_before it runs at {before}."),
            (Gap::RunBefore, _) => format!("With gap=run_before one run at {before} stands in for all."),
        };
        format!("{start}, over {runs}. {what}")
    }

    fn fold_message(&self, met: &Met, fold: Fold) -> String {
        let start = self.sentence_start("goes back");
        let runs = met.words(|wall| self.clock(wall));
        let what = match fold {
            Fold::First => "With fold=first there is a run the first time only.".to_owned(),
            Fold::Second => "With fold=second there is a run the second time only.".to_owned(),
            Fold::Both => format!(
                "With fold=both there are two runs, {} minutes apart; fold=first has one.",
                (self.old - self.new) / 60
            ),
        };
        format!("{start}, and shows {runs} twice. {what}")
    }

    fn sentence_start(&self, verb: &str) -> String {
        let day = Clock { wall: self.old, day: None }.to_string();
        let day = day.split('T').next().unwrap_or_default();
        format!(
            "On {day} the clock of {} {verb} from {} to {}",
            self.zone,
            self.clock(self.old),
            self.clock(self.new)
        )
    }
}

/// The ticks that a jump meets, on the wall clock.
struct Met {
    first: i64,
    last: i64,
    count: u32,
}

impl Met {
    fn of(cron: &Cron, walls: &Range<i64>) -> Option<Self> {
        let next = |from: i64| cron.first_match(from).filter(|wall| walls.contains(wall));
        let first = if walls.is_empty() { None } else { next(walls.start) }?;
        let ticks =
            std::iter::successors(Some(first), |wall| next(wall + 1)).take(TICKS_COUNTED_MAX as usize);
        Some(ticks.fold(Self { first, last: first, count: 0 }, |met, wall| Self {
            last: wall,
            count: met.count + 1,
            ..met
        }))
    }

    fn words(&self, clock: impl Fn(i64) -> Clock) -> String {
        let (first, last) = (clock(self.first), clock(self.last));
        match self.count {
            1 => format!("the run at {first}"),
            TICKS_COUNTED_MAX => format!("{TICKS_COUNTED_MAX} runs or more, from {first} on"),
            count => format!("{count} runs from {first} to {last}"),
        }
    }
}

/// A wall-clock time for people: the date is left out on the day that the sentence is about, seconds if they are 0.
struct Clock {
    wall: i64,
    day: Option<i64>,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(wall) = chrono::DateTime::from_timestamp(self.wall, 0) else {
            return write!(f, "{}", self.wall);
        };
        let format = match (self.day, self.wall % 60) {
            (None, _) => "%Y-%m-%dT%H:%M:%S",
            (Some(day), 0) if day == self.wall.div_euclid(DAY) => "%H:%M",
            (Some(day), _) if day == self.wall.div_euclid(DAY) => "%H:%M:%S",
            (Some(_), 0) => "%Y-%m-%d %H:%M",
            (Some(_), _) => "%Y-%m-%d %H:%M:%S",
        };
        write!(f, "{}", wall.format(format))
    }
}
