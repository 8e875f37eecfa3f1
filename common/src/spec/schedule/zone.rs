//! Whose wall clock a schedule means.

use serde::{Deserialize, Deserializer, Serialize};
use std::{fmt, str::FromStr};

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
    pub const fn tz(self) -> chrono_tz::Tz {
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
    fn a_mistyped_zone_names_the_nearest() {
        let error = "Europe/Berlni".parse::<TimeZone>().unwrap_err();
        assert!(error.to_string().contains("Europe/Berlin"), "{error}");
    }
}
