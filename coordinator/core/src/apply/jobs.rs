//! Jobs.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::{JobPut, JobUpdate, NextTick},
    record::{AttemptRecord, FireRecord, JobRecord},
    state::State,
};
use novacron_common::{
    api::ProblemCode,
    ids::{AttemptKey, FireCause, FireKey, JobId},
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
    let record = new_job(state, c);
    super::fits(&record, "target")?;
    let id = record.id;
    state.write(record);
    Ok(Applied::JobStored(id))
}

fn new_job(state: &State, c: JobPut) -> JobRecord {
    JobRecord {
        id: c.id,
        next_at: c.next_at.filter(|_| c.spec.enabled),
        spec: c.spec,
        revision: 1,
        last_tick: None,
        last_fire_at: None,
        fires: 0,
        succeeded: 0,
        failed: 0,
        skipped: 0,
        last_skip: None,
        dropped: 0,
        created_at: state.now(),
    }
}

fn check(state: &State, id: JobId, spec: &JobSpec, next_at: NextTick) -> Result<(), Refusal> {
    if state.index().job_named(&spec.name).is_some_and(|other| other != id) {
        return Err(Refusal::name_taken("job", &spec.name));
    }
    if spec.enabled && next_at.is_none() {
        let fault = Fault::new("schedule", format!("{} never comes", spec.schedule));
        return Err(
            Refusal::new(ProblemCode::InvalidRequest, "the schedule never fires").details(vec![fault])
        );
    }
    Ok(())
}

pub(super) fn update(state: &mut State, c: JobUpdate) -> Outcome {
    let old = find(state, c.id)?;
    if old.revision != c.revision {
        return Err(Refusal::conflict("the job was changed in the meantime").fix("read it again, and repeat"));
    }
    check(state, c.id, &c.spec, c.next_at)?;
    let next_at = c.next_at.filter(|_| c.spec.enabled);
    let record = JobRecord { spec: c.spec, revision: old.revision + 1, next_at, ..old.clone() };
    super::fits(&record, "target")?;
    state.write(record);
    Ok(Applied::JobStored(c.id))
}

pub(super) fn remove(state: &mut State, id: JobId) -> Outcome {
    find(state, id)?;
    let fires: Vec<_> = state.fires().range(fires_of(id)).map(|fire| fire.key).collect();
    for fire in fires {
        erase_fire(state, fire);
    }
    state.erase::<JobRecord>(&id);
    Ok(Applied::Done)
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

/// The keys of all fires of a job.
pub(crate) fn fires_of(job: JobId) -> std::ops::RangeInclusive<FireKey> {
    let first = FireKey { job, scheduled_at: UnixMillis(i64::MIN), cause: FireCause::Schedule };
    let last = FireKey { job, scheduled_at: UnixMillis(i64::MAX), cause: FireCause::Node };
    first..=last
}

pub(super) fn find(state: &State, id: JobId) -> Result<&JobRecord, Refusal> {
    state.job(id).ok_or_else(|| Refusal::not_found("job", id))
}
