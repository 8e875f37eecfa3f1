//! Maps in which a key that is written twice is an error: JSON leaves open which of the two counts (RFC 8259,
//! section 4), so neither does.

use serde::{Deserializer, de};
use std::{collections::BTreeMap, fmt};

/// Most entries that are read at all.
const ENTRIES_MAX: usize = 1024;

struct Unique;

impl<'de> de::Visitor<'de> for Unique {
    type Value = BTreeMap<String, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object of at most {ENTRIES_MAX} texts, each key once")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut read = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, String>()? {
            let shown: String = key.chars().take(80).collect();
            if read.insert(key, value).is_some() {
                return Err(de::Error::custom(format!("the key {shown:?} is there twice")));
            }
            if read.len() > ENTRIES_MAX {
                return Err(de::Error::custom(format!("more than {ENTRIES_MAX} entries")));
            }
        }
        Ok(read)
    }
}

/// For `#[serde(deserialize_with)]`.
pub fn map<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    from.deserialize_map(Unique)
}

/// The same for a field that may be absent.
pub fn some_map<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    map(from).map(Some)
}
