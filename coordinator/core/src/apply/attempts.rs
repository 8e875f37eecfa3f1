//! Attempts: one live attempt a fire.

use super::{Outcome, fires};
use crate::{
    applied::{Applied, Refusal},
    attempts::{backoff, declined_wait, is_retried, may_run, work_of},
    command::{AttemptPlace, AttemptSettled},
    record::{AttemptRecord, FireRecord, VerbWatch},
    state::State,
};
use novacron_common::{
    api::{FireState, ProblemCode},
    ids::{AttemptKey, HostId},
    planted::{self, Mistake},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    spec::JobTarget,
    units::{Epoch, UnixMillis},
};

/// Longest reason that is kept of an attempt that failed, in characters.
const REASON_MAX: usize = 512;

pub(super) fn place(state: &mut State, c: &AttemptPlace) -> Outcome {
    check_waits(state, c.fire)?;
    let host = super::hosts::find(state, c.host)?;
    // A cordoned host takes nothing new, but its machines are there and nowhere else.
    let in_its_machine =
        work_of(state, c.fire).is_some_and(|work| matches!(work.target, JobTarget::VmCommand(_)));
    if !host.is_up() || host.cordoned && !in_its_machine || !may_run(host.hello.as_ref()) {
        return Err(Refusal::new(
            ProblemCode::HostUnavailable,
            format!("{} takes no attempts now", host.name),
        ));
    }
    let (attempt, epoch) = start(state, c.fire, Some(c.host), None)?;
    Ok(Applied::AttemptStarted { attempt, epoch })
}

/// Refuses a fire that may have no attempt now.
pub(super) fn check_waits(state: &State, key: novacron_common::ids::FireKey) -> Result<(), Refusal> {
    let fire = fires::find(state, key)?;
    if fire.state != FireState::Waiting || fire.queued {
        return Err(Refusal::conflict("the fire does not wait for an attempt"));
    }
    if fire.not_before > state.now() {
        return Err(Refusal::conflict("the next attempt is not due yet"));
    }
    Ok(())
}

/// The next attempt at a fire that waits for one.
pub(super) fn start(
    state: &mut State,
    key: novacron_common::ids::FireKey,
    host: Option<HostId>,
    verb: Option<VerbWatch>,
) -> Result<(AttemptKey, Epoch), Refusal> {
    let fire = fires::find(state, key)?.clone();
    let fire = FireRecord {
        state: FireState::Running,
        epoch: if planted::is(Mistake::EpochNotRaised) { fire.epoch } else { fire.epoch.next() },
        attempts: fire.attempts.saturating_add(1),
        host,
        last_host: host.or(fire.last_host),
        ..fire
    };
    let (key, epoch) = (AttemptKey { fire: key, number: fire.attempts }, fire.epoch);
    let placed_at = state.now();
    state.write(AttemptRecord { key, epoch, host, placed_at, end: None, verb, orphaned: false });
    state.write(fire);
    Ok((key, epoch))
}

/// A report counts if it is of the attempt under way, under its epoch; any other is late or repeated, and is
/// acknowledged all the same so that the agent stops sending it. Whether the reporting host is the attempt's is for
/// the shell to check (it knows the certificate).
pub(super) fn end(state: &mut State, report: AttemptReport) -> Outcome {
    settle_orphan(state, report.attempt);
    let careless = planted::is(Mistake::StaleReportAccepted);
    let current = state.fire(report.attempt.fire);
    let current = current.filter(|f| careless || f.attempt() == Some(report.attempt));
    let Some(fire) = current.filter(|f| careless || f.epoch == report.epoch).cloned() else {
        return Ok(Applied::AlreadySo);
    };
    let Some(attempt) = state.attempt(report.attempt).cloned() else {
        return Ok(Applied::AlreadySo);
    };
    let end = bounded(report.end);
    if is_declined(&end) {
        forget_declined(state, report.attempt);
    }
    state.write(AttemptRecord { end: Some(end.clone()), ..attempt });
    conclude(state, fire, &end);
    Ok(Applied::Done)
}

const fn is_declined(end: &AttemptEnd) -> bool {
    matches!(end.outcome, AttemptOutcome::Declined { .. })
}

/// Of several hosts in a row that could not take it, the last is kept: a fire may wait for long.
fn forget_declined(state: &mut State, attempt: AttemptKey) {
    let before = AttemptKey { number: attempt.number.saturating_sub(1), ..attempt };
    let end = state.attempt(before).and_then(|attempt| attempt.end.as_ref());
    if end.is_some_and(is_declined) {
        state.erase::<AttemptRecord>(&before);
    }
}

/// What comes after an attempt. Its job, or the workflow that it belongs to, hears of it.
fn conclude(state: &mut State, fire: FireRecord, end: &AttemptEnd) {
    let now = state.now();
    let outcome = &end.outcome;
    let retry = work_of(state, fire.key).map(|work| work.retry.clone()).unwrap_or_default();
    let declined = is_declined(end);
    let fire = FireRecord { declined: fire.declined.saturating_add(u32::from(declined)), ..fire };
    let next = if outcome.is_success() {
        FireState::Succeeded
    } else if fire.cancel_requested {
        FireState::Cancelled
    } else if is_retried(&retry, fire.tries(), outcome) {
        FireState::Waiting
    } else {
        FireState::Failed
    };
    let waits = next == FireState::Waiting;
    let wait = match declined {
        true => declined_wait(fire.key, fire.declined),
        false => backoff(&retry.backoff, fire.key, fire.tries()),
    };
    let not_before = if waits { now.plus(wait) } else { fire.not_before };
    let ended_at = (!waits).then_some(now);
    let key = fire.key;
    state.write(FireRecord { state: next, host: None, not_before, ended_at, unknown_since: None, ..fire });
    if !waits {
        fires::ended(state, key);
        fires::told(state, key);
    }
}

fn bounded(mut end: AttemptEnd) -> AttemptEnd {
    use AttemptOutcome::{Declined, Failed, FailedToStart};
    if let FailedToStart { reason } | Failed { reason } | Declined { reason } = &mut end.outcome {
        *reason = reason.chars().take(REASON_MAX).collect();
    }
    end.output.head.truncate(Output::PART_MAX);
    let over = end.output.tail.len().saturating_sub(Output::PART_MAX);
    end.output.tail.drain(..over);
    end.result = end.result.filter(|result| result.len() <= AttemptEnd::RESULT_MAX);
    end
}

/// A host was removed by force: whoever did so vouches that nothing runs there any more.
pub(super) fn host_gone(state: &mut State, host: HostId) {
    lose_all(state, host, false);
}

/// A host that is out of sight is declared off. Should it come back with an attempt all the same, that is killed.
pub(super) fn fence(state: &mut State, host: HostId) -> Outcome {
    let record = super::hosts::find(state, host)?;
    if record.is_up() {
        return Err(Refusal::conflict(format!("{} is up: what it says of its attempts counts", record.name))
            .fix("cancel its fires, or switch it off first"));
    }
    lose_all(state, host, true);
    Ok(Applied::Done)
}

fn lose_all(state: &mut State, host: HostId, orphaned: bool) {
    let now = state.now();
    let running: Vec<_> = state.index().fires().running_on(host).collect();
    for fire in running.into_iter().filter_map(|key| state.fire(key).cloned()).collect::<Vec<_>>() {
        let end = lost(now);
        if let Some(attempt) = fire.attempt().and_then(|key| state.attempt(key)).cloned() {
            state.write(AttemptRecord { end: Some(end.clone()), orphaned, ..attempt });
        }
        conclude(state, fire, &end);
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

/// An attempt that was declared over is observed gone.
pub(super) fn settled(state: &mut State, c: AttemptSettled) -> Outcome {
    match settle_orphan(state, c.attempt) {
        true => Ok(Applied::Done),
        false => Ok(Applied::AlreadySo),
    }
}

fn settle_orphan(state: &mut State, key: AttemptKey) -> bool {
    let orphan = state.attempt(key).filter(|attempt| attempt.orphaned).cloned();
    let found = orphan.is_some();
    if let Some(attempt) = orphan {
        state.write(AttemptRecord { orphaned: false, ..attempt });
    }
    found
}
