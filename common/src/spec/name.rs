//! Names that are safe everywhere a name goes: file names, host names, XML text, terminal tables.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr, sync::Arc};

/// 1 to 63 characters, letters, digits, `-`, `_` and `.`, beginning with a letter or digit. A clone shares the text: a
/// name stands in its row and in the index of names, and a ledger may have a million of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, utoipa::ToSchema)]
#[schema(value_type = String)]
pub struct Name(Arc<str>);

/// A text that cannot be a [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Nothing was given.
    #[error("is empty: give 1 to 63 characters")]
    Empty,
    /// Longer than a DNS label.
    #[error("has {0} characters: at most {max} are allowed", max = Name::LENGTH_MAX)]
    TooLong(usize),
    /// A character outside the set.
    #[error(
        "has the character {0:?}: use letters, digits, '-', '_' and '.', beginning with a letter or digit"
    )]
    Character(char),
}

impl Name {
    /// The length of a DNS label (RFC 1035), since names become host names.
    pub const LENGTH_MAX: usize = 63;

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        let first = text.chars().next().ok_or(BadName::Empty)?;
        if text.len() > Self::LENGTH_MAX {
            return Err(BadName::TooLong(text.len()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        match text.chars().find(|c| !allowed(*c)).or((!first.is_ascii_alphanumeric()).then_some(first)) {
            Some(bad) => Err(BadName::Character(bad)),
            None => Ok(Self(text.into())),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_leave_its_folder_is_refused() {
        for bad in ["", "../x", ".hidden", "a/b", "a b", "<x>", "-rf", "ä"] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?} was taken");
        }
        assert!("x".repeat(64).parse::<Name>().is_err());
        for good in ["web-1", "a", "9lives", "ubuntu-22.04", "data_pipeline"] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
    }
}
