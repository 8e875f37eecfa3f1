//! Ticks against a slow, obvious oracle, around real offset changes; and what becomes of missed ticks.

use crate::world::{NOON, World, command_target, job_spec};
use chrono::{Datelike, Offset, TimeZone as _, Timelike};
use novacron_common::{
    spec::{Dst, Schedule, TimeZone},
    units::UnixMillis,
};
use novacron_core::{
    Applied, CommandBody,
    record::{TickFate, TickReason},
    schedule,
};
use proptest::prelude::*;
use std::{collections::BTreeSet, sync::OnceLock};

const MINUTE: i64 = 60;
const ZONES: [&str; 9] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe", // half an hour of summer time
    "Asia/Kathmandu",      // UTC+5:45, no summer time
    "America/Sao_Paulo",   // gaps at midnight, until 2019
    "Pacific/Apia",        // left out a whole day in 2011
    "Africa/Casablanca",   // summer time interrupted by Ramadan
    "Antarctica/Troll",    // jumps by two hours
    "UTC",
];

fn zone(text: &str) -> TimeZone {
    text.parse().unwrap()
}

fn offset(zone: TimeZone, at: i64) -> i64 {
    let naive = chrono::DateTime::from_timestamp(at, 0).unwrap().naive_utc();
    i64::from(zone.tz().offset_from_utc_datetime(&naive).fix().local_minus_utc())
}

/// Offset changes of the zone of this number from 2008 to 2035, to the minute; looked up once.
fn changes(number: usize) -> &'static [i64] {
    static FOUND: [OnceLock<Vec<i64>>; ZONES.len()] = [const { OnceLock::new() }; ZONES.len()];
    const STEP: i64 = 6 * 3600;
    FOUND[number].get_or_init(|| {
        let zone = zone(ZONES[number]);
        let changed = |from: &i64| offset(zone, *from) != offset(zone, from + STEP);
        let exact =
            |from: i64| (from..=from + STEP).step_by(60).find(|at| offset(zone, *at) != offset(zone, from));
        (1_199_145_600..2_050_000_000).step_by(6 * 3600).filter(changed).filter_map(exact).collect()
    })
}

/// A schedule as plain sets, so that the oracle needs no parser.
#[derive(Debug, Clone)]
struct Plain {
    minutes: BTreeSet<u32>,
    hours: BTreeSet<u32>,
    weekdays: Option<BTreeSet<u32>>,
    days: Option<BTreeSet<u32>>,
}

impl Plain {
    fn text(&self) -> String {
        let list = |set: &BTreeSet<u32>| set.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
        let or_any = |set: &Option<BTreeSet<u32>>| set.as_ref().map_or_else(|| "*".to_owned(), list);
        let hours = if self.hours.len() == 24 { "*".to_owned() } else { list(&self.hours) };
        format!("{} {hours} {} * {}", list(&self.minutes), or_any(&self.days), or_any(&self.weekdays))
    }

    /// Whether a wall clock that shows this many seconds since 1970 matches.
    fn matches(&self, wall: i64) -> bool {
        let at = chrono::DateTime::from_timestamp(wall, 0).unwrap().naive_utc();
        let on = |set: &Option<BTreeSet<u32>>, value| set.as_ref().is_none_or(|s| s.contains(&value));
        self.minutes.contains(&at.minute())
            && self.hours.contains(&at.hour())
            && on(&self.days, at.day())
            && on(&self.weekdays, at.weekday().num_days_from_sunday())
    }

    /// Minute by minute: what fires in `from..to`.
    fn oracle(&self, zone: TimeZone, from: i64, to: i64) -> Vec<i64> {
        const BEFORE: i64 = 50 * 3600;
        let mut shown = BTreeSet::new();
        let mut fires = Vec::new();
        for at in (from - BEFORE..to).step_by(60) {
            let wall = at + offset(zone, at);
            let skipped = (at - MINUTE + offset(zone, at - MINUTE) + MINUTE..wall).step_by(60);
            let first_time = shown.insert(wall);
            let due = if self.hours.len() == 24 {
                self.matches(wall)
            } else {
                (first_time && self.matches(wall)) || skipped.into_iter().any(|wall| self.matches(wall))
            };
            if due && at >= from {
                fires.push(at);
            }
        }
        fires
    }
}

fn set(of: std::ops::Range<u32>, sizes: std::ops::Range<usize>) -> impl Strategy<Value = BTreeSet<u32>> {
    proptest::collection::btree_set(of, sizes)
}

fn plain() -> impl Strategy<Value = Plain> {
    let every_hour = Just((0..24).collect::<BTreeSet<u32>>());
    let hours = prop_oneof![3 => set(0..24, 1..5), 2 => set(0..4, 1..4), 2 => every_hour];
    let weekdays = set(0..7, 1..4).prop_map(|days| (Some(days), None));
    let month_days = set(1..32, 1..8).prop_map(|days| (None, Some(days)));
    let days = prop_oneof![5 => Just((None, None)), 1 => weekdays, 1 => month_days];
    (set(0..60, 1..6), hours, days).prop_map(|(minutes, hours, (weekdays, days))| Plain {
        minutes,
        hours,
        weekdays,
        days,
    })
}

fn ticks(schedule: &Schedule, zone: TimeZone, from: i64, to: i64) -> Vec<i64> {
    let next = |at: &UnixMillis| schedule::next_after(schedule, zone, Dst::default(), *at);
    let first = UnixMillis(from * 1000 - 1);
    std::iter::successors(next(&first), next).map(|at| at.0 / 1000).take_while(|at| *at < to).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ticks_are_those_of_the_oracle_around_offset_changes(
        plain in plain(),
        zone_number in 0..ZONES.len(),
        which in any::<prop::sample::Index>(),
        hours_before in 0..40i64,
    ) {
        let zone = zone(ZONES[zone_number]);
        let all = changes(zone_number);
        let near = if all.is_empty() { 1_700_000_040 } else { all[which.index(all.len())] };
        let from = (near - hours_before * 3600).div_euclid(60) * 60;
        let to = from + 60 * 3600;
        let schedule: Schedule = plain.text().parse().unwrap();
        prop_assert_eq!(
            ticks(&schedule, zone, from, to),
            plain.oracle(zone, from, to),
            "{} in {} from {}", schedule, zone, from
        );
    }

    #[test]
    fn the_next_tick_lies_ahead_and_nothing_lies_between(plain in plain(), at in 0..2_000_000_000i64, ms in 0..1000i64) {
        let zone = zone("Europe/Berlin");
        let schedule: Schedule = plain.text().parse().unwrap();
        let after = UnixMillis(at * 1000 + ms);
        let next = schedule::next_after(&schedule, zone, Dst::default(), after).unwrap();
        prop_assert!(next > after);
        let again = schedule::next_after(&schedule, zone, Dst::default(), UnixMillis(next.0 - 1)).unwrap();
        prop_assert_eq!(again, next);
    }
}

fn wall(text: &str) -> UnixMillis {
    UnixMillis(text.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_millis())
}

fn next(schedule: &str, in_zone: &str, after: &str) -> Option<String> {
    let schedule = schedule.parse().unwrap();
    schedule::next_after(&schedule, zone(in_zone), Dst::default(), wall(after)).map(|at| at.to_string())
}

#[test]
fn well_known_days_of_the_clock() {
    let cases = [
        // Berlin skips 02:00-03:00 on 2026-03-29 (01:00 UTC) and repeats it on 2026-10-25.
        ("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00.000Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00.000Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00.000Z"),
        ("30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00.000Z"),
        // An interval goes on through both.
        ("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00.000Z"),
        ("*/30 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00.000Z"),
        ("30 * * * *", "Europe/Berlin", "2026-03-29T00:30:00Z", "2026-03-29T01:30:00.000Z"),
        // New York: 2026-03-08 skips 02:00-03:00 (07:00 UTC).
        ("15 2 * * *", "America/New_York", "2026-03-08T00:00:00Z", "2026-03-08T07:00:00.000Z"),
        // Lord Howe's gap is half an hour: 2026-10-04 02:00-02:30 (2026-10-03T15:30Z).
        ("10 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00.000Z"),
        ("0 12 * * *", "Asia/Kathmandu", "2026-01-01T00:00:00Z", "2026-01-01T06:15:00.000Z"),
        // The last day of February, leap year and not; every five seconds.
        ("0 0 L 2 *", "UTC", "2027-01-01T00:00:00Z", "2027-02-28T00:00:00.000Z"),
        ("0 0 L 2 *", "UTC", "2028-01-01T00:00:00Z", "2028-02-29T00:00:00.000Z"),
        ("*/5 * * * * *", "UTC", "2026-01-01T00:00:04Z", "2026-01-01T00:00:05.000Z"),
        ("0 0 29 2 *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2028-02-28T23:00:00.000Z"),
        ("* * 1 1 *", "America/New_York", "2026-02-01T00:00:00Z", "2027-01-01T05:00:00.000Z"),
    ];
    for (schedule, in_zone, after, want) in cases {
        assert_eq!(
            next(schedule, in_zone, after).as_deref(),
            Some(want),
            "{schedule} in {in_zone} after {after}"
        );
    }
}

#[test]
fn a_schedule_without_ticks_and_times_off_the_calendar_have_no_next() {
    assert!("0 0 30 2 *".parse::<Schedule>().is_err());
    let next = |text: &str, after| {
        schedule::next_after(&text.parse().unwrap(), TimeZone::UTC, Dst::default(), UnixMillis(after))
    };
    for text in ["0 0 * * *", "@every 1d", "* * * * * *", "0 0 29 2 *"] {
        assert_eq!(next(text, i64::MAX), None, "{text}");
        assert!(next(text, i64::MIN).is_some_and(|at| at.0 >= 0), "{text}");
        let end = wall("9999-12-31T00:00:00Z");
        assert!(next(text, end.0).is_none_or(|at| at < UnixMillis(end.0 + 86_400_000)), "{text}");
    }
}

/// Commits what is due, as the scheduler does, and says which ticks fired.
fn run_due(world: &mut World) -> Vec<i64> {
    let mut fired = Vec::new();
    loop {
        let due = schedule::due(&world.state, world.now, 100);
        if due.is_empty() {
            return fired.iter().map(|at: &UnixMillis| (at.0 - NOON.0) / 1000).collect();
        }
        for commit in due {
            match world.ok(CommandBody::FireCommit(commit)) {
                Applied::TicksCommitted(keys) => fired.extend(keys.iter().map(|key| key.scheduled_at)),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[test]
fn a_tick_that_is_a_little_late_is_fired_and_none_is_skipped() {
    let (mut world, _) = World::with_hosts(1);
    let job = world.job(job_spec("tick", "*/5 * * * * *"));
    world.now.0 += 31_000;
    assert_eq!(run_due(&mut world), [5, 10, 15, 20, 25, 30]);
    let job = world.state.pulse(job).unwrap();
    assert_eq!((job.fires, job.missed, job.succeeded), (6, 0, 6));
    assert_eq!(schedule::next_due(&world.state), Some(UnixMillis(NOON.0 + 35_000)));
}

#[test]
fn after_a_long_outage_the_last_missed_tick_fires_once_and_the_others_are_counted() {
    let (mut world, _) = World::with_hosts(1);
    let job = world.job(job_spec("quarterly", "*/15 * * * *"));
    world.now.0 += 3_600_000 + 600_000;
    let fired = run_due(&mut world);
    let job = world.state.pulse(job).unwrap();
    assert_eq!(fired.len(), 1);
    assert_eq!((job.fires, job.missed), (1, 4));
    let run = world.state.history(job.id).unwrap().runs[0];
    assert_eq!((run.count, run.fate), (4, TickFate::None(TickReason::Superseded)));
    assert_eq!(job.last_tick.unwrap().0 - run.until.0, 900_000, "up to the one that fired");
    assert_eq!((run.until.0 - run.from.0) / 60_000, 45);
}

#[test]
fn a_job_of_seconds_catches_up_the_last_minute_only() {
    let (mut world, _) = World::with_hosts(1);
    let job = world.job(job_spec("tick", "* * * * * *"));
    world.now.0 += 30 * 24 * 3_600_000;
    assert_eq!(run_due(&mut world).len(), 61);
    let job = world.state.pulse(job).unwrap();
    assert_eq!(job.missed, schedule::SKIPS_COUNTED_MAX);
    assert_eq!(world.state.history(job.id).unwrap().runs[0].from, UnixMillis(NOON.0 + 1000));
}

#[test]
fn renaming_a_job_keeps_its_due_tick_and_changing_its_schedule_begins_anew() {
    use novacron_core::command::JobUpdate;
    let (mut world, _) = World::with_hosts(1);
    let id = world.job(job_spec("tick", "*/5 * * * * *"));
    world.now.0 += 6000;
    let job = world.state.job(id).unwrap();
    let pulse = world.state.pulse(id).unwrap();
    let renamed = JobUpdate::new(job, pulse, job_spec("tock", "*/5 * * * * *"), world.now);
    let changed = JobUpdate::new(job, pulse, job_spec("tock", "*/7 * * * * *"), world.now);
    assert_eq!(renamed.next_at, Some(UnixMillis(NOON.0 + 5000)));
    assert!(changed.next_at > Some(world.now));
    world.ok(CommandBody::JobUpdate(Box::new(renamed)));
    assert_eq!(run_due(&mut world), [5]);
    // The second update was made from what the first has changed.
    world.refused(CommandBody::JobUpdate(Box::new(changed)));
}

#[test]
fn finding_what_is_due_does_not_look_at_idle_jobs() {
    let (mut world, _) = World::with_hosts(1);
    for n in 0..2000 {
        world.job(job_spec(&format!("idle-{n}"), "0 0 1 1 *"));
    }
    let mut busy = job_spec("busy", "* * * * * *");
    busy.target = command_target();
    let busy = world.job(busy);
    world.now.0 += 1000;
    let due = schedule::due(&world.state, world.now, 100);
    assert_eq!(due.iter().map(|c| c.job).collect::<Vec<_>>(), [busy]);
    // The index is asked from its front: the idle jobs lie behind the busy one.
    assert_eq!(world.state.index().due().next().map(|(_, job)| job), Some(busy));
}
