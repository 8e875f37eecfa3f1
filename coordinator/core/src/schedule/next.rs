//! The next tick of a cron expression in a zone whose offset changes. croner finds matches on a plain calendar; what
//! an offset change does to them is decided here.
//!
//! * A schedule bound to hours of the day (`30 2 * * *`) keeps to the wall clock. A time that the clock skips (gap)
//!   fires once, at the gap's end; a time that it shows twice (fold) fires once, the first time. No run is lost and
//!   none doubled.
//! * A schedule that runs in every hour (`*/5 * * * *`) is an interval: it keeps to elapsed time, and fires whenever
//!   the wall clock matches, so that it neither stands still for an hour in autumn nor bunches up in spring. This is
//!   the distinction that Vixie cron makes.

use chrono::{DateTime, NaiveDateTime, Offset, TimeDelta, TimeZone as _, Utc};
use chrono_tz::Tz;
use croner::Cron;
use novacron_common::{
    spec::{Dst, Schedule, TimeZone},
    units::UnixMillis,
};

/// The first tick later than `after`; `None` if there is none before the calendar's end (year 5000).
///
/// (The policies other than the default ones land with the engine that replaces croner; callers pass them already.)
pub fn next_after(schedule: &Schedule, zone: TimeZone, _dst: Dst, after: UnixMillis) -> Option<UnixMillis> {
    let cron = schedule.cron();
    let after = DateTime::from_timestamp(after.0.div_euclid(1000), 0)?;
    let at = if runs_every_hour(cron) {
        next_by_elapsed_time(cron, zone.tz(), after.checked_add_signed(TimeDelta::seconds(1))?)
    } else {
        next_by_wall_clock(cron, zone.tz(), after)
    }?;
    Some(UnixMillis(at.timestamp_millis()))
}

fn runs_every_hour(cron: &Cron) -> bool {
    cron.pattern.hours.values().len() == 24
}

/// First match on the plain calendar at or after `from`.
fn first_match(cron: &Cron, from: NaiveDateTime) -> Option<NaiveDateTime> {
    cron.find_next_occurrence(&from.and_utc(), true).ok().map(|t| t.naive_utc())
}

fn offset_at(tz: Tz, at: DateTime<Utc>) -> TimeDelta {
    TimeDelta::seconds(i64::from(tz.offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc()))
}

fn local(tz: Tz, at: DateTime<Utc>) -> Option<NaiveDateTime> {
    at.naive_utc().checked_add_signed(offset_at(tz, at))
}

/// Each wall-clock time stands for one instant ([`instant_of`]), and later times never for earlier instants: the
/// first match whose instant lies behind `after` is the next tick.
fn next_by_wall_clock(cron: &Cron, tz: Tz, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut wall = local(tz, after)?;
    loop {
        wall = first_match(cron, wall.checked_add_signed(TimeDelta::seconds(1))?)?;
        let at = instant_of(tz, wall)?;
        if at > after {
            return Some(at);
        }
    }
}

/// The instant that a wall-clock time stands for: in a fold the first of the two, in a gap the gap's end.
fn instant_of(tz: Tz, wall: NaiveDateTime) -> Option<DateTime<Utc>> {
    match tz.from_local_datetime(&wall) {
        chrono::LocalResult::Single(at) => Some(at.to_utc()),
        chrono::LocalResult::Ambiguous(first, second) => Some(first.to_utc().min(second.to_utc())),
        chrono::LocalResult::None => {
            // Offsets lie within a day of UTC: the gap's end is between these two.
            let early = wall.and_utc().checked_sub_signed(OFFSET_CHANGE_MAX)?;
            let late = wall.and_utc().checked_add_signed(OFFSET_CHANGE_MAX)?;
            gap_end(tz, wall, early, late)
        }
    }
}

/// Offsets lie within a day of UTC, and no zone ever jumped by more than a day (Samoa, 2011).
const OFFSET_CHANGE_MAX: TimeDelta = TimeDelta::hours(26);

/// The first instant in `early..=late` whose wall clock shows `wall` or later.
fn gap_end(tz: Tz, wall: NaiveDateTime, early: DateTime<Utc>, late: DateTime<Utc>) -> Option<DateTime<Utc>> {
    bisect(early, late, |at| local(tz, at).is_some_and(|shown| shown >= wall))
}

/// The first whole second in `from..=to` at which `holds`, given that it holds from there on.
fn bisect(
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    holds: impl Fn(DateTime<Utc>) -> bool,
) -> Option<DateTime<Utc>> {
    let (mut low, mut high) = (from.timestamp(), to.timestamp());
    while low < high {
        let middle = low + (high - low) / 2;
        if holds(DateTime::from_timestamp(middle, 0)?) { high = middle } else { low = middle + 1 }
    }
    DateTime::from_timestamp(low, 0)
}

/// The first instant at or after `from` whose wall clock matches. Goes from offset change to offset change.
fn next_by_elapsed_time(cron: &Cron, tz: Tz, from: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let mut from = from;
    loop {
        let offset = offset_at(tz, from);
        let wall = first_match(cron, from.naive_utc().checked_add_signed(offset)?)?;
        let at = wall.checked_sub_signed(offset)?.and_utc();
        let horizon = from.checked_add_signed(OFFSET_CHANGE_MAX)?;
        match next_change(tz, from, horizon) {
            Some(change) if at >= change => from = change,
            Some(_) => return Some(at),
            None if at <= horizon => return Some(at),
            // Far ahead. Nothing in between matches: no wall clock in between lies outside the stretch searched.
            None => from = horizon.max(at.checked_sub_signed(OFFSET_CHANGE_MAX)?),
        }
    }
}

/// The first instant in `from..=to` at which the offset differs from that at `from`.
fn next_change(tz: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let before = offset_at(tz, from);
    let differs = |at| offset_at(tz, at) != before;
    if differs(to) { bisect(from, to, differs) } else { None }
}
