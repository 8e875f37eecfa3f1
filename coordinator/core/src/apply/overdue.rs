//! The alarm of a job whose fires or ticks have not succeeded when they were expected to: raised with the first of them,
//! over with the first success at or after that instant.

use crate::{
    record::{JobPulse, OverdueRecord},
    state::State,
};
use novacron_common::{ids::JobId, units::UnixMillis};

/// Raises the alarm of a job, or adds to it: `count` instants from `from` to `until`.
pub(super) fn raise(state: &mut State, job: JobId, (from, until): (UnixMillis, UnixMillis), count: u64) {
    // Without a pulse the job is gone, and nobody is left to be told.
    let Some(pulse) = state.pulse(job).copied() else { return };
    state.write(JobPulse { overdue: pulse.overdue.saturating_add(count), ..pulse });
    let known = state.overdue(job).copied();
    let (since, before) = known.map_or((from, 0), |known| (known.since, known.count));
    let latest = known.map_or(until, |known| known.latest.max(until));
    state.write(OverdueRecord { job, since, latest, count: before.saturating_add(count) });
}

/// A fire of the instant `at` has succeeded.
pub(super) fn settle(state: &mut State, job: JobId, at: UnixMillis) {
    if state.overdue(job).is_some_and(|alarm| alarm.since <= at) {
        state.erase::<OverdueRecord>(&job);
    }
}
