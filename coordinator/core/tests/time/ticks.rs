//! Short ways to ask for ticks.

use novacron_common::{
    spec::{Dst, TimeZone},
    units::UnixMillis,
};
use novacron_core::schedule::next_after;

pub fn instant(text: &str) -> UnixMillis {
    UnixMillis(text.parse::<chrono::DateTime<chrono::Utc>>().unwrap().timestamp_millis())
}

pub fn shown(at: UnixMillis) -> String {
    at.to_string()
}

pub fn zone(name: &str) -> TimeZone {
    name.parse().unwrap()
}

/// With the default policies.
pub fn next(schedule: &str, in_zone: &str, after: &str) -> Option<UnixMillis> {
    let schedule = schedule.parse().unwrap_or_else(|e| panic!("{schedule}: {e}"));
    next_after(&schedule, zone(in_zone), Dst::default(), instant(after))
}

/// So many ticks, without milliseconds.
pub fn some(count: usize, schedule: &str, in_zone: &str, dst: Dst, after: &str) -> Vec<String> {
    let schedule = schedule.parse().unwrap_or_else(|e| panic!("{schedule}: {e}"));
    let next = |at: UnixMillis| next_after(&schedule, zone(in_zone), dst, at);
    let ticks = std::iter::successors(next(instant(after)), |at| next(*at));
    ticks.take(count).map(|at| shown(at).replace(".000Z", "Z")).collect()
}
