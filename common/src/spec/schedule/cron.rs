//! A cron expression as sets of bits, and the days and times of day that it matches on a plain calendar: a clock
//! that never jumps. What a jump does to a match is decided by the coordinator's core.
//!
//! A value takes 64 bytes and owns nothing, so that a million jobs cost what they must; finding the next match costs
//! tens of nanoseconds.

use super::date::{self, Date};

/// Seconds of a day on a clock that does not jump.
pub const DAY: i64 = 86_400;

/// The Gregorian calendar repeats after 400 years, weekdays included: what did not match in that time never will.
const CYCLE_MONTHS: u32 = 400 * 12;

/// Which days of the month the third (fourth) field names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MonthDays {
    /// Bit `d`: day `d` (1 to 31).
    pub plain: u32,
    /// Bit `n`: `n` days before the last one (`L` is bit 0, `L-3` bit 3).
    pub from_last: u32,
    /// Bit `d`: the weekday nearest to day `d` within the month (`15W`).
    pub nearest_weekday: u32,
    /// The last day that is no Saturday or Sunday (`LW`).
    pub last_weekday: bool,
    /// The field begins with `*` or `?`.
    pub star: bool,
}

/// Which weekdays the last field names; 0 is Sunday.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WeekDays {
    /// Bit `w`: each weekday `w`.
    pub plain: u8,
    /// Bit `w`: the last weekday `w` of the month (`5L`).
    pub last: u8,
    /// At `n - 1`, bit `w`: the `n`th weekday `w` of the month (`5#3`).
    pub nth: [u8; 5],
    /// The field begins with `*` or `?`.
    pub star: bool,
}

/// A cron expression, ready to be matched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cron {
    /// Bit `s`: second `s`.
    pub seconds: u64,
    /// Bit `m`: minute `m`.
    pub minutes: u64,
    /// Bit `h`: hour `h`.
    pub hours: u32,
    /// Bit `m`: month `m` (1 to 12).
    pub months: u16,
    /// Days of the month.
    pub month_days: MonthDays,
    /// Weekdays.
    pub week_days: WeekDays,
}

impl Cron {
    /// Whether it runs in every hour of the day: an interval rather than an appointment.
    #[inline]
    pub fn runs_every_hour(&self) -> bool {
        self.hours == (1 << 24) - 1
    }

    /// The first match at or after `from`, both in seconds since 1970 as a wall clock shows them; `None` if there is
    /// none before the year 10,000.
    #[inline]
    pub fn first_match(&self, from: i64) -> Option<i64> {
        let (day, time) = (from.div_euclid(DAY), from.rem_euclid(DAY));
        let first = self.day_at_or_after(day)?;
        if first == day
            && let Some(at) = self.time_at_or_after(time)
        {
            return Some(day * DAY + at);
        }
        let next = if first == day { self.day_at_or_after(day + 1)? } else { first };
        Some(next * DAY + self.time_at_or_after(0)?)
    }

    /// The first matching day at or after this one, in days since 1970.
    #[inline]
    pub fn day_at_or_after(&self, day: i64) -> Option<i64> {
        let Date { mut year, mut month, day: mut of_month } = date::from_days(day);
        for _ in 0..=CYCLE_MONTHS {
            if year > date::YEAR_MAX {
                return None;
            }
            if self.months & (1 << month) != 0 {
                let left = self.days_of(year, month) & (u32::MAX << of_month);
                if left != 0 {
                    return Some(date::to_days(Date { year, month, day: left.trailing_zeros() }));
                }
            }
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
            of_month = 1;
        }
        None
    }

    /// The first matching time of day at or after this one, in seconds.
    #[inline]
    fn time_at_or_after(&self, time: i64) -> Option<i64> {
        let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
        let first_minute = lowest(self.minutes, 0)?;
        let first_second = lowest(self.seconds, 0)?;
        let at_hour = lowest(u64::from(self.hours), hour)?;
        if at_hour == hour
            && let Some(at_minute) = lowest(self.minutes, minute)
        {
            if at_minute > minute {
                return Some(hour * 3600 + at_minute * 60 + first_second);
            }
            if let Some(at_second) = lowest(self.seconds, second) {
                return Some(hour * 3600 + minute * 60 + at_second);
            }
            if let Some(later) = lowest(self.minutes, minute + 1) {
                return Some(hour * 3600 + later * 60 + first_second);
            }
        }
        let at_hour = if at_hour == hour { lowest(u64::from(self.hours), hour + 1)? } else { at_hour };
        Some(at_hour * 3600 + first_minute * 60 + first_second)
    }

    /// Bit `d`: day `d` of this month matches. If both day fields are restricted either will do, else both must
    /// hold (crontab(5); like Vixie cron, a field that begins with `*` is not restricted).
    #[inline]
    fn days_of(&self, year: i64, month: u32) -> u32 {
        let length = date::month_length(year, month);
        let first = date::weekday(date::to_days(Date { year, month, day: 1 }));
        let by_date = self.month_days.of(length, first);
        let by_weekday = self.week_days.of(length, first);
        if self.month_days.star || self.week_days.star { by_date & by_weekday } else { by_date | by_weekday }
    }
}

/// The lowest bit set at or above `from`.
#[inline]
fn lowest(set: u64, from: i64) -> Option<i64> {
    let left = if from < 64 { set & (u64::MAX << from) } else { 0 };
    (left != 0).then(|| i64::from(left.trailing_zeros()))
}

/// Bits 1 to `length`.
#[inline]
fn all_days(length: u32) -> u32 {
    u32::MAX >> (31 - length) & !1
}

impl MonthDays {
    /// Bit `d`: day `d` of a month of this length, whose first day is this weekday, is named.
    #[inline]
    fn of(&self, length: u32, first: u32) -> u32 {
        let mut days = self.plain;
        for back in bits(self.from_last).filter(|back| *back < length) {
            days |= 1 << (length - back);
        }
        for day in bits(self.nearest_weekday).filter(|day| *day <= length) {
            days |= 1 << nearest_weekday(day, length, first);
        }
        if self.last_weekday {
            days |= 1 << nearest_weekday_before(length, first);
        }
        days & all_days(length)
    }
}

impl WeekDays {
    #[inline]
    fn of(&self, length: u32, first: u32) -> u32 {
        /// Every seventh day from the first on.
        const WEEKLY: u32 = 1 << 1 | 1 << 8 | 1 << 15 | 1 << 22 | 1 << 29;
        if self.plain == 0x7f {
            return all_days(length);
        }
        let mut days = 0;
        for weekday in 0..7 {
            let after = (weekday + 7 - first) % 7;
            if self.plain >> weekday & 1 != 0 {
                days |= WEEKLY << after;
            }
            if self.last >> weekday & 1 != 0 {
                days |= 1 << (1 + after + (length - 1 - after) / 7 * 7);
            }
            for (n, set) in (0u32..).zip(self.nth) {
                if set >> weekday & 1 != 0 && 1 + after + 7 * n <= length {
                    days |= 1 << (1 + after + 7 * n);
                }
            }
        }
        days & all_days(length)
    }
}

/// The numbers of the bits set, rising.
#[inline]
fn bits(mut set: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let next = (set != 0).then(|| set.trailing_zeros())?;
        set &= set - 1;
        Some(next)
    })
}

/// Saturday gives Friday and Sunday Monday, but never in another month: then the next nearest.
#[inline]
fn nearest_weekday(day: u32, length: u32, first: u32) -> u32 {
    match (first + day - 1) % 7 {
        6 if day > 1 => day - 1,
        6 => day + 2,
        0 if day < length => day + 1,
        0 => day - 2,
        _ => day,
    }
}

#[inline]
fn nearest_weekday_before(day: u32, first: u32) -> u32 {
    match (first + day - 1) % 7 {
        6 => day - 1,
        0 => day - 2,
        _ => day,
    }
}
