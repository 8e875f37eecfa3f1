//! What a job wants when the wall clock it keeps to jumps: ahead over a time it is due at, or back to show one twice.

use serde::{Deserialize, Serialize};

/// What becomes of a tick whose time of day the clock leaves out (spring: 02:00 is followed by 03:00).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Gap {
    /// No run that day.
    Skip,
    /// One run at the first instant after the gap, however many ticks it swallowed.
    #[default]
    RunAtGapEnd,
    /// One run in the last second before the gap, however many ticks it swallowed.
    RunBefore,
}

/// What becomes of a tick whose time of day the clock shows twice (autumn: after 02:59 comes 02:00 again).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// One run, the first time.
    #[default]
    First,
    /// One run, the second time.
    Second,
    /// A run each time.
    Both,
}

/// Both policies. The default neither loses a run nor doubles one. They hold for schedules bound to hours of the
/// day; one that runs in every hour keeps to elapsed time and needs none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Dst {
    /// For times that the clock leaves out.
    pub gap: Gap,
    /// For times that the clock shows twice.
    pub fold: Fold,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_says_the_policies_by_name_and_what_is_left_out_is_the_default() {
        let read = |text| serde_json::from_str::<Dst>(text);
        assert_eq!(read("{}").unwrap(), Dst { gap: Gap::RunAtGapEnd, fold: Fold::First });
        assert_eq!(read(r#"{"gap":"run_before"}"#).unwrap(), Dst { gap: Gap::RunBefore, fold: Fold::First });
        let both = Dst { gap: Gap::Skip, fold: Fold::Both };
        assert_eq!(serde_json::to_string(&both).unwrap(), r#"{"gap":"skip","fold":"both"}"#);
        for bad in [r#"{"gap":"never"}"#, r#"{"fold":"third"}"#, r#"{"spring":"skip"}"#] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
