//! Jobs and fires, as shown.

use crate::{
    record::{AttemptRecord, FireRecord, JobPulse, JobRecord, OverdueRecord},
    state::State,
};
use novacron_common::{
    api::{AttemptView, FireState, FireView, JobStatus, JobView, OverdueView},
    ids::AttemptKey,
    record::AttemptOutcome,
};

/// The view of a job.
pub fn job(state: &State, job: &JobRecord) -> JobView {
    let pulse = state.pulse(job.id).copied();
    job_with(state, job, &pulse.unwrap_or_else(|| JobPulse::new(job.id, None)))
}

/// The view of a job with a pulse that was just committed.
pub fn job_with(state: &State, job: &JobRecord, pulse: &JobPulse) -> JobView {
    JobView {
        next_fire_at: pulse.next_at,
        last_fire_at: pulse.last_fire_at,
        fires: pulse.fires,
        succeeded: pulse.succeeded,
        failed: pulse.failed,
        skipped: pulse.skipped,
        missed: pulse.missed,
        overdue: pulse.overdue,
        overdue_since: state.overdue(job.id).map(|alarm| alarm.since),
        status: status(job, pulse),
        ..JobView::new(job.id, &job.spec, job.created_at)
    }
}

/// The view of the alarm of a job that is overdue.
pub fn overdue(state: &State, alarm: &OverdueRecord) -> OverdueView {
    let OverdueRecord { job, since, latest, count } = *alarm;
    let name = state.job(job).map(|job| job.spec.name.to_string()).unwrap_or_default();
    OverdueView { job, name, since, latest, count }
}

/// Whether a job fires.
pub const fn status(job: &JobRecord, pulse: &JobPulse) -> JobStatus {
    match (job.deleting, job.spec.enabled, pulse.next_at) {
        (true, _, _) => JobStatus::Deleting,
        (false, false, _) => JobStatus::Paused,
        (false, true, None) => JobStatus::Finished,
        (false, true, Some(_)) => JobStatus::Active,
    }
}

/// Whether a fire is shown with what its attempts printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// For one fire.
    Shown,
    /// For lists and events: outputs are up to 32 KiB each.
    LeftOut,
}

/// The view of a fire.
pub fn fire(state: &State, fire: &FireRecord, outputs: Outputs) -> FireView {
    let first = AttemptKey { fire: fire.key, number: 0 };
    let last = AttemptKey { fire: fire.key, number: u32::MAX };
    FireView {
        id: fire.key.to_string(),
        job: fire.key.job,
        scheduled_at: fire.key.scheduled_at,
        committed_at: fire.committed_at,
        cause: fire.key.cause,
        state: fire.state,
        late_ms: late_ms(fire),
        queued: fire.queued,
        overdue: fire.overdue,
        not_before: Some(fire.not_before).filter(|_| fire.state == FireState::Waiting),
        unknown_since: fire.unknown_since,
        ended_at: fire.ended_at,
        attempts: state.attempts().range(first..=last).map(|a| attempt(fire, a, outputs)).collect(),
    }
}

pub(super) fn late_ms(fire: &FireRecord) -> u64 {
    u64::try_from(fire.committed_at.since(fire.key.scheduled_at).as_millis()).unwrap_or(u64::MAX)
}

fn attempt(fire: &FireRecord, attempt: &AttemptRecord, outputs: Outputs) -> AttemptView {
    let end = attempt.end.as_ref();
    let output = end.filter(|_| outputs == Outputs::Shown).map(|e| e.output.to_text());
    AttemptView {
        number: attempt.key.number,
        host: attempt.host,
        outcome: match end {
            Some(end) => outcome_text(&end.outcome),
            None if fire.state == FireState::Unknown => "unknown".to_owned(),
            None => "running".to_owned(),
        },
        exit_code: match end.map(|e| &e.outcome) {
            Some(AttemptOutcome::Exited(code)) => Some(*code),
            _ => None,
        },
        output,
        started_at: end.and_then(|e| e.started_at).or(Some(attempt.placed_at)),
        ended_at: end.map(|e| e.ended_at),
    }
}

pub(crate) fn outcome_text(outcome: &AttemptOutcome) -> String {
    match outcome {
        AttemptOutcome::Exited(code) => format!("exited({code})"),
        AttemptOutcome::Signaled(signal) => format!("signaled({signal})"),
        AttemptOutcome::TimedOut => "timed_out".to_owned(),
        AttemptOutcome::OutOfMemory => "out_of_memory".to_owned(),
        AttemptOutcome::Killed => "killed".to_owned(),
        AttemptOutcome::FailedToStart { reason } => format!("failed_to_start: {reason}"),
        AttemptOutcome::Lost => "lost".to_owned(),
        AttemptOutcome::Done => "done".to_owned(),
        AttemptOutcome::Failed { reason } => format!("failed: {reason}"),
        AttemptOutcome::LeaseLost => "lease_lost".to_owned(),
        AttemptOutcome::Declined { reason } => format!("declined: {reason}"),
    }
}
