//! The next instants of a schedule, with those marked that a jump of the clock has moved or doubled.

use super::{
    next::{Origin, Policy, next_after, next_match},
    offsets::Offsets,
};
use chrono::TimeZone as _;
use novacron_common::{
    api::{PreviewTick, Transition},
    spec::{Dst, Schedule, TimeZone, schedule::Ticks},
    units::UnixMillis,
};

/// At most so many ticks are looked ahead.
pub const PREVIEW_MAX: usize = 1000;

/// The next `count` ticks (at most [`PREVIEW_MAX`]) later than `after`.
pub fn preview(
    schedule: &Schedule,
    zone: TimeZone,
    dst: Dst,
    after: UnixMillis,
    count: usize,
) -> Vec<PreviewTick> {
    let next = |after: UnixMillis| {
        let at = next_after(schedule, zone, dst, after)?;
        let transition = transition(schedule, zone, dst, after, at);
        Some(PreviewTick { at, local: local(zone, at), transition })
    };
    std::iter::successors(next(after), |tick| next(tick.at)).take(count.min(PREVIEW_MAX)).collect()
}

fn transition(
    schedule: &Schedule,
    zone: TimeZone,
    dst: Dst,
    after: UnixMillis,
    at: UnixMillis,
) -> Option<Transition> {
    let Ticks::Cron(cron) = schedule.ticks() else { return None };
    let offsets = Offsets::of(zone);
    let number = offsets.at(at.0 / 1000);
    let wall = at.0 / 1000 + offsets.get(number)?.offset;
    match next_match(cron, offsets, Policy::of(cron, dst), after)?.origin {
        Origin::Gap => Some(Transition::Gap),
        Origin::Match => offsets.shown_twice(number, wall).then_some(Transition::Fold),
    }
}

fn local(zone: TimeZone, at: UnixMillis) -> String {
    match zone.tz().timestamp_millis_opt(at.0) {
        chrono::LocalResult::Single(local) => local.format("%Y-%m-%dT%H:%M:%S%:z").to_string(),
        chrono::LocalResult::Ambiguous(..) | chrono::LocalResult::None => at.to_string(),
    }
}
