//! The Gregorian calendar in whole numbers (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms"): cron
//! matching asks for dates a million times a second, and these have no failure to handle.

/// The last year that has ticks: RFC 3339 writes years with four digits.
pub const YEAR_MAX: i64 = 9999;

/// A day of the Gregorian calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Date {
    /// Year of the common era.
    pub year: i64,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
}

/// Days from 0000-03-01, where the algorithms count from, to 1970-01-01.
const EPOCH: i64 = 719_468;
const ERA_DAYS: i64 = 146_097;

/// The date of a day counted from 1970-01-01.
#[inline]
pub fn from_days(days: i64) -> Date {
    let shifted = days.saturating_add(EPOCH);
    let (era, of_era) = (shifted.div_euclid(ERA_DAYS), shifted.rem_euclid(ERA_DAYS));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Both are at most 31.
    Date { year, month: month as u32, day: day as u32 }
}

/// Days from 1970-01-01 to a date.
#[inline]
pub fn to_days(date: Date) -> i64 {
    let year = date.year - i64::from(date.month <= 2);
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let march_month = i64::from(if date.month > 2 { date.month - 3 } else { date.month + 9 });
    let of_year = (153 * march_month + 2) / 5 + i64::from(date.day) - 1;
    era * ERA_DAYS + of_era * 365 + of_era / 4 - of_era / 100 + of_year - EPOCH
}

/// The weekday of a day counted from 1970-01-01, a Thursday; 0 is Sunday.
#[inline]
pub fn weekday(days: i64) -> u32 {
    (days + 4).rem_euclid(7) as u32
}

/// How many days a month has.
#[inline]
pub fn month_length(year: i64, month: u32) -> u32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::Datelike;

    #[test]
    fn every_day_of_eight_centuries_is_the_day_that_chrono_says() {
        let start = chrono::NaiveDate::from_ymd_opt(1600, 1, 1).unwrap();
        let epoch = chrono::NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for day in start.iter_days().take(2 * ERA_DAYS as usize) {
            let number = (day - epoch).num_days();
            let date = Date { year: day.year().into(), month: day.month(), day: day.day() };
            assert_eq!((from_days(number), to_days(date)), (date, number));
            assert_eq!(weekday(number), day.weekday().num_days_from_sunday());
            let last = day.with_day(1).unwrap() + chrono::Months::new(1) - chrono::Days::new(1);
            assert_eq!(month_length(date.year, date.month), last.day());
        }
    }
}
