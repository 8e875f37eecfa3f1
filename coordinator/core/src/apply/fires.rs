//! Fires: admitted, begun, ended. One committed fire a tick.

use super::{Outcome, jobs, overdue, ticks, workflows};
use crate::{
    applied::{Applied, Refusal},
    attempts::{jitter, needs_attempt, work_of},
    command::JobExecute,
    record::{FireRecord, JobPulse, TickReason},
    state::State,
};
use novacron_common::{
    api::{FireState, ProblemCode},
    ids::{FireCause, FireKey, JobId, NodeRef},
    planted::{self, Mistake},
    spec::Concurrency,
    units::UnixMillis,
};
use std::time::Duration;

/// Fires of one job that have not ended; beyond it no tick fires.
pub const LIVE_MAX: u32 = 1000;

/// Whether a tick, or a request, becomes a fire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It does; `queued` if it waits for another fire to end.
    Fire { queued: bool },
    /// It does not.
    Skip(TickReason),
}

/// What the job's own rules say to another fire. Ends earlier ones if they are to be replaced.
///
/// A run of a workflow does not replace its own fires: both are steps of it.
pub(super) fn admission(state: &mut State, id: JobId, asks: Option<NodeRef>) -> Result<Admission, Refusal> {
    let job = jobs::find(state, id)?;
    let index = state.index().fires();
    let live = index.live_count(id);
    if live >= LIVE_MAX {
        return Ok(Admission::Skip(TickReason::Backlog));
    }
    Ok(match job.spec.concurrency {
        Concurrency::Allow => Admission::Fire { queued: false },
        _ if live == 0 || planted::is(Mistake::OverlapAdmitted) => Admission::Fire { queued: false },
        Concurrency::Forbid => Admission::Skip(TickReason::Overlap),
        Concurrency::Queue { max } => match live > max {
            true => Admission::Skip(TickReason::QueueFull),
            false => Admission::Fire { queued: true },
        },
        Concurrency::Replace => {
            let earlier: Vec<_> = index.live_of(id).collect();
            let run_of = |key: &FireKey| state.fire(*key).and_then(|fire| fire.node).map(|node| node.run);
            if asks.is_some_and(|node| earlier.iter().any(|key| run_of(key) == Some(node.run))) {
                return Ok(Admission::Skip(TickReason::Overlap));
            }
            for fire in earlier {
                end_early(state, fire);
                workflows::fire_changed(state, fire);
            }
            Admission::Fire { queued: state.index().fires().live_count(id) > 0 }
        }
    })
}

/// A fire on request. Two requests in one millisecond are two fires.
pub(super) fn execute(state: &mut State, c: &JobExecute) -> Outcome {
    let job = jobs::find(state, c.id)?;
    if job.deleting {
        return Err(Refusal::conflict("the job is being deleted"));
    }
    let key = free_key(state, c.id, c.at)?;
    match admission(state, c.id, c.node)? {
        Admission::Fire { queued } => begin(state, key, queued, c.node)?,
        Admission::Skip(reason) => return Err(not_admitted(reason)),
    }
    Ok(Applied::FireCommitted(key))
}

fn free_key(state: &State, job: JobId, at: UnixMillis) -> Result<FireKey, Refusal> {
    let mut key = FireKey { job, scheduled_at: at, cause: FireCause::Manual };
    while state.fire(key).is_some() {
        key.scheduled_at.0 = key.scheduled_at.0.checked_add(1).ok_or_else(|| {
            Refusal::new(ProblemCode::InvalidRequest, "the instant of the fire lies past the end of time")
        })?;
    }
    Ok(key)
}

fn not_admitted(reason: TickReason) -> Refusal {
    let cause = match reason {
        TickReason::QueueFull => "as many fires wait as may",
        TickReason::Backlog => "as many of its fires as are kept have not ended",
        _ => "another fire has not ended, and the job forbids two",
    };
    Refusal::conflict(cause).fix("wait for it, cancel it, or change \"concurrency\"")
}

/// Writes a new fire. What needs no attempt is done with that.
pub(super) fn begin(
    state: &mut State,
    key: FireKey,
    queued: bool,
    node: Option<NodeRef>,
) -> Result<(), Refusal> {
    let now = state.now();
    let work = work_of(state, key).ok_or_else(|| Refusal::not_found("job", key.job))?;
    let done = !needs_attempt(work.target);
    let priority = work.priority;
    let spec = state.job(key.job).map(|job| &job.spec);
    let scheduled = key.cause == FireCause::Schedule;
    let base = if scheduled { key.scheduled_at } else { now };
    let after = |ms: Option<u64>| ms.map(|ms| base.plus(Duration::from_millis(ms)));
    let start_by = after(spec.and_then(|s| s.start_deadline_ms).filter(|_| scheduled));
    let expected_at = after(spec.and_then(|s| s.expected_by_ms));
    let jitter_ms = spec.map_or(0, |s| s.jitter_ms).min(if scheduled { u64::MAX } else { 0 });
    let retention = spec.map(|s| s.retention);
    let fire = FireRecord {
        state: if done { FireState::Succeeded } else { FireState::Waiting },
        not_before: now.max(base.plus(jitter(key, jitter_ms))),
        ended_at: done.then_some(now),
        node,
        priority,
        queued: queued && !done,
        start_by,
        expected_at,
        ..FireRecord::new(key, now)
    };
    if let Some(pulse) = state.pulse(key.job) {
        let last_fire_at = pulse.last_fire_at.max(Some(key.scheduled_at));
        let begun = JobPulse { fires: pulse.fires + 1, last_fire_at, ..*pulse };
        state.write(if done { after_end(begun, fire.state) } else { begun });
    }
    state.write(fire);
    if done {
        overdue::settle(state, key.job, key.scheduled_at);
        release_next(state, key.job);
    }
    if let Some(retention) = retention {
        ticks::retain(state, key.job, retention);
    }
    Ok(())
}

/// Ends a fire: at once if nothing of it runs, else once its attempt is observed gone. Its workflow is for the caller
/// to tell: it may be the one that asks.
pub(super) fn end_early(state: &mut State, key: FireKey) {
    let Some(fire) = state.fire(key).cloned() else { return };
    match fire.state {
        FireState::Waiting => {
            let ended_at = Some(state.now());
            let (state_, cancel_requested) = (FireState::Cancelled, true);
            state.write(FireRecord { state: state_, cancel_requested, queued: false, ended_at, ..fire });
            ended(state, key);
        }
        FireState::Running | FireState::Unknown => {
            state.write(FireRecord { cancel_requested: true, ..fire });
        }
        FireState::Succeeded | FireState::Failed | FireState::Cancelled | FireState::Missed => (),
    }
}

pub(super) fn cancel(state: &mut State, key: FireKey) -> Outcome {
    let fire = find(state, key)?;
    if fire.is_final() {
        return Err(Refusal::conflict("the fire has ended"));
    }
    if fire.cancel_requested {
        return Ok(Applied::AlreadySo);
    }
    end_early(state, key);
    told(state, key);
    Ok(Applied::Done)
}

/// The workflow that a fire belongs to hears of its end, and a job that only waits for it goes.
pub(super) fn told(state: &mut State, key: FireKey) {
    workflows::fire_changed(state, key);
    jobs::erase_if_done(state, key.job);
}

/// What the end of a fire means to its job: counts, an alarm, and those that wait for it.
pub(super) fn ended(state: &mut State, key: FireKey) {
    let Some(fire) = state.fire(key).cloned() else { return };
    let good = fire.state == FireState::Succeeded;
    let late = !good && fire.expected_at.is_some() && !fire.overdue && fire.state != FireState::Cancelled;
    if late {
        found_late(state, fire.clone());
    }
    if let Some(pulse) = state.pulse(key.job) {
        state.write(after_end(*pulse, fire.state));
    }
    if good {
        overdue::settle(state, key.job, key.scheduled_at);
    }
    release_next(state, key.job);
}

/// The pulse of a job of which a fire has ended in this state.
fn after_end(pulse: JobPulse, ended: FireState) -> JobPulse {
    JobPulse {
        succeeded: pulse.succeeded + u64::from(ended == FireState::Succeeded),
        failed: pulse.failed + u64::from(ended == FireState::Failed),
        missed: pulse.missed + u64::from(ended == FireState::Missed),
        ..pulse
    }
}

/// The earliest of the fires that wait for another one may go, if none of that job is before it.
fn release_next(state: &mut State, job: JobId) {
    let first = state.index().fires().live_of(job).next().and_then(|key| state.fire(key)).cloned();
    // In the order of keys: while an earlier one lives, none behind it is released.
    if let Some(fire) = first.filter(|fire| fire.queued)
        && !state
            .index()
            .fires()
            .live_of(job)
            .any(|key| state.fire(key).is_some_and(FireRecord::is_under_way))
    {
        state.write(FireRecord { queued: false, ..fire });
    }
}

/// The job no longer forbids two at a time.
pub(super) fn release_all(state: &mut State, job: JobId) {
    let live: Vec<_> =
        state.index().fires().live_of(job).filter_map(|key| state.fire(key).cloned()).collect();
    for fire in live.into_iter().filter(|fire| fire.queued) {
        state.write(FireRecord { queued: false, ..fire });
    }
}

/// A deadline of a fire has passed, by the ledger's clock.
pub(super) fn alarm(state: &mut State, key: FireKey) -> Outcome {
    let fire = find(state, key)?.clone();
    let now = state.now();
    if fire.alarm_at().is_none_or(|at| at > now) {
        return Ok(Applied::AlreadySo);
    }
    let waits = fire.state == FireState::Waiting && fire.tries() == 0;
    if waits && fire.start_by.is_some_and(|by| by <= now) {
        state.write(FireRecord { state: FireState::Missed, queued: false, ended_at: Some(now), ..fire });
        ended(state, key);
        told(state, key);
        return Ok(Applied::Done);
    }
    found_late(state, fire);
    Ok(Applied::Done)
}

/// The fire has not succeeded when it was expected to, or will not any more.
fn found_late(state: &mut State, fire: FireRecord) {
    let key = fire.key;
    state.write(FireRecord { overdue: true, ..fire });
    overdue::raise(state, key.job, (key.scheduled_at, key.scheduled_at), 1);
}

pub(super) fn find(state: &State, key: FireKey) -> Result<&FireRecord, Refusal> {
    state.fire(key).ok_or_else(|| Refusal::not_found("fire", key))
}
