//! Fires and attempts: one committed fire a tick, one live attempt a fire.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    attempts::{backoff, is_retried, may_run, needs_host, work_of},
    command::{AttemptPlace, FireCommit, JobExecute},
    record::{AttemptRecord, FireRecord, JobRecord},
    state::State,
};
use novacron_common::{
    api::{FireState, ProblemCode},
    ids::{AttemptKey, FireCause, FireKey, HostId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    units::{Epoch, UnixMillis},
};

/// Fires on record of one job; the oldest goes when another comes.
pub const FIRES_KEPT: u32 = 1000;
/// Longest reason that is kept of an attempt that failed to start, in characters.
const REASON_MAX: usize = 512;

/// A tick. The job's record says what was committed last: a tick up to there was dealt with by somebody else.
pub(super) fn commit(state: &mut State, c: &FireCommit) -> Outcome {
    let job = super::jobs::find(state, c.job)?;
    if job.revision != c.revision || !job.spec.enabled {
        return Err(Refusal::conflict("the job was changed since this tick was computed"));
    }
    let mut job = job.clone();
    let later = c.next_at.filter(|next| *next > c.scheduled_at);
    if job.last_tick.is_some_and(|last| last >= c.scheduled_at) {
        // An update may have put a tick on the list that was dealt with before it: go on from it.
        if job.next_at == Some(c.scheduled_at) {
            state.write(JobRecord { next_at: later, ..job });
        }
        return Ok(Applied::AlreadySo);
    }
    job.last_tick = Some(c.scheduled_at);
    job.next_at = later;
    if let Some(skip) = c.skip {
        job.skipped = job.skipped.saturating_add(skip.count);
        job.last_skip = Some(skip);
    }
    let key = FireKey { job: c.job, scheduled_at: c.scheduled_at, cause: FireCause::Schedule };
    Ok(fire(state, job, key))
}

/// A fire on request. Two requests in one millisecond are two fires.
pub(super) fn execute(state: &mut State, c: &JobExecute) -> Outcome {
    let job = super::jobs::find(state, c.id)?.clone();
    let mut key = FireKey { job: c.id, scheduled_at: c.at, cause: FireCause::Manual };
    while state.fire(key).is_some() {
        key.scheduled_at.0 = key.scheduled_at.0.checked_add(1).ok_or_else(|| {
            Refusal::new(ProblemCode::InvalidRequest, "the instant of the fire lies past the end of time")
        })?;
    }
    Ok(fire(state, job, key))
}

fn fire(state: &mut State, job: JobRecord, key: FireKey) -> Applied {
    let now = state.now();
    let done = !needs_host(&job.spec.target);
    let job = JobRecord {
        fires: job.fires + 1,
        succeeded: job.succeeded + u64::from(done),
        last_fire_at: job.last_fire_at.max(Some(key.scheduled_at)),
        ..job
    };
    state.write(job);
    state.write(FireRecord {
        key,
        committed_at: now,
        state: if done { FireState::Succeeded } else { FireState::Waiting },
        epoch: Epoch(0),
        attempts: 0,
        not_before: now,
        host: None,
        cancel_requested: false,
        ended_at: done.then_some(now),
        node: None,
    });
    drop_oldest(state, key);
    Applied::FireCommitted(key)
}

/// Keeps the record of a job's fires bounded. A fire that has not ended and still has to go counts as failed and
/// dropped, so that it does not vanish without a word.
fn drop_oldest(state: &mut State, newest: FireKey) {
    if state.index().fires_of(newest.job) <= FIRES_KEPT {
        return;
    }
    let oldest =
        state.fires().range(super::jobs::fires_of(newest.job)).find(|fire| fire.key != newest).cloned();
    let Some(oldest) = oldest else { return };
    if !oldest.is_final()
        && let Some(job) = state.job(newest.job).cloned()
    {
        state.write(JobRecord { failed: job.failed + 1, dropped: job.dropped + 1, ..job });
    }
    super::jobs::erase_fire(state, oldest.key);
}

pub(super) fn place(state: &mut State, c: &AttemptPlace) -> Outcome {
    let fire = find(state, c.fire)?;
    if fire.state != FireState::Waiting {
        return Err(Refusal::conflict("the fire does not wait for an attempt"));
    }
    if fire.not_before > state.now() {
        return Err(Refusal::conflict("the next attempt is not due yet"));
    }
    let host = super::hosts::find(state, c.host)?;
    if !host.is_up() || host.cordoned || !may_run(host.hello.as_ref()) {
        return Err(Refusal::new(
            ProblemCode::HostUnavailable,
            format!("{} takes no attempts now", host.name),
        ));
    }
    let fire = FireRecord {
        state: FireState::Running,
        epoch: fire.epoch.next(),
        attempts: fire.attempts.saturating_add(1),
        host: Some(c.host),
        ..fire.clone()
    };
    let (key, epoch) = (AttemptKey { fire: c.fire, number: fire.attempts }, fire.epoch);
    state.write(AttemptRecord { key, epoch, host: c.host, placed_at: state.now(), end: None });
    state.write(fire);
    Ok(Applied::AttemptStarted { attempt: key, epoch })
}

/// A report counts if it is of the attempt under way, under its epoch; any other is late or repeated, and is
/// acknowledged all the same so that the agent stops sending it. Whether the reporting host is the attempt's is for
/// the shell to check (it knows the certificate).
pub(super) fn end(state: &mut State, report: AttemptReport) -> Outcome {
    let current = state.fire(report.attempt.fire).filter(|f| f.attempt() == Some(report.attempt));
    let Some(fire) = current.filter(|f| f.epoch == report.epoch).cloned() else {
        return Ok(Applied::AlreadySo);
    };
    let Some(attempt) = state.attempt(report.attempt).cloned() else {
        return Ok(Applied::AlreadySo);
    };
    let end = bounded(report.end);
    conclude(state, fire, &end.outcome);
    state.write(AttemptRecord { end: Some(end), ..attempt });
    super::workflows::fire_changed(state, report.attempt.fire);
    Ok(Applied::Done)
}

/// What comes after an attempt. Its job, or the workflow that it belongs to, hears of it.
fn conclude(state: &mut State, fire: FireRecord, outcome: &AttemptOutcome) {
    let now = state.now();
    let Some(retry) = work_of(state, fire.key).map(|work| work.retry.clone()) else {
        return;
    };
    let next = if outcome.is_success() {
        FireState::Succeeded
    } else if fire.cancel_requested {
        FireState::Cancelled
    } else if is_retried(&retry, fire.attempts, outcome) {
        FireState::Waiting
    } else {
        FireState::Failed
    };
    let waits = next == FireState::Waiting;
    let wait = backoff(&retry.backoff, fire.key, fire.attempts);
    let not_before = if waits { now.plus(wait) } else { fire.not_before };
    let ended_at = (!waits).then_some(now);
    let job = state.job(fire.key.job).cloned();
    state.write(FireRecord { state: next, host: None, not_before, ended_at, ..fire });
    if let Some(job) = job {
        state.write(JobRecord {
            succeeded: job.succeeded + u64::from(next == FireState::Succeeded),
            failed: job.failed + u64::from(next == FireState::Failed),
            ..job
        });
    }
}

fn bounded(mut end: AttemptEnd) -> AttemptEnd {
    if let AttemptOutcome::FailedToStart { reason } = &mut end.outcome {
        *reason = reason.chars().take(REASON_MAX).collect();
    }
    end.output.head.truncate(Output::PART_MAX);
    let over = end.output.tail.len().saturating_sub(Output::PART_MAX);
    end.output.tail.drain(..over);
    end.result = end.result.filter(|text| text.len() <= AttemptEnd::RESULT_MAX);
    end
}

pub(super) fn cancel(state: &mut State, key: FireKey) -> Outcome {
    let outcome = stop(state, key);
    super::workflows::fire_changed(state, key);
    outcome
}

/// A fire that waits ends at once, one that runs is to be killed. Its workflow is not told.
pub(super) fn stop(state: &mut State, key: FireKey) -> Outcome {
    let fire = find(state, key)?.clone();
    match fire.state {
        FireState::Waiting => {
            let ended_at = Some(state.now());
            state.write(FireRecord { state: FireState::Cancelled, cancel_requested: true, ended_at, ..fire });
            Ok(Applied::Done)
        }
        FireState::Running | FireState::Unknown if fire.cancel_requested => Ok(Applied::AlreadySo),
        FireState::Running | FireState::Unknown => {
            state.write(FireRecord { cancel_requested: true, ..fire });
            Ok(Applied::Done)
        }
        FireState::Succeeded | FireState::Failed | FireState::Cancelled | FireState::Missed => {
            Err(Refusal::conflict("the fire has ended"))
        }
    }
}

/// A host was removed by force: whoever did so vouches that nothing runs there any more.
pub(super) fn host_gone(state: &mut State, host: HostId) {
    let now = state.now();
    let fires: Vec<_> = state.index().running_on(host).filter_map(|key| state.fire(key).cloned()).collect();
    for fire in fires {
        if let Some(attempt) = fire.attempt().and_then(|key| state.attempt(key)).cloned() {
            state.write(AttemptRecord { end: Some(lost(now)), ..attempt });
        }
        let key = fire.key;
        conclude(state, fire, &AttemptOutcome::Lost);
        super::workflows::fire_changed(state, key);
    }
}

fn lost(now: UnixMillis) -> AttemptEnd {
    AttemptEnd {
        outcome: AttemptOutcome::Lost,
        started_at: None,
        ended_at: now,
        output: Output::default(),
        result: None,
    }
}

fn find(state: &State, key: FireKey) -> Result<&FireRecord, Refusal> {
    state.fire(key).ok_or_else(|| Refusal::not_found("fire", key))
}
