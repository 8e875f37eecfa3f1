//! What becomes of ticks that nobody was there to commit in time.
//!
//! A tick that is late by up to [`MISFIRE_AFTER`] (a leader change, a busy second) is fired late, each on its own.
//! An older one was missed, and the job's policy says how many of those are fired all the same: always the latest.
//! Every tick that is passed over is part of a [`Skip`] with its reason. Nothing is passed over silently.

use crate::{
    command::NextTick,
    record::{Skip, TickReason},
};
use novacron_common::{
    spec::{JobSpec, Misfire, MisfirePolicy},
    units::UnixMillis,
};
use std::{collections::VecDeque, time::Duration};

/// A tick that is later than this was missed (the threshold that Quartz calls misfire, and its default).
pub const MISFIRE_AFTER: Duration = Duration::from_secs(60);

/// Ticks passed over are counted up to here; more are not told apart.
pub const SKIPS_COUNTED_MAX: u64 = 10_000;

/// Fires in one command.
const TICKS_MAX: usize = 1000;

/// What is committed of the ticks that are due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    /// Fired, in order.
    pub fire: Vec<UnixMillis>,
    /// Passed over, all before the first that is fired.
    pub skip: Option<Skip>,
}

/// What a job, or a workflow, says of late ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lateness {
    /// Of those that nobody was there to commit.
    pub misfire: Misfire,
    /// What has not started this long after its instant is missed, milliseconds.
    pub start_deadline_ms: Option<u64>,
}

impl From<&JobSpec> for Lateness {
    fn from(spec: &JobSpec) -> Self {
        Self { misfire: spec.misfire, start_deadline_ms: spec.start_deadline_ms }
    }
}

/// A due tick may be too old for two reasons; the tighter one is given.
fn floor(late: Lateness, now: UnixMillis) -> (UnixMillis, TickReason) {
    let before = |ms: Option<u64>| ms.map_or(UnixMillis(i64::MIN), |ms| minus(now, ms));
    let deadline = before(late.start_deadline_ms);
    let window = before(late.misfire.window_ms);
    match deadline >= window {
        true => (deadline, TickReason::StartDeadline),
        false => (window, TickReason::TooOld),
    }
}

fn minus(at: UnixMillis, ms: u64) -> UnixMillis {
    UnixMillis(at.0.saturating_sub(i64::try_from(ms).unwrap_or(i64::MAX)))
}

/// `first` is the earliest tick that is due at `now`; `next` gives the tick after an instant.
pub(crate) fn choose(
    late: Lateness,
    first: UnixMillis,
    now: UnixMillis,
    next: impl Fn(UnixMillis) -> NextTick + Copy,
) -> Choice {
    let (floor, floor_reason) = floor(late, now);
    let fresh_from = minus(now, u64::try_from(MISFIRE_AFTER.as_millis()).unwrap_or(u64::MAX)).max(floor);
    let fresh: Vec<_> = from(first, fresh_from, next).take_while(|at| *at <= now).take(TICKS_MAX).collect();
    let wanted = match late.misfire.policy {
        MisfirePolicy::None => 0,
        MisfirePolicy::Last => usize::from(fresh.is_empty()),
        MisfirePolicy::All => late.misfire.max as usize,
    };
    let old_end = fresh.first().copied().unwrap_or(UnixMillis(now.0.saturating_add(1)));
    let old_first = from(first, floor, next).next().filter(|at| *at < old_end && wanted > 0);
    let mut fire = old_first.map_or_else(Vec::new, |at| last_before(at, old_end, wanted, next));
    fire.extend(fresh);
    let end = fire.first().copied().unwrap_or(UnixMillis(now.0.saturating_add(1)));
    let skip = (first < end).then(|| passed_over(first, end, next));
    let skip = skip.map(|skip| Skip { reason: reason(late, skip.until, floor, floor_reason), ..skip });
    Choice { fire, skip }
}

fn reason(late: Lateness, last: UnixMillis, floor: UnixMillis, floor_reason: TickReason) -> TickReason {
    match late.misfire.policy {
        _ if last < floor => floor_reason,
        MisfirePolicy::None => TickReason::Misfire,
        MisfirePolicy::Last | MisfirePolicy::All => TickReason::Superseded,
    }
}

/// The ticks from `first` to before `end`; the reason is the caller's to give.
pub(super) fn passed_over(
    first: UnixMillis,
    end: UnixMillis,
    next: impl Fn(UnixMillis) -> NextTick + Copy,
) -> Skip {
    let counted = usize::try_from(SKIPS_COUNTED_MAX).unwrap_or(usize::MAX);
    let count = ticks(first, next).take_while(|at| *at < end).take(counted).count() as u64;
    let until = last_before(first, end, 1, next).last().copied().unwrap_or(first);
    Skip { from: first, until, count, reason: TickReason::Superseded }
}

fn ticks(
    first: UnixMillis,
    next: impl Fn(UnixMillis) -> NextTick + Copy,
) -> impl Iterator<Item = UnixMillis> {
    std::iter::successors(Some(first), move |at| next(*at))
}

/// The ticks at or after `floor`, none earlier than `first`, which is one.
fn from(
    first: UnixMillis,
    floor: UnixMillis,
    next: impl Fn(UnixMillis) -> NextTick + Copy,
) -> impl Iterator<Item = UnixMillis> {
    let start = if floor <= first { Some(first) } else { next(minus(floor, 1)) };
    std::iter::successors(start, move |at| next(*at))
}

/// The last `wanted` ticks before `end`, given that `first` is one. Looks back over ever longer stretches, so that
/// a job that ticks each second is not walked through from the beginning of a long outage.
fn last_before(
    first: UnixMillis,
    end: UnixMillis,
    wanted: usize,
    next: impl Fn(UnixMillis) -> NextTick + Copy,
) -> Vec<UnixMillis> {
    let mut stretch: u64 = 1000 * (wanted as u64 + 1);
    loop {
        let start = minus(end, stretch).max(first);
        let mut last = VecDeque::with_capacity(wanted + 1);
        for at in from(first, start, next).take_while(|at| *at < end) {
            last.push_back(at);
            if last.len() > wanted {
                last.pop_front();
            }
        }
        if last.len() == wanted || start == first {
            return last.into();
        }
        stretch = stretch.saturating_mul(2);
    }
}
