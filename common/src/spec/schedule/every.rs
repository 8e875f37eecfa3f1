//! `@every 90s`: an interval of elapsed time. Its ticks are the multiples of the interval since 1970-01-01T00:00Z, so
//! that they need no state, are the same for every coordinator, and neither a restart nor an offset change moves them.

use super::{fault::BadSchedule, field::shown};

/// An interval in whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Every(u32);

impl Every {
    /// The longest interval: 365 days.
    pub const MAX_SECONDS: u32 = 365 * 24 * 3600;

    /// Its length in seconds: 1 to [`Self::MAX_SECONDS`].
    pub fn seconds(self) -> u32 {
        self.0
    }

    /// Reads `90S`, `1H30M`, `2D`: what follows `@EVERY`, in capitals.
    pub(super) fn parse(text: &str) -> Result<Self, BadSchedule> {
        let bad = || BadSchedule::Interval { text: shown(text) };
        let mut left = text;
        let mut total: u64 = 0;
        while !left.is_empty() {
            let digits = left.bytes().take_while(u8::is_ascii_digit).count();
            let (number, rest) = left.split_at(digits);
            let number: u64 =
                if digits <= 9 { number.parse().map_err(|_| bad())? } else { return Err(bad()) };
            let unit = rest.chars().next().and_then(seconds_of).ok_or_else(bad)?;
            // At most nine digits each, and a text of at most 256 characters: no overflow.
            total += number * unit;
            left = &rest[1..];
        }
        match u32::try_from(total) {
            _ if text.is_empty() => Err(bad()),
            Ok(seconds @ 1..=Self::MAX_SECONDS) => Ok(Self(seconds)),
            _ => Err(BadSchedule::IntervalOutOfRange { seconds: total }),
        }
    }
}

fn seconds_of(unit: char) -> Option<u64> {
    match unit {
        'S' => Some(1),
        'M' => Some(60),
        'H' => Some(3600),
        'D' => Some(24 * 3600),
        'W' => Some(7 * 24 * 3600),
        _ => None,
    }
}
