//! What the cluster has to do, and what must be true of it: every tick was fired once or is counted as passed over,
//! every fire ends, and an end that a host was told is kept is kept.

use crate::{
    cluster::Cluster,
    history::Seen,
    identities::{COORDINATORS, HOSTS, host_id},
    os::{BEGIN_UNIX_SECONDS, SECOND},
};
use novacron_common::{
    api::{FireState, JobCreate, JoinTokenRole},
    ids::{AttemptKey, FireCause, JobId, TokenId},
    record::AttemptOutcome,
    spec::{Backoff, Concurrency, JobSpec, JobTarget, OnLeaseLost, RetryPolicy, Sha256Digest},
    units::UnixMillis,
    wire::JoinPurpose,
};
use novacron_coordinator::{config::JobsConfig, identity::now, raft::Ledger, reconcilers::HostGrace};
use novacron_core::{
    CommandBody, State,
    command::{JobPut, JoinTokenPut, JoinTokenUse},
    record::{FireRecord, JobRecord},
    schedule::next_after,
};
use novacron_runtime::time::sleep;
use std::time::Duration;

/// Schedules of the jobs, and what becomes of their attempts that are cut off.
const SCHEDULES: [(&str, OnLeaseLost); 3] = [
    ("* * * * * *", OnLeaseLost::Keep),
    ("*/2 * * * * *", OnLeaseLost::Kill),
    ("@every 3s", OnLeaseLost::Keep),
];
/// This one forbids two fires at a time.
const FORBIDS: usize = 2;
/// How late a fire of that job may start, milliseconds: an outage passes over some of its ticks.
const START_DEADLINE_MS: u64 = 2500;
/// Short enough to run out several times in a storm.
const LEASE: Duration = Duration::from_secs(4);
/// Shorter than is shipped, so that a storm is long enough for a host to be missed.
pub(crate) const GRACE: HostGrace = HostGrace { lost: Duration::from_secs(1), start: Duration::from_secs(5) };
/// A tick or a fire that is older than this at the end was forgotten, milliseconds: longer than two ticks of any job
/// are apart, and than an attempt takes.
const RECENT_MS: i64 = 10_000;
/// Names of two commands may not clash.
const TOKEN: u128 = 0xa0_0000;

/// The id of a job.
const fn job_id(number: usize) -> JobId {
    JobId::from_u128(0x10b + number as u128)
}

/// Whether no two fires of a job may run at a time.
pub(crate) fn forbids_two(job: JobId) -> bool {
    job == job_id(FORBIDS)
}

/// How attempts are given to hosts.
pub(crate) fn config() -> JobsConfig {
    JobsConfig { lease: LEASE, ..JobsConfig::default() }
}

fn spec(number: usize, (schedule, on_lease_lost): (&str, OnLeaseLost)) -> JobSpec {
    let body = JobCreate { name: format!("job{number}"), schedule: schedule.into(), ..JobCreate::default() };
    let spec = JobSpec::try_from(&body).expect("a good job");
    let backoff = Backoff { initial_ms: 200, max_ms: 1000, ..Backoff::default() };
    let retry = RetryPolicy { max_retries: 4, backoff, other_host: true, ..RetryPolicy::default() };
    let alone = number == FORBIDS;
    let concurrency = if alone { Concurrency::Forbid } else { Concurrency::Allow };
    let start_deadline_ms = alone.then_some(START_DEADLINE_MS);
    let spec = JobSpec { concurrency, start_deadline_ms, ..spec };
    JobSpec { target: JobTarget::Record, timeout_ms: 30_000, retry, on_lease_lost, ..spec }
}

/// Tells the cluster of its hosts and jobs.
pub(crate) async fn introduce(ledger: &Ledger) {
    admit_hosts(ledger).await;
    for (number, schedule) in SCHEDULES.iter().enumerate() {
        let put = JobPut::new(job_id(number), spec(number, *schedule), now());
        insist(ledger, CommandBody::JobPut(Box::new(put))).await;
    }
}

/// Tells the cluster of its hosts.
pub(crate) async fn admit_hosts(ledger: &Ledger) {
    for host in 0..HOSTS {
        for body in admission(host) {
            insist(ledger, body).await;
        }
    }
}

async fn insist(ledger: &Ledger, body: CommandBody) {
    while ledger.propose(body.clone()).await.is_err() {
        sleep(Duration::from_millis(100)).await;
    }
}

fn admission(host: usize) -> [CommandBody; 2] {
    let machine = COORDINATORS + host;
    let (id, secret_sha256) = (TokenId::from_u128(TOKEN + host as u128), Sha256Digest([7; 32]));
    let expires_at = UnixMillis(i64::MAX);
    let token = JoinTokenPut { id, secret_sha256, role: JoinTokenRole::Agent, expires_at, replaces: None };
    let name = format!("h{machine}").parse().expect("it is a name");
    let purpose = JoinPurpose::Agent { name, rejoin: None };
    let shown = JoinTokenUse { id, secret_sha256, purpose, new_host: host_id(machine) };
    [CommandBody::JoinTokenPut(token), CommandBody::JoinTokenUse(shown)]
}

/// Whether the last of the jobs is known.
pub(crate) fn are_there(cluster: &Cluster) -> bool {
    let last = job_id(SCHEDULES.len() - 1);
    cluster.ledger(0).is_some_and(|ledger| ledger.read(|state| state.job(last).is_some()))
}

/// Whether no tick and no fire waits any longer, but for those of the last moments.
pub(crate) fn are_settled(cluster: &Cluster) -> bool {
    let since = recent(cluster);
    cluster.ledger(0).is_some_and(|ledger| {
        ledger.read(|state| {
            let last = |number| state.pulse(job_id(number)).and_then(|pulse| pulse.last_tick);
            (0..SCHEDULES.len()).all(|number| last(number) > Some(since))
                && state.fires().iter().all(|fire| fire.is_final() || fire.committed_at > since)
        })
    })
}

/// By the world's clock, not the ledger's, which stands still if nothing is committed.
pub(crate) fn recent(cluster: &Cluster) -> UnixMillis {
    let now = i64::try_from((BEGIN_UNIX_SECONDS * SECOND + cluster.executor.elapsed()) / 1_000_000);
    UnixMillis(now.unwrap_or(i64::MAX) - RECENT_MS)
}

/// What is wrong with jobs, fires and attempts at the end.
pub(crate) fn faults(state: &State, seen: &Seen, since: UnixMillis) -> Vec<String> {
    let mut faults = Vec::new();
    for number in 0..SCHEDULES.len() {
        match state.job(job_id(number)) {
            Some(job) => faults.extend(ticks(state, job, since)),
            None => faults.push(format!("{} is gone", job_id(number))),
        }
    }
    faults.extend(state.fires().iter().filter_map(|fire| unfinished(fire, since)));
    faults.extend(lost_ends(state, seen));
    faults.extend(invented(state, seen));
    faults
}

/// Each tick was fired once, or is counted as passed over; and none is overdue.
fn ticks(state: &State, job: &JobRecord, since: UnixMillis) -> Vec<String> {
    let begin = UnixMillis(i64::try_from(BEGIN_UNIX_SECONDS * 1000).unwrap_or(0));
    let next = |after| next_after(&job.spec.schedule, job.spec.timezone, job.spec.dst, after);
    let Some(pulse) = state.pulse(job.id) else { return vec![format!("{} has no pulse", job.spec.name)] };
    let fired: Vec<UnixMillis> = state
        .fires()
        .iter()
        .filter(|fire| fire.key.job == job.id && fire.key.cause == FireCause::Schedule)
        .map(|fire| fire.key.scheduled_at)
        .collect();
    let mut faults = Vec::new();
    if fired.len() as u64 != pulse.fires {
        let (name, fires) = (&job.spec.name, pulse.fires);
        faults.push(format!("fired twice: {name} counts {fires} fires for {} instants", fired.len()));
    }
    let created = UnixMillis(job.created_at.0.max(begin.0));
    let last = pulse.last_tick.unwrap_or(created);
    let due =
        std::iter::successors(next(created), |at| next(*at)).take_while(|at| *at <= last).count() as u64;
    // A fire that did not start in time is counted as missed, and is a fire.
    let missed_fires = state.fires().iter().filter(|f| f.key.job == job.id && f.state == FireState::Missed);
    let skipped = (pulse.skipped + pulse.missed).saturating_sub(missed_fires.count() as u64);
    if fired.len() as u64 + skipped != due {
        let (name, fired) = (&job.spec.name, fired.len());
        faults.push(format!(
            "a silent miss: {name} had {due} ticks, {fired} were fired, {skipped} passed over"
        ));
    }
    if pulse.last_tick.is_none_or(|last| last < since) {
        faults.push(format!("{} stands still: its last tick was {:?}", job.spec.name, pulse.last_tick));
    }
    faults.extend(
        fired
            .iter()
            .filter(|at| next(UnixMillis(at.0 - 1)) != Some(**at))
            .map(|at| format!("{} was fired at {at:?}, which is no tick of its", job.spec.name)),
    );
    faults
}

/// Nothing hinders a fire for so long.
fn unfinished(fire: &FireRecord, since: UnixMillis) -> Option<String> {
    let old = fire.committed_at < since;
    (old && !fire.is_final()).then(|| format!("{} does not end: {:?}", fire.key, fire.state))
}

/// The end that a host was told is kept, is kept: unless the leader had decided before that the attempt, which dies
/// with its lease, is over.
fn lost_ends(state: &State, seen: &Seen) -> Vec<String> {
    let mut faults = Vec::new();
    for (attempt, outcome) in &seen.acknowledged {
        let Some(kept) = state.attempt(*attempt) else {
            faults
                .push(format!("an end is lost: {attempt} ended {outcome:?}, the ledger does not know of it"));
            continue;
        };
        match &kept.end {
            Some(end) if end.outcome == *outcome || end.outcome == AttemptOutcome::LeaseLost => {}
            other => {
                let other = other.as_ref().map(|end| &end.outcome);
                faults.push(format!("an end is lost: {attempt} ended {outcome:?}, the ledger has {other:?}"));
            }
        }
    }
    faults
}

/// What the ledger says was done, some host did.
fn invented(state: &State, seen: &Seen) -> Vec<String> {
    let done = state.fires().iter().filter(|fire| fire.state == FireState::Succeeded);
    let invented = done.filter(|fire| {
        let attempt = AttemptKey { fire: fire.key, number: fire.attempts };
        !seen.started.contains(&attempt)
    });
    invented.map(|fire| format!("{} succeeded, and no host has run it", fire.key)).collect()
}
