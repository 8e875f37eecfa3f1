//! Schedules and time zones, checked on construction. When they are due is `core`'s to decide.
//!
//! The parser is our own: croner, which we began with, needs 5 kB for each expression (one byte a year), says neither
//! which field nor which character it refuses, and knows no `@every`.

mod cron;
mod date;
mod every;
mod fault;
mod field;
mod zone;

pub use cron::{Cron, DAY, MonthDays, WeekDays};
pub use every::Every;
pub use fault::{BadItem, BadSchedule, Field};
pub use zone::{BadTimeZone, TimeZone};

use field::{Text, month_days, numbers, shown, week_days};
use serde::{Deserialize, Deserializer, Serialize};
use std::{fmt, str::FromStr};

/// A cron expression with 5 fields (POSIX), 6 fields (seconds first), a nickname such as `@daily`, or an interval
/// such as `@every 90s`.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: Box<str>,
    ticks: Ticks,
}

/// What a schedule's text means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ticks {
    /// Whenever a wall clock matches.
    Cron(Cron),
    /// Multiples of an interval.
    Every(Every),
}

impl Schedule {
    /// The longest text that is looked at.
    pub const LENGTH_MAX: usize = 256;

    /// The text as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it means.
    pub fn ticks(&self) -> &Ticks {
        &self.ticks
    }
}

const NICKNAMES: [(&str, &str); 7] = [
    ("@YEARLY", "0 0 1 1 *"),
    ("@ANNUALLY", "0 0 1 1 *"),
    ("@MONTHLY", "0 0 1 * *"),
    ("@WEEKLY", "0 0 * * 0"),
    ("@DAILY", "0 0 * * *"),
    ("@MIDNIGHT", "0 0 * * *"),
    ("@HOURLY", "0 * * * *"),
];

impl FromStr for Schedule {
    type Err = BadSchedule;
    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        if text.len() > Self::LENGTH_MAX {
            return Err(BadSchedule::TooLong(text.len()));
        }
        let ticks = parse(&text.to_ascii_uppercase())?;
        Ok(Self { text: text.into(), ticks })
    }
}

fn parse(text: &str) -> Result<Ticks, BadSchedule> {
    let trimmed = text.trim_ascii();
    if let Some(interval) =
        trimmed.strip_prefix("@EVERY").filter(|rest| !rest.starts_with(char::is_alphanumeric))
    {
        return Every::parse(interval.trim_ascii_start()).map(Ticks::Every);
    }
    if trimmed.starts_with('@') {
        return nickname(trimmed);
    }
    if trimmed.starts_with("TZ=") || trimmed.starts_with("CRON_TZ=") {
        return Err(BadSchedule::ZoneInside);
    }
    let cron = fields(text)?;
    // Any 400 years have all the months that there are.
    if cron.day_at_or_after(0).is_none() { Err(BadSchedule::Never) } else { Ok(Ticks::Cron(cron)) }
}

fn nickname(text: &str) -> Result<Ticks, BadSchedule> {
    match NICKNAMES.iter().find(|(name, _)| *name == text) {
        Some((_, fields_of_it)) => fields(fields_of_it).map(Ticks::Cron),
        None => {
            let names = NICKNAMES.iter().map(|(name, _)| *name).chain(["@EVERY"]);
            let hint = crate::config::nearest(text, names).map_or_else(
                || {
                    ": there are @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually and @every"
                        .to_owned()
                },
                |name| format!(": did you mean {}?", name.to_lowercase()),
            );
            Err(BadSchedule::Nickname { text: shown(&text.to_lowercase()), hint })
        }
    }
}

fn fields(text: &str) -> Result<Cron, BadSchedule> {
    let found: Vec<(usize, &str)> = split(text).collect();
    let part = |field, (at, text)| Text { field, text, at };
    let (second, five) = match *found.as_slice() {
        [minute, hour, day, month, weekday] => (None, [minute, hour, day, month, weekday]),
        [second, minute, hour, day, month, weekday] => (Some(second), [minute, hour, day, month, weekday]),
        _ => return Err(BadSchedule::Fields { found: found.len() }),
    };
    let [minute, hour, day, month, weekday] = five;
    // Each set is as wide as its field's numbers, which end at 59, 23 and 12.
    Ok(Cron {
        seconds: second.map_or(Ok(1), |second| numbers(part(Field::Second, second)))?,
        minutes: numbers(part(Field::Minute, minute))?,
        hours: numbers(part(Field::Hour, hour))? as u32,
        month_days: month_days(part(Field::DayOfMonth, day))?,
        months: numbers(part(Field::Month, month))? as u16,
        week_days: week_days(part(Field::DayOfWeek, weekday))?,
    })
}

/// The words of a text and where each begins.
fn split(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut at = 0;
    text.split(|c: char| c.is_ascii_whitespace()).filter_map(move |word| {
        let begins = at;
        at += word.len() + 1;
        (!word.is_empty()).then_some((begins, word))
    })
}

impl PartialEq for Schedule {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}
impl Eq for Schedule {}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Schedule {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.text.serialize(to)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
