//! Which ticks are due, and what becomes of those that nobody committed in time.
//!
//! A tick that is late by up to [`MISFIRE_AFTER`] (a leader change, a busy second) is fired late, each on its own. An
//! older one was missed: of the missed ticks only the last is fired, and only if no later one is due anyway; the
//! others are counted in the job's record. Nothing is passed over silently.

use super::next_after;
use crate::{
    command::{FireCommit, JobPut, JobUpdate, NextTick},
    record::{JobRecord, Skip},
    state::State,
};
use novacron_common::{ids::JobId, spec::JobSpec, units::UnixMillis};
use std::time::Duration;

/// A tick that is later than this was missed (the threshold that Quartz calls misfire, and its default).
pub const MISFIRE_AFTER: Duration = Duration::from_secs(60);

/// Ticks passed over are counted up to here; more are not told apart.
pub const SKIPS_COUNTED_MAX: u64 = 10_000;

/// The commits to propose now, at most `limit`, the earliest first. Costs what is due: idle jobs are not looked at.
pub fn due(state: &State, now: UnixMillis, limit: usize) -> Vec<FireCommit> {
    let jobs = state.index().due().take_while(|(at, _)| *at <= now).take(limit);
    jobs.filter_map(|(_, job)| tick(state.job(job)?, now)).collect()
}

/// When the next tick of any job is due: until then the scheduler sleeps.
pub fn next_due(state: &State) -> Option<UnixMillis> {
    state.index().due().next().map(|(at, _)| at)
}

/// The tick of this job to commit now, if one is due.
pub fn tick(job: &JobRecord, now: UnixMillis) -> Option<FireCommit> {
    let first = job.next_at.filter(|at| *at <= now)?;
    let (scheduled_at, skip) = choose(&job.spec, first, now);
    Some(FireCommit {
        job: job.id,
        scheduled_at,
        revision: job.revision,
        next_at: next_after(&job.spec.schedule, job.spec.timezone, job.spec.dst, scheduled_at),
        skip,
    })
}

fn choose(spec: &JobSpec, first: UnixMillis, now: UnixMillis) -> (UnixMillis, Option<Skip>) {
    let threshold =
        UnixMillis(now.0.saturating_sub(i64::try_from(MISFIRE_AFTER.as_millis()).unwrap_or(i64::MAX)));
    if first >= threshold {
        return (first, None);
    }
    let next = |after| next_after(&spec.schedule, spec.timezone, spec.dst, after);
    let recent = next(UnixMillis(threshold.0 - 1)).filter(|at| *at <= now);
    let until = recent.unwrap_or_else(|| last_before(first, threshold, next));
    let count = ticks(first, next).take_while(|at| *at < until).take(skips_counted_max()).count();
    let skip = Skip { from: first, until, count: count as u64 };
    (until, (count > 0).then_some(skip))
}

fn skips_counted_max() -> usize {
    usize::try_from(SKIPS_COUNTED_MAX).unwrap_or(usize::MAX)
}

fn ticks(first: UnixMillis, next: impl Fn(UnixMillis) -> NextTick) -> impl Iterator<Item = UnixMillis> {
    std::iter::successors(Some(first), move |at| next(*at))
}

/// The last tick before `limit`, given that `first` is one. Looks back over ever longer stretches, so that a job
/// that ticks each second is not walked through from the beginning of a long outage.
fn last_before(
    first: UnixMillis,
    limit: UnixMillis,
    next: impl Fn(UnixMillis) -> NextTick + Copy,
) -> UnixMillis {
    let mut stretch: i64 = 60_000;
    let start = loop {
        let from = UnixMillis(limit.0.saturating_sub(stretch));
        if from <= first {
            break first;
        }
        match next(from).filter(|at| *at < limit) {
            Some(found) => break found,
            None => stretch = stretch.saturating_mul(2),
        }
    };
    ticks(start, next).take_while(|at| *at < limit).last().unwrap_or(first)
}

impl JobPut {
    /// The command for a new job, with its first tick after `now` (the proposer's clock).
    pub fn new(id: JobId, spec: JobSpec, now: UnixMillis) -> Self {
        let next_at = first_tick(&spec, now);
        Self { id, spec, next_at }
    }
}

impl JobUpdate {
    /// The command that gives a job a new definition. A change that leaves the ticks as they are leaves a due tick
    /// due; else they begin anew after `now`.
    pub fn new(job: &JobRecord, spec: JobSpec, now: UnixMillis) -> Self {
        let same = |a: &JobSpec, b: &JobSpec| {
            (&a.schedule, a.timezone, a.dst, a.enabled) == (&b.schedule, b.timezone, b.dst, b.enabled)
        };
        let next_at = if same(&job.spec, &spec) { job.next_at } else { first_tick(&spec, now) };
        Self { id: job.id, spec, revision: job.revision, next_at }
    }
}

fn first_tick(spec: &JobSpec, now: UnixMillis) -> NextTick {
    if spec.enabled { next_after(&spec.schedule, spec.timezone, spec.dst, now) } else { None }
}
