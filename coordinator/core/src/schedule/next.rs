//! The next tick of a schedule in a zone whose offset changes. Matches on a plain calendar come from
//! [`Cron::first_match`]; what an offset change does to them is decided here.
//!
//! * A schedule bound to hours of the day (`30 2 * * *`) keeps to the wall clock, and [`Dst`] says what becomes of a
//!   time that the clock leaves out (gap) or shows twice (fold). By default no run is lost and none doubled.
//! * A schedule that runs in every hour (`*/5 * * * *`) is an interval: it keeps to elapsed time, and fires whenever
//!   the wall clock matches, so that it neither stands still for an hour in autumn nor bunches up in spring. This is
//!   the distinction that Vixie cron makes.
//! * `@every` has nothing to do with wall clocks.
//!
//! A zone is a row of stretches with one offset each ([`Offsets`]); in each, instants and wall-clock times run in
//! step, so that the policies come down to which of its times a stretch may show.

use super::offsets::{Offsets, Stretch};
use novacron_common::{
    spec::{
        Dst, Fold, Gap, Schedule, TimeZone,
        schedule::{Cron, Every, Ticks},
    },
    units::UnixMillis,
};

/// How a tick came by its instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The wall clock matches.
    Match,
    /// It stands in for what the clock left out.
    Gap,
}

/// An instant at which a schedule is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tick {
    /// Seconds since 1970.
    pub at: i64,
    pub origin: Origin,
}

/// The first tick later than `after`; `None` if there is none before the year 10,000. No tick lies before 1970.
pub fn next_after(schedule: &Schedule, zone: TimeZone, dst: Dst, after: UnixMillis) -> Option<UnixMillis> {
    let tick = match schedule.ticks() {
        Ticks::Every(every) => next_multiple(*every, after),
        Ticks::Cron(cron) => next_match(cron, Offsets::of(zone), Policy::of(cron, dst), after),
    }?;
    Some(UnixMillis(tick.at * 1000))
}

/// The last second of the year 9999.
const END: i64 = 253_402_300_799;

/// The first whole second later than `after`, within the years that have ticks.
fn first_second(after: UnixMillis) -> Option<i64> {
    Some((after.0.div_euclid(1000) + 1).max(0)).filter(|first| *first <= END)
}

fn next_multiple(every: Every, after: UnixMillis) -> Option<Tick> {
    let (first, interval) = (first_second(after)?, i64::from(every.seconds()));
    let at = (first + interval - 1) / interval * interval;
    (at <= END).then_some(Tick { at, origin: Origin::Match })
}

/// What is done about jumps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    gap: Gap,
    fold: Fold,
}

impl Policy {
    /// An interval has a tick whenever the clock matches, and no others.
    pub fn of(cron: &Cron, dst: Dst) -> Self {
        if cron.runs_every_hour() {
            Self { gap: Gap::Skip, fold: Fold::Both }
        } else {
            Self { gap: dst.gap, fold: dst.fold }
        }
    }
}

/// The first tick of a cron expression later than `after`.
pub(super) fn next_match(cron: &Cron, offsets: Offsets, policy: Policy, after: UnixMillis) -> Option<Tick> {
    let from = first_second(after)?;
    let mut matches = Matches { cron, searched: None };
    let mut number = offsets.at(from);
    loop {
        let view = View { offsets, policy, number, stretch: offsets.get(number)? };
        if let Some(tick) = view.first_tick(&mut matches, from) {
            return (tick.at <= END).then_some(tick);
        }
        number += 1;
    }
}

/// One stretch, seen through the policy.
struct View {
    offsets: Offsets,
    policy: Policy,
    number: usize,
    stretch: Stretch,
}

impl View {
    /// The first tick of this stretch at or after `from`.
    fn first_tick(&self, matches: &mut Matches<'_>, from: i64) -> Option<Tick> {
        if self.policy.gap == Gap::RunAtGapEnd
            && self.stretch.start >= from
            && matches.any(self.offsets.left_out(self.number))
        {
            return Some(Tick { at: self.stretch.start, origin: Origin::Gap });
        }
        let shown = self.shown(from);
        let matched = matches.first_in(shown).map(|wall| wall - self.stretch.offset);
        // The last second cannot come before a match.
        matched.map(|at| Tick { at, origin: Origin::Match }).or_else(|| self.last_second(matches, from))
    }

    /// The wall-clock times whose matches are ticks of this stretch.
    fn shown(&self, from: i64) -> std::ops::Range<i64> {
        let offset = self.stretch.offset;
        let start = from.max(self.stretch.start) + offset;
        let end = self.offsets.end(self.number).saturating_add(offset);
        match self.policy.fold {
            Fold::First => start.max(self.offsets.shown_before(self.number))..end,
            Fold::Second => start..end.min(self.offsets.shown_from(self.number + 1)),
            Fold::Both => start..end,
        }
    }

    /// The tick that stands in for those which the clock leaves out at this stretch's end.
    fn last_second(&self, matches: &mut Matches<'_>, from: i64) -> Option<Tick> {
        let at = self.offsets.end(self.number).checked_sub(1).filter(|at| *at >= from)?;
        let due = self.policy.gap == Gap::RunBefore && matches.any(self.offsets.left_out(self.number + 1));
        due.then_some(Tick { at, origin: Origin::Gap })
    }
}

/// Matches of an expression on a clock that does not jump. Remembers the last search: a yearly schedule is asked for
/// the same stretch of the calendar by several stretches of the zone.
struct Matches<'a> {
    cron: &'a Cron,
    /// From where was searched last, and the match found, or [`i64::MAX`]; no match lies in between.
    searched: Option<(i64, i64)>,
}

impl Matches<'_> {
    fn first_in(&mut self, walls: std::ops::Range<i64>) -> Option<i64> {
        if walls.is_empty() {
            return None;
        }
        let known = self.searched.filter(|(from, found)| (*from..=*found).contains(&walls.start));
        let (_, found) =
            *self
                .searched
                .insert(known.unwrap_or_else(|| {
                    (walls.start, self.cron.first_match(walls.start).unwrap_or(i64::MAX))
                }));
        Some(found).filter(|wall| walls.contains(wall))
    }

    fn any(&mut self, walls: std::ops::Range<i64>) -> bool {
        self.first_in(walls).is_some()
    }
}
