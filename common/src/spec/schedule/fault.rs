//! Why a text is no schedule: which field, which character of it, and what to write instead.

use super::{Every, Schedule};
use std::fmt;

/// A field of a cron expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// Only with six fields.
    Second,
    /// The first of five.
    Minute,
    /// 0 to 23.
    Hour,
    /// 1 to 31.
    DayOfMonth,
    /// 1 to 12, or a name.
    Month,
    /// 0 to 7, or a name; 0 and 7 are Sunday.
    DayOfWeek,
}

impl Field {
    /// The lowest and the highest number that may be written.
    pub const fn range(self) -> (u32, u32) {
        match self {
            Self::Second | Self::Minute => (0, 59),
            Self::Hour => (0, 23),
            Self::DayOfMonth => (1, 31),
            Self::Month => (1, 12),
            Self::DayOfWeek => (0, 7),
        }
    }

    /// Names for the numbers from the lowest on.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Month => {
                &["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
            }
            Self::DayOfWeek => &["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"],
            Self::Second | Self::Minute | Self::Hour | Self::DayOfMonth => &[],
        }
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Second => "second",
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::DayOfMonth => "day-of-month",
            Self::Month => "month",
            Self::DayOfWeek => "weekday",
        })
    }
}

/// What is wrong with an item of a field.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadItem {
    /// `1,,2`, or a comma at an end.
    #[error("nothing between two commas, or after the last")]
    Empty,
    /// A word.
    #[error("{text:?} is neither a number{names} nor `*`")]
    NotAValue {
        /// As written.
        text: String,
        /// `, a name like MON` where names are taken.
        names: String,
    },
    /// `61` among minutes.
    #[error("{value} is out of range: {low} to {high}")]
    OutOfRange {
        /// As written.
        value: u32,
        /// Lowest allowed.
        low: u32,
        /// Highest allowed.
        high: u32,
    },
    /// `20-10` among days of the month, whose number changes from month to month.
    #[error("the range {from}-{to} runs backwards: write {from}-31,1-{to}")]
    Backwards {
        /// First day.
        from: u32,
        /// Last day.
        to: u32,
    },
    /// `*/0`, `*/x`.
    #[error("{text:?} is no step: a whole number of 1 to {max} follows the `/`")]
    Step {
        /// As written.
        text: String,
        /// Largest step that leaves more than one value.
        max: u32,
    },
    /// A step past the field's end, which people write when they mean an interval.
    #[error("a step of {step} leads past the field's end ({max}): for a longer interval use @every")]
    StepTooLong {
        /// As written.
        step: u32,
        /// Largest value of the field.
        max: u32,
    },
    /// `?` in a field that has no alternative.
    #[error("`?` stands for \"no matter\" in the day-of-month and weekday fields only: write `*`")]
    QuestionMark,
    /// `L`, `W` or `#` where they mean nothing.
    #[error("{text:?}: {rule}")]
    Special {
        /// As written.
        text: String,
        /// What would be right.
        rule: &'static str,
    },
}

/// A text that is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSchedule {
    /// Longer than any real expression.
    #[error("has {0} characters: a schedule has at most {max}", max = Schedule::LENGTH_MAX)]
    TooLong(usize),
    /// Neither five nor six.
    #[error(
        "has {found} fields: give 5 fields (minute hour day-of-month month weekday), 6 with seconds first, @hourly … @yearly, or \"@every 90s\""
    )]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// A field cannot be understood.
    #[error("has a fault in the {field} field at character {position}: {fault}")]
    Field {
        /// Which field.
        field: Field,
        /// Where the item begins in the whole text, counted from 1.
        position: usize,
        /// What is wrong with it.
        fault: BadItem,
    },
    /// `@often`.
    #[error("begins with {text:?}, which is no nickname{hint}")]
    Nickname {
        /// As written.
        text: String,
        /// The nearest that there is, or all of them.
        hint: String,
    },
    /// `TZ=…` before the fields.
    #[error("has a time zone before its fields: give it in the field `timezone`")]
    ZoneInside,
    /// `@every` with something that is no interval.
    #[error("has {text:?} after @every: write whole numbers with units, like 90s, 1h30m, 2d or 1w")]
    Interval {
        /// As written.
        text: String,
    },
    /// An interval that is too short or too long.
    #[error("has an interval of {seconds} s: @every takes 1 s to {max} s (365 days)", max = Every::MAX_SECONDS)]
    IntervalOutOfRange {
        /// As written, in seconds.
        seconds: u64,
    },
    /// February 30th.
    #[error("never fires: none of its months has such a day")]
    Never,
}
