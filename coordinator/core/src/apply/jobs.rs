//! Jobs.

use super::{Outcome, fires, ticks};
use crate::{
    applied::{Applied, Refusal},
    command::{JobPut, JobUpdate, NextTick},
    fire_index::fires_of,
    record::{AttemptRecord, FireRecord, HistoryRecord, JobPulse, JobRecord, OverdueRecord},
    state::State,
};
use novacron_common::{
    api::ProblemCode,
    ids::{AttemptKey, FireKey, JobId},
    spec::{Fault, JobSpec},
    units::UnixMillis,
};

pub(super) fn put(state: &mut State, c: JobPut) -> Outcome {
    if let Some(old) = state.job(c.id) {
        return match old.spec == c.spec {
            true => Ok(Applied::JobStored(c.id)),
            false => Err(Refusal::conflict(format!("there is another job {}", c.id))),
        };
    }
    check(state, c.id, &c.spec, c.next_at)?;
    let id = c.id;
    let pulse = JobPulse::new(id, c.next_at.filter(|_| c.spec.enabled));
    let paused_at = (!c.spec.enabled).then(|| state.now());
    let created_at = state.now();
    let record = JobRecord { id, spec: c.spec, revision: 1, paused_at, deleting: false, created_at };
    super::fits(&record, "target")?;
    state.write(record);
    state.write(pulse);
    Ok(Applied::JobStored(id))
}

fn check(state: &State, id: JobId, spec: &JobSpec, next_at: NextTick) -> Result<(), Refusal> {
    if state.index().job_named(&spec.name).is_some_and(|other| other != id) {
        return Err(Refusal::name_taken("job", &spec.name));
    }
    if next_at.is_none() {
        let fault = Fault::new("schedule", format!("{} never comes", spec.schedule));
        return Err(
            Refusal::new(ProblemCode::InvalidRequest, "the schedule never fires").details(vec![fault])
        );
    }
    Ok(())
}

pub(super) fn update(state: &mut State, c: JobUpdate) -> Outcome {
    let old = find(state, c.id)?;
    if old.deleting {
        return Err(Refusal::conflict("the job is being deleted"));
    }
    if old.revision != c.revision {
        return Err(Refusal::conflict("the job was changed in the meantime").fix("read it again, and repeat"));
    }
    check(state, c.id, &c.spec, c.next_at)?;
    let pulse = *pulse_of(state, c.id)?;
    let paused_at = paused_at(old, &pulse, c.spec.enabled, state.now());
    let record = JobRecord { spec: c.spec, revision: old.revision + 1, paused_at, ..old.clone() };
    super::fits(&record, "target")?;
    let next_at = c.next_at.filter(|_| record.spec.enabled);
    let released = !record.spec.concurrency.is_serial();
    state.write(record);
    state.write(JobPulse { next_at, ..pulse });
    if let Some(skip) = c.skip {
        ticks::passed_over(state, c.id, skip);
    }
    if released {
        fires::release_all(state, c.id);
    }
    Ok(Applied::JobStored(c.id))
}

/// A tick that was due when the job was paused falls into the pause.
fn paused_at(old: &JobRecord, pulse: &JobPulse, enabled: bool, now: UnixMillis) -> Option<UnixMillis> {
    match (enabled, old.paused_at) {
        (true, _) => None,
        (false, Some(since)) => Some(since),
        (false, None) => {
            let due = pulse.next_at.filter(|at| *at <= now);
            Some(due.map_or(now, |at| UnixMillis(at.0.saturating_sub(1))))
        }
    }
}

/// A job goes at once if nothing of it runs; else no more fires come of it, those that run are ended, and it goes
/// with the last of them.
pub(super) fn remove(state: &mut State, id: JobId) -> Outcome {
    let job = find(state, id)?.clone();
    if job.deleting {
        return Ok(Applied::AlreadySo);
    }
    let pulse = *pulse_of(state, id)?;
    let spec = JobSpec { enabled: false, ..job.spec };
    state.write(JobRecord { deleting: true, revision: job.revision + 1, spec, ..job });
    state.write(JobPulse { next_at: None, ..pulse });
    let live: Vec<_> = state.index().fires().live_of(id).collect();
    for fire in live {
        fires::end_early(state, fire);
        super::workflows::fire_changed(state, fire);
    }
    erase_if_done(state, id);
    Ok(Applied::Done)
}

/// The last step of a deletion.
pub(super) fn erase_if_done(state: &mut State, id: JobId) {
    let deleting = state.job(id).is_some_and(|job| job.deleting);
    if !deleting || state.index().fires().live_count(id) > 0 {
        return;
    }
    let fires: Vec<_> = state.fires().range(fires_of(id)).map(|fire| fire.key).collect();
    for fire in fires {
        erase_fire(state, fire);
    }
    state.erase::<HistoryRecord>(&id);
    state.erase::<OverdueRecord>(&id);
    state.erase::<JobPulse>(&id);
    state.erase::<JobRecord>(&id);
}

/// A fire's record goes with those of its attempts.
pub(super) fn erase_fire(state: &mut State, fire: FireKey) {
    let first = AttemptKey { fire, number: 0 };
    let last = AttemptKey { fire, number: u32::MAX };
    super::workflows::fire_gone(state, fire);
    let attempts: Vec<_> = state.attempts().range(first..=last).map(|a| a.key).collect();
    for attempt in attempts {
        state.erase::<AttemptRecord>(&attempt);
    }
    state.erase::<FireRecord>(&fire);
}

pub(super) fn find(state: &State, id: JobId) -> Result<&JobRecord, Refusal> {
    state.job(id).ok_or_else(|| Refusal::not_found("job", id))
}

pub(super) fn pulse_of(state: &State, id: JobId) -> Result<&JobPulse, Refusal> {
    state.pulse(id).ok_or_else(|| Refusal::not_found("job", id))
}
