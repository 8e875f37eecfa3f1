//! What becomes of ticks: fired, skipped, missed. And what is kept of fires that have ended.

use super::{Outcome, fires, jobs, overdue};
use crate::{
    applied::{Applied, Refusal},
    command::FireCommit,
    fire_index::fires_of,
    record::{FireRecord, HistoryRecord, JobPulse, Skip, TickFate, TickReason, TickRun},
    state::State,
};
use novacron_common::{
    api::FireState,
    ids::{FireCause, FireKey, JobId},
    planted::{self, Mistake},
    spec::Retention,
    units::UnixMillis,
};

/// Ended fires that go in one command: more than come, so that a smaller retention is reached step by step.
const EVICTED_MAX: usize = 4;

/// Ticks. The job's pulse says what was dealt with last: a tick up to there was committed by somebody else.
pub(super) fn commit(state: &mut State, c: FireCommit) -> Outcome {
    let job = jobs::find(state, c.job)?;
    if job.revision != c.revision || !job.spec.enabled {
        return Err(Refusal::conflict("the job was changed since this tick was computed"));
    }
    let pulse = *jobs::pulse_of(state, c.job)?;
    let later = c.next_at.filter(|next| *next > c.until);
    let behind = |at: UnixMillis| pulse.last_tick.is_none_or(|last| last < at);
    let first = c.skip.map(|skip| skip.from).or(c.fire.first().copied()).unwrap_or(c.until);
    if !behind(first) && !planted::is(Mistake::FiredAgainByNextLeader) {
        // Computed from an older view. As a whole it would lose what lies between: the next one begins where the
        // ledger is. Only a tick on the list that was dealt with already (an edit put it there) is gone on from.
        if !behind(c.until) && pulse.next_at.is_some_and(|at| at <= c.until) {
            state.write(JobPulse { next_at: later, ..pulse });
        }
        return Ok(Applied::AlreadySo);
    }
    state.write(JobPulse { next_at: later, last_tick: Some(c.until), ..pulse });
    if let Some(skip) = c.skip.filter(|_| !planted::is(Mistake::MissedSilently)) {
        passed_over(state, c.job, skip);
    }
    let mut committed = Vec::new();
    for at in c.fire {
        committed.extend(tick(state, c.job, at)?);
    }
    Ok(Applied::TicksCommitted(committed))
}

fn tick(state: &mut State, job: JobId, at: UnixMillis) -> Result<Option<FireKey>, Refusal> {
    match fires::admission(state, job, None)? {
        fires::Admission::Fire { queued } => {
            let key = FireKey { job, scheduled_at: at, cause: FireCause::Schedule };
            fires::begin(state, key, queued, None)?;
            Ok(Some(key))
        }
        fires::Admission::Skip(reason) => {
            passed_over(state, job, Skip { from: at, until: at, count: 1, reason });
            Ok(None)
        }
    }
}

/// Notes ticks for which there is no fire.
pub(super) fn passed_over(state: &mut State, job: JobId, skip: Skip) {
    let late_ms_max = late_ms(skip.until, state.now());
    let Skip { from, until, count, reason } = skip;
    note(state, job, TickRun { fate: TickFate::None(reason), from, until, count, late_ms_max });
    let expected = state.job(job).is_some_and(|job| job.spec.expected_by_ms.is_some());
    if let Some(pulse) = state.pulse(job).copied() {
        let (missed, skipped) = if reason.is_miss() { (count, 0) } else { (0, count) };
        state.write(JobPulse {
            missed: pulse.missed.saturating_add(missed),
            skipped: pulse.skipped.saturating_add(skipped),
            ..pulse
        });
    }
    if expected && reason != TickReason::Paused {
        overdue::raise(state, job, (from, until), count);
    }
}

fn late_ms(tick: UnixMillis, at: UnixMillis) -> u64 {
    u64::try_from(at.since(tick).as_millis()).unwrap_or(u64::MAX)
}

fn note(state: &mut State, job: JobId, run: TickRun) {
    let empty = || HistoryRecord { job, runs: Vec::new(), older: Default::default() };
    let mut history = state.history(job).cloned().unwrap_or_else(empty);
    let between = |from: UnixMillis, until: UnixMillis| {
        let first =
            FireKey { job, scheduled_at: UnixMillis(from.0.saturating_add(1)), cause: FireCause::Schedule };
        let last = FireKey { job, scheduled_at: until, cause: FireCause::Schedule };
        first > last || {
            let mut fires = state.fires().range(first..last);
            !fires.any(|fire| fire.key.cause == FireCause::Schedule)
        }
    };
    history.note(run, between);
    state.write(history);
}

/// Keeps the record of a job's ended fires bounded, in number and age. Fires that have not ended stay: their number
/// is bounded where they are admitted.
pub(super) fn retain(state: &mut State, job: JobId, retention: Retention) {
    for _ in 0..EVICTED_MAX {
        let over = state.index().fires().kept_of(job) > retention.fires;
        let oldest = state.fires().range(fires_of(job)).find(|fire| fire.is_final());
        let age = |fire: &FireRecord| late_ms(fire.ended_at.unwrap_or(fire.committed_at), state.now());
        match oldest.filter(|fire| over || age(fire) > retention.age_ms).cloned() {
            Some(fire) => summarise(state, &fire),
            None => return,
        }
    }
}

fn summarise(state: &mut State, fire: &FireRecord) {
    jobs::erase_fire(state, fire.key);
    if fire.key.cause != FireCause::Schedule {
        return;
    }
    let at = fire.key.scheduled_at;
    let fate = fate(fire.state);
    let late_ms_max = late_ms(at, fire.committed_at);
    note(state, fire.key.job, TickRun { fate, from: at, until: at, count: 1, late_ms_max });
}

const fn fate(state: FireState) -> TickFate {
    match state {
        FireState::Succeeded => TickFate::Succeeded,
        FireState::Cancelled => TickFate::Cancelled,
        FireState::Missed => TickFate::NotStarted,
        FireState::Failed | FireState::Waiting | FireState::Running | FireState::Unknown => TickFate::Failed,
    }
}
