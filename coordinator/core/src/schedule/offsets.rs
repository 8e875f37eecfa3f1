//! A zone's offsets from UTC as stretches of time, each with one offset. chrono-tz tells the offset of an instant but
//! not when it changes next, so the changes are searched once for each zone in use, and kept.

use chrono::{Offset, TimeZone as _};
use novacron_common::spec::TimeZone;
use std::sync::OnceLock;

/// Time with one offset from UTC, until the next stretch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stretch {
    /// Its first second, since 1970 in UTC.
    pub start: i64,
    /// What the wall clock adds to UTC; seconds.
    pub offset: i64,
}

/// All stretches of a zone, rising. The first begins in 1970 (no tick lies before), the last has no end: chrono-tz
/// knows no changes after 2100.
#[derive(Debug, Clone, Copy)]
pub struct Offsets(&'static [Stretch]);

/// 2101-01-01.
const TABLES_END: i64 = 4_133_980_800;

/// Changes of one zone since 1970 lie at least 6.9 days apart (Boa Vista, October 2000), so none is overlooked.
const STEP: i64 = 3 * 24 * 3600;

impl Offsets {
    /// The zone's stretches; searched on first use (about a millisecond), then shared.
    pub fn of(zone: TimeZone) -> Self {
        static FOUND: [OnceLock<Box<[Stretch]>>; chrono_tz::TZ_VARIANTS.len()] =
            [const { OnceLock::new() }; chrono_tz::TZ_VARIANTS.len()];
        // Tz is an enum without fields, whose variants TZ_VARIANTS lists.
        match FOUND.get(zone.tz() as usize) {
            Some(slot) => Self(slot.get_or_init(|| search(zone))),
            None => Self(&[Stretch { start: 0, offset: 0 }]),
        }
    }

    /// The number of the stretch that holds this instant (seconds since 1970; earlier ones lie in the first).
    pub fn at(self, instant: i64) -> usize {
        self.0.partition_point(|stretch| stretch.start <= instant).saturating_sub(1)
    }

    /// The stretch of this number.
    pub fn get(self, number: usize) -> Option<Stretch> {
        self.0.get(number).copied()
    }

    /// The first second after the stretch of this number.
    pub fn end(self, number: usize) -> i64 {
        self.get(number + 1).map_or(i64::MAX, |next| next.start)
    }

    /// The wall-clock times that nobody sees at the beginning of this stretch: from the latest time shown before to
    /// the earliest shown from there on. Empty (the ends reversed or equal) unless the clock jumps ahead.
    pub fn left_out(self, number: usize) -> std::ops::Range<i64> {
        if number == 0 { 0..0 } else { self.shown_before(number)..self.shown_from(number) }
    }

    /// The wall-clock times that this stretch shows once more, or not for the last time.
    pub fn shown_twice(self, number: usize, wall: i64) -> bool {
        wall < self.shown_before(number) || wall >= self.shown_from(number + 1)
    }

    /// Wall-clock times from here on are new in this stretch; earlier ones were shown already.
    pub fn shown_before(self, number: usize) -> i64 {
        let before = number.saturating_sub(NEAR)..number;
        let ends = self.near(before).map(|(n, s)| self.end(n).saturating_add(s.offset));
        ends.max().unwrap_or(i64::MIN)
    }

    /// Wall-clock times from here on are shown by this stretch or a later one.
    pub fn shown_from(self, number: usize) -> i64 {
        let starts = self.near(number..number + NEAR).map(|(_, s)| s.start + s.offset);
        starts.min().unwrap_or(i64::MAX)
    }

    fn near(self, numbers: std::ops::Range<usize>) -> impl Iterator<Item = (usize, Stretch)> {
        numbers.filter_map(move |n| Some((n, self.get(n)?)))
    }
}

/// So many stretches may show one time of day: a jump back soon after another one.
const NEAR: usize = 3;

fn offset_at(zone: TimeZone, instant: i64) -> i64 {
    chrono::DateTime::from_timestamp(instant, 0).map_or(0, |at| {
        i64::from(zone.tz().offset_from_utc_datetime(&at.naive_utc()).fix().local_minus_utc())
    })
}

fn search(zone: TimeZone) -> Box<[Stretch]> {
    let mut found = vec![Stretch { start: 0, offset: offset_at(zone, 0) }];
    let mut offset = offset_at(zone, 0);
    for from in (0..TABLES_END).step_by(usize::try_from(STEP).unwrap_or(1)) {
        let mut low = from;
        while offset_at(zone, from + STEP) != offset && low < from + STEP {
            let start = first_change(zone, low, from + STEP, offset);
            offset = offset_at(zone, start);
            found.push(Stretch { start, offset });
            low = start;
        }
    }
    found.into()
}

/// The first second in `(low, high]` with another offset, given that there is one at `high` and not at `low`.
fn first_change(zone: TimeZone, mut low: i64, mut high: i64, offset: i64) -> i64 {
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if offset_at(zone, middle) == offset { low = middle } else { high = middle }
    }
    high
}
