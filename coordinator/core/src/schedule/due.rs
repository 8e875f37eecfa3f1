//! Which ticks are due. Costs what is due: idle jobs are not looked at.

use super::{
    misfire::{choose, passed_over},
    next_after,
};
use crate::{
    command::{FireCommit, JobPut, JobUpdate, NextTick},
    record::{JobPulse, JobRecord, Skip, TickReason},
    state::State,
};
use novacron_common::{
    ids::JobId,
    planted::{self, Mistake},
    spec::JobSpec,
    units::UnixMillis,
};

/// Where a tick is among those that are due.
pub type DuePlace = (UnixMillis, JobId);

/// The commits to propose now, at most `limit`, the earliest first.
pub fn due(state: &State, now: UnixMillis, limit: usize) -> Vec<FireCommit> {
    due_behind(state, now, None, limit).0
}

/// The same behind a place, and the place up to which they go; `None` if nothing is due behind it. What is before the
/// place may be under way to the ledger: it is not looked at, so that nobody has to wait for it.
pub fn due_behind(
    state: &State,
    now: UnixMillis,
    behind: Option<DuePlace>,
    limit: usize,
) -> (Vec<FireCommit>, Option<DuePlace>) {
    let places = state.index().due_behind(behind).take_while(|(at, _)| *at <= now).take(limit);
    let mut upto = None;
    let ticks = places.inspect(|place| upto = Some(*place));
    let commits = ticks.filter_map(|(_, job)| tick(state.job(job)?, state.pulse(job)?, now)).collect();
    (commits, upto)
}

/// When the next tick of any job is due: until then the scheduler sleeps.
pub fn next_due(state: &State) -> Option<UnixMillis> {
    state.index().due().next().map(|(at, _)| at)
}

/// The ticks of this job to commit now, if any is due.
pub fn tick(job: &JobRecord, pulse: &JobPulse, now: UnixMillis) -> Option<FireCommit> {
    let listed = pulse.next_at.filter(|at| *at <= now)?;
    // An edit that was made from an older view may have listed a tick that was dealt with since: go on after that.
    let dealt_with = pulse.last_tick.filter(|last| *last >= listed);
    let first = dealt_with.map_or(Some(listed), |last| next(&job.spec, last)).filter(|at| *at <= now);
    let choice = first.map(|first| choose((&job.spec).into(), first, now, |after| next(&job.spec, after)));
    let (fire, skip) = choice.map_or((Vec::new(), None), |choice| (choice.fire, choice.skip));
    let until = fire.last().copied().or(skip.map(|skip| skip.until)).or(dealt_with).unwrap_or(listed);
    let counted_from = if planted::is(Mistake::TickSkipped) { UnixMillis(until.0 + 1000) } else { until };
    let next_at = next(&job.spec, counted_from);
    Some(FireCommit { job: job.id, fire, until, revision: job.revision, next_at, skip })
}

fn next(spec: &JobSpec, after: UnixMillis) -> NextTick {
    next_after(&spec.schedule, spec.timezone, spec.dst, after)
}

impl JobPut {
    /// The command for a new job, with its first tick after `now` (the proposer's clock).
    pub fn new(id: JobId, spec: JobSpec, now: UnixMillis) -> Self {
        // Of a paused job too: a schedule that never comes is refused either way.
        let next_at = next(&spec, now);
        Self { id, spec, next_at }
    }
}

impl JobUpdate {
    /// The command that gives a job a new definition. A change that leaves the ticks as they are leaves a due tick
    /// due; else they begin anew after `now`.
    pub fn new(job: &JobRecord, pulse: &JobPulse, spec: JobSpec, now: UnixMillis) -> Self {
        let same = |a: &JobSpec, b: &JobSpec| {
            (&a.schedule, a.timezone, a.dst, a.enabled) == (&b.schedule, b.timezone, b.dst, b.enabled)
        };
        let keeps = same(&job.spec, &spec) && pulse.next_at.is_some();
        let next_at = if keeps { pulse.next_at } else { next(&spec, now) };
        let paused = job.paused_at.filter(|_| spec.enabled);
        let first = paused.and_then(|since| next(&job.spec, since)).filter(|first| *first <= now);
        let skip = first.map(|first| {
            let end = UnixMillis(now.0.saturating_add(1));
            let skip = passed_over(first, end, |after| next(&job.spec, after));
            Skip { reason: TickReason::Paused, ..skip }
        });
        Self { id: job.id, spec, revision: job.revision, next_at, skip }
    }
}
