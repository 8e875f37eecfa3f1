//! Every tick of a job: the fires on record, and the summaries of what is not.

use super::job::late_ms;
use crate::{
    fire_index::fires_of,
    record::{FireRecord, TickFate, TickReason, TickRun},
    state::State,
};
use novacron_common::{
    api::{FireState, LedgerEntry, LedgerTotals, LedgerView, TickState},
    ids::{FireCause, JobId},
};

/// Most entries in one answer.
pub const LEDGER_MAX: usize = 1000;

/// The newest `limit` ticks (or runs of ticks) of a job.
pub fn ledger(state: &State, job: JobId, limit: usize) -> LedgerView {
    let limit = limit.min(LEDGER_MAX);
    let fires = state.fires().range(fires_of(job)).rev();
    let scheduled = fires.filter(|fire| fire.key.cause == FireCause::Schedule);
    let mut ticks: Vec<LedgerEntry> = scheduled.take(limit + 1).map(of_fire).collect();
    let history = state.history(job);
    ticks.extend(history.iter().flat_map(|history| history.runs.iter().map(of_run)));
    ticks.sort_by_key(|entry| std::cmp::Reverse(entry.until));
    let more = ticks.len() > limit;
    ticks.truncate(limit);
    let older = history.map_or_else(LedgerTotals::default, |history| LedgerTotals {
        from: history.older.from,
        until: history.older.until,
        succeeded: history.older.succeeded,
        failed: history.older.failed,
        skipped: history.older.skipped,
        missed: history.older.missed,
    });
    LedgerView { ticks, more, older }
}

fn of_fire(fire: &FireRecord) -> LedgerEntry {
    let missed = fire.state == FireState::Missed;
    LedgerEntry {
        from: fire.key.scheduled_at,
        until: fire.key.scheduled_at,
        count: 1,
        tick: if missed { TickState::Missed } else { TickState::Fired },
        fire: Some(fire.state),
        reason: missed.then(|| NOT_STARTED.to_owned()),
        late_ms: late_ms(fire),
    }
}

fn of_run(run: &TickRun) -> LedgerEntry {
    let fired = |state| (TickState::Fired, Some(state), None);
    let (tick, fire, reason) = match run.fate {
        TickFate::Succeeded => fired(FireState::Succeeded),
        TickFate::Failed => fired(FireState::Failed),
        TickFate::Cancelled => fired(FireState::Cancelled),
        TickFate::NotStarted => (TickState::Missed, Some(FireState::Missed), Some(NOT_STARTED)),
        TickFate::None(reason) if reason.is_miss() => (TickState::Missed, None, Some(why(reason))),
        TickFate::None(reason) => (TickState::Skipped, None, Some(why(reason))),
    };
    let reason = reason.map(str::to_owned);
    LedgerEntry {
        from: run.from,
        until: run.until,
        count: run.count,
        tick,
        fire,
        reason,
        late_ms: run.late_ms_max,
    }
}

const NOT_STARTED: &str = "no host took it before its start deadline";

const fn why(reason: TickReason) -> &'static str {
    match reason {
        TickReason::Misfire => "no coordinator was there in time, and misfire.policy is none",
        TickReason::Superseded => "no coordinator was there in time, and a later tick was fired in its place",
        TickReason::TooOld => "no coordinator was there within misfire.window",
        TickReason::StartDeadline => "no coordinator was there within start_deadline",
        TickReason::Overlap => "another fire had not ended, and concurrency is forbid",
        TickReason::QueueFull => "as many fires waited as concurrency.queue.max",
        TickReason::Backlog => "1000 fires of the job had not ended",
        TickReason::Paused => "the job was paused",
    }
}
