//! Cron expressions and time zones, checked on construction. When they are due is `core`'s to decide.

use croner::{Cron, parser::CronParser, parser::Seconds};
use serde::{Deserialize, Deserializer, Serialize};
use std::{fmt, str::FromStr};

/// A cron expression with 5 fields (POSIX), 6 fields (seconds first), or a nickname such as `@daily`.
#[derive(Debug, Clone)]
pub struct Schedule {
    text: String,
    cron: Box<Cron>,
}

/// A text that is not a cron expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// Longer than any real expression.
    #[error("has {0} characters: a cron expression has at most {max}", max = Schedule::LENGTH_MAX)]
    TooLong(usize),
    /// The parser refused it.
    #[error(
        "is not a cron expression ({reason}): give 5 fields (minute hour day month weekday), 6 with seconds first, or @hourly … @yearly"
    )]
    Unparsable {
        /// The parser's own words.
        reason: String,
    },
}

impl Schedule {
    /// The longest text that is looked at.
    pub const LENGTH_MAX: usize = 256;

    /// The text as the user wrote it.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The parsed pattern.
    pub fn cron(&self) -> &Cron {
        &self.cron
    }
}

impl FromStr for Schedule {
    type Err = BadSchedule;
    fn from_str(text: &str) -> Result<Self, BadSchedule> {
        if text.len() > Self::LENGTH_MAX {
            return Err(BadSchedule::TooLong(text.len()));
        }
        let parser = CronParser::builder().seconds(Seconds::Optional).build();
        let cron = parser.parse(text).map_err(|e| BadSchedule::Unparsable { reason: e.to_string() })?;
        Ok(Self { text: text.to_owned(), cron: Box::new(cron) })
    }
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

/// A zone of the IANA time zone database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeZone(chrono_tz::Tz);

/// A text that is no zone's name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an IANA time zone{hint}")]
pub struct BadTimeZone {
    text: String,
    hint: String,
}

impl TimeZone {
    /// Coordinated Universal Time.
    pub const UTC: Self = Self(chrono_tz::Tz::UTC);

    /// The zone's rules.
    pub fn tz(self) -> chrono_tz::Tz {
        self.0
    }
}

impl FromStr for TimeZone {
    type Err = BadTimeZone;
    fn from_str(text: &str) -> Result<Self, BadTimeZone> {
        text.parse::<chrono_tz::Tz>().map(Self).map_err(|_| {
            let names = chrono_tz::TZ_VARIANTS.iter().map(|z| z.name());
            let hint = crate::config::nearest(text, names).map_or_else(
                || ": write it like \"Europe/Berlin\" or \"UTC\"".to_owned(),
                |n| format!(": did you mean {n:?}?"),
            );
            BadTimeZone { text: text.chars().take(80).collect(), hint }
        })
    }
}

impl fmt::Display for TimeZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Serialize for TimeZone {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        self.0.name().serialize(to)
    }
}

impl<'de> Deserialize<'de> for TimeZone {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_expressions_are_taken_and_nonsense_is_not() {
        for good in ["0 2 * * *", "*/5 * * * * *", "@daily", "0 0 L * *", "0 9 * * MON-FRI"] {
            assert!(good.parse::<Schedule>().is_ok(), "{good}");
        }
        for bad in ["", "61 * * * *", "* * *", "every day", "0 2 * * * * * *"] {
            let error = bad.parse::<Schedule>().unwrap_err().to_string();
            assert!(error.contains("5 fields"), "{error}");
        }
        assert!("* ".repeat(400).parse::<Schedule>().is_err());
    }

    #[test]
    fn a_mistyped_zone_names_the_nearest() {
        let error = "Europe/Berlni".parse::<TimeZone>().unwrap_err();
        assert!(error.to_string().contains("Europe/Berlin"), "{error}");
    }
}
