//! Lengths of time, as users write them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A length of time: a number of milliseconds, or a text such as `"30s"`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum Period {
    /// Milliseconds.
    Millis(u64),
    /// A number with a unit: `ms`, `s`, `m`, `h` or `d`.
    Text(String),
}

impl Period {
    /// Milliseconds.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn millis(&self) -> Result<u64, String> {
        match self {
            Self::Millis(n) => Ok(*n),
            Self::Text(text) => parse_duration(text).ok_or_else(|| {
                let shown: String = text.chars().take(40).collect();
                format!("{shown:?} is no length of time: write 30000 (milliseconds), \"30s\", \"5m\", \"2h\" or \"7d\"")
            }),
        }
    }
}

/// Milliseconds in a text such as `250ms`, `30s`, `5m`, `2h` or `7d`.
pub fn parse_duration(text: &str) -> Option<u64> {
    let split = text.find(|c: char| !c.is_ascii_digit())?;
    let factor = match &text[split..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 24 * 3_600_000,
        _ => return None,
    };
    text[..split].parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_units() {
        assert_eq!(parse_duration("30s"), Some(30_000));
        assert_eq!(parse_duration("250ms"), Some(250));
        assert_eq!(parse_duration("7d"), Some(604_800_000));
        for bad in ["", "s", "30", "30y", "-1s", "1.5h", "99999999999999999999h", "99999999999999999h"] {
            assert_eq!(parse_duration(bad), None, "{bad}");
        }
    }
}
