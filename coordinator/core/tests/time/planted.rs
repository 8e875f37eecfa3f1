//! Mistakes that schedulers have made, as variants of `next_after`: the checker must find each of them. A net that
//! catches nothing proves nothing.

use crate::{checker::Candidate, oracle::shown_at};
use chrono::{Offset, TimeZone as _};
use novacron_common::{
    api::Transition,
    spec::{Dst, Fold, Gap, Schedule, TimeZone},
    units::UnixMillis,
};
use novacron_core::schedule::{next_after, preview};

/// Each with the name it gets in the report.
pub const MISTAKES: [(&str, Candidate); 11] = [
    ("the fold is ignored: runs double", |s, z, dst, at| {
        next_after(s, z, Dst { fold: Fold::Both, ..dst }, at)
    }),
    ("the second showing is taken for the first", |s, z, dst, at| {
        next_after(
            s,
            z,
            Dst { fold: if dst.fold == Fold::Second { Fold::First } else { dst.fold }, ..dst },
            at,
        )
    }),
    ("a run in the gap is lost", |s, z, dst, at| next_after(s, z, Dst { gap: Gap::Skip, ..dst }, at)),
    ("run_before runs after", |s, z, dst, at| {
        next_after(
            s,
            z,
            Dst { gap: if dst.gap == Gap::RunBefore { Gap::RunAtGapEnd } else { dst.gap }, ..dst },
            at,
        )
    }),
    ("a run in the gap is moved by half an hour too much", |s, z, dst, at| {
        let tick = preview(s, z, dst, at, 1).pop()?;
        let late = if tick.transition == Some(Transition::Gap) { 1_800_000 } else { 0 };
        Some(UnixMillis(tick.at.0 + late))
    }),
    ("the offset of now is used for what comes later", |s, z, dst, at| with_offset_of(at, s, z, dst, at)),
    ("offset changes after 2037 are unknown", |s, z, dst, at| {
        let end = UnixMillis(i64::from(i32::MAX) * 1000);
        if at < end { next_after(s, z, dst, at) } else { with_offset_of(end, s, z, dst, at) }
    }),
    ("an interval stands still while the clock repeats itself", |s, z, dst, at| {
        let mut tick = next_after(s, z, dst, at)?;
        while shown_at(z.tz(), tick.0 / 1000 - 3600) == shown_at(z.tz(), tick.0 / 1000) {
            tick = next_after(s, z, dst, tick)?;
        }
        Some(tick)
    }),
    ("a tick comes again when asked for at its own instant", |s, z, dst, at| {
        next_after(s, z, dst, UnixMillis(at.0 - 1))
    }),
    ("of two restricted day fields only the first counts", |s, z, dst, at| {
        let mut fields: Vec<_> = s.as_str().split(' ').collect();
        let (days, weekdays) = (fields[fields.len() - 3], fields.len() - 1);
        if !days.starts_with(['*', '?']) {
            fields[weekdays] = "*";
        }
        next_after(&fields.join(" ").parse().ok()?, z, dst, at)
    }),
    ("the nearest working day is the day itself", |s, z, dst, at| {
        let fields = s.as_str().split(' ').map(|f| f.strip_suffix('W').unwrap_or(f)).collect::<Vec<_>>();
        next_after(&fields.join(" ").parse().ok()?, z, dst, at)
    }),
];

/// The next tick, had the zone for ever the offset that it has at `known`.
fn with_offset_of(
    known: UnixMillis,
    s: &Schedule,
    z: TimeZone,
    dst: Dst,
    at: UnixMillis,
) -> Option<UnixMillis> {
    let utc = chrono::DateTime::from_timestamp_millis(known.0)?.naive_utc();
    let offset = i64::from(z.tz().offset_from_utc_datetime(&utc).fix().local_minus_utc()) * 1000;
    let wall = next_after(s, TimeZone::UTC, dst, UnixMillis(at.0 + offset))?;
    Some(UnixMillis(wall.0 - offset))
}
