//! The auditor: compares what the ledger says with the schedule, and with what the attempts themselves wrote. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use novacron_common::api::{FireState, FireView};
use novacron_common::ids::{FireCause, FireKey, JobId};

/// What one attempt wrote of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The fire that it found in its environment.
    pub fire: FireKey,
    /// The attempt's number.
    pub attempt: u32,
    /// The epoch under which it ran.
    pub epoch: u64,
    /// Its first instant, Unix milliseconds.
    pub began: i64,
    /// Its last instant, if it got there.
    pub ended: Option<i64>,
}

/// All that was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The jobs; each is due whenever the Unix time is a multiple of `period_ms`.
    pub jobs: BTreeSet<JobId>,
    /// Those of `jobs` whose attempts write down that they ran.
    pub traced: BTreeSet<JobId>,
    /// Milliseconds between two ticks.
    pub period_ms: i64,
    /// Ticks after this instant (Unix milliseconds) …
    pub from: i64,
    /// … and up to this one must be in the ledger.
    pub to: i64,
    /// What the ledger says.
    pub fires: Vec<FireView>,
    /// What the attempts say.
    pub runs: Vec<Run>,
}

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Finding {
    /// A tick of which the ledger knows nothing.
    Missed(JobId, i64),
    /// Two committed fires for one tick.
    CommittedTwice(String),
    /// A fire for an instant at which nothing was due.
    OffSchedule(String),
    /// A fire that did not succeed.
    NotDone(String, String),
    /// The ledger says that an attempt succeeded; it wrote nothing.
    NoTrace(String, u32),
    /// An attempt wrote; the ledger has no such attempt.
    Ghost(String, u32),
    /// One attempt ran more than once.
    RanTwice(String, u32),
    /// Two attempts of one fire ran at once.
    Together(String, u32, u32),
    /// A later attempt ran under no later epoch.
    EpochNotRaised(String, u32),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// Everything that is wrong with what was seen; empty if every promise was kept.
#[must_use]
pub fn audit(seen: &Seen) -> Vec<Finding> {
    let mut findings = ticks(seen);
    findings.extend(seen.fires.iter().filter(|fire| scheduled(fire)).filter_map(not_done));
    findings.extend(traces(seen));
    findings.extend(fires_with_runs(&seen.runs).values().flat_map(|runs| one_at_a_time(runs)));
    findings.sort();
    findings
}

fn scheduled(fire: &FireView) -> bool {
    fire.cause == FireCause::Schedule
}

/// Each tick once, and nothing but ticks.
fn ticks(seen: &Seen) -> Vec<Finding> {
    let mut found: BTreeMap<(JobId, i64), u32> = BTreeMap::new();
    let mut findings = Vec::new();
    for fire in seen.fires.iter().filter(|fire| scheduled(fire)) {
        let count = found.entry((fire.job, fire.scheduled_at.0)).or_default();
        *count += 1;
        if *count == 2 {
            findings.push(Finding::CommittedTwice(fire.id.clone()));
        }
        if fire.scheduled_at.0 % seen.period_ms != 0 || !seen.jobs.contains(&fire.job) {
            findings.push(Finding::OffSchedule(fire.id.clone()));
        }
    }
    for job in &seen.jobs {
        let due = (seen.from / seen.period_ms + 1..=seen.to / seen.period_ms).map(|n| n * seen.period_ms);
        let missed = due.filter(|at| !found.contains_key(&(*job, *at)));
        findings.extend(missed.map(|at| Finding::Missed(*job, at)));
    }
    findings
}

fn not_done(fire: &FireView) -> Option<Finding> {
    let outcomes: Vec<&str> = fire.attempts.iter().map(|attempt| attempt.outcome.as_str()).collect();
    (fire.state != FireState::Succeeded)
        .then(|| Finding::NotDone(fire.id.clone(), format!("{:?} {outcomes:?}", fire.state)))
}

/// What the ledger says of attempts against what they wrote, both ways.
fn traces(seen: &Seen) -> Vec<Finding> {
    let mut written: BTreeMap<(String, u32), u32> = BTreeMap::new();
    for run in &seen.runs {
        *written.entry((run.fire.to_string(), run.attempt)).or_default() += 1;
    }
    let mut findings = Vec::new();
    for fire in seen.fires.iter().filter(|fire| seen.traced.contains(&fire.job)) {
        for attempt in &fire.attempts {
            let runs = written.remove(&(fire.id.clone(), attempt.number)).unwrap_or(0);
            match runs {
                0 if attempt.exit_code == Some(0) => {
                    findings.push(Finding::NoTrace(fire.id.clone(), attempt.number));
                }
                0 | 1 => {}
                _ => findings.push(Finding::RanTwice(fire.id.clone(), attempt.number)),
            }
        }
    }
    findings.extend(written.into_keys().map(|(fire, attempt)| Finding::Ghost(fire, attempt)));
    findings
}

fn fires_with_runs(runs: &[Run]) -> BTreeMap<FireKey, Vec<&Run>> {
    let mut fires: BTreeMap<FireKey, Vec<&Run>> = BTreeMap::new();
    for run in runs {
        fires.entry(run.fire).or_default().push(run);
    }
    fires
}

fn one_at_a_time(runs: &[&Run]) -> Vec<Finding> {
    let mut runs = runs.to_vec();
    runs.sort_by_key(|run| run.attempt);
    let mut findings = Vec::new();
    for pair in runs.windows(2).filter(|pair| pair[0].attempt != pair[1].attempt) {
        let (first, second) = (pair[0], pair[1]);
        let fire = || first.fire.to_string();
        // One that wrote no end was killed: it cannot be told when, and the ledger's own record is what counts.
        if first.ended.is_some_and(|ended| second.began < ended) {
            findings.push(Finding::Together(fire(), first.attempt, second.attempt));
        }
        if second.epoch <= first.epoch {
            findings.push(Finding::EpochNotRaised(fire(), second.attempt));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::units::UnixMillis;
    use serde_json::json;

    fn job() -> JobId {
        JobId::from_u128(1)
    }

    fn key(at: i64) -> FireKey {
        FireKey { job: job(), scheduled_at: UnixMillis(at), cause: FireCause::Schedule }
    }

    fn fire(at: i64) -> FireView {
        let attempt = json!({"number": 1, "outcome": "exited(0)", "exit_code": 0});
        serde_json::from_value(json!({
            "id": key(at).to_string(), "job": job(), "scheduled_at": at, "committed_at": at, "cause": "schedule",
            "state": "succeeded", "attempts": [attempt],
        }))
        .unwrap()
    }

    fn run(at: i64, attempt: u32) -> Run {
        let began = at + i64::from(attempt) * 100;
        Run { fire: key(at), attempt, epoch: attempt.into(), began, ended: Some(began + 50) }
    }

    fn good() -> Seen {
        let at = [2000, 3000, 4000];
        Seen {
            jobs: [job()].into(),
            traced: [job()].into(),
            period_ms: 1000,
            from: 1500,
            to: 4000,
            fires: at.map(fire).to_vec(),
            runs: at.map(|at| run(at, 1)).to_vec(),
        }
    }

    #[test]
    fn what_is_right_is_passed() {
        assert_eq!(audit(&good()), []);
    }

    #[test]
    fn a_dropped_fire_is_missed_and_its_run_a_ghost() {
        let mut seen = good();
        seen.fires.remove(1);
        assert_eq!(audit(&seen), [Finding::Missed(job(), 3000), Finding::Ghost(key(3000).to_string(), 1)]);
    }

    #[test]
    fn a_doubled_fire_is_seen() {
        let mut seen = good();
        seen.fires.push(fire(3000));
        assert!(audit(&seen).contains(&Finding::CommittedTwice(key(3000).to_string())));
    }

    #[test]
    fn a_dropped_and_a_doubled_run_are_seen() {
        let mut seen = good();
        seen.runs.remove(0);
        assert_eq!(audit(&seen), [Finding::NoTrace(key(2000).to_string(), 1)]);
        let mut seen = good();
        seen.runs.push(run(4000, 1));
        assert_eq!(audit(&seen), [Finding::RanTwice(key(4000).to_string(), 1)]);
    }

    #[test]
    fn two_attempts_at_once_and_an_epoch_that_stays_are_seen() {
        let mut seen = good();
        let second = seen.fires[0].attempts[0].clone();
        seen.fires[0].attempts.push(novacron_common::api::AttemptView { number: 2, ..second });
        let later = run(2000, 2);
        seen.runs.push(later.clone());
        assert_eq!(audit(&seen), []);
        seen.runs.pop();
        seen.runs.push(Run { began: 2120, epoch: 1, ..later });
        let fire = key(2000).to_string();
        let expected = [Finding::Together(fire.clone(), 1, 2), Finding::EpochNotRaised(fire, 2)];
        assert_eq!(audit(&seen), expected);
    }

    #[test]
    fn a_fire_off_schedule_and_one_that_failed_are_seen() {
        let mut seen = good();
        seen.fires[0].state = FireState::Unknown;
        seen.fires.push(fire(4500));
        seen.runs.push(run(4500, 1));
        let found = audit(&seen);
        assert!(found.contains(&Finding::OffSchedule(key(4500).to_string())), "{found:?}");
        assert!(
            matches!(&found[1], Finding::NotDone(fire, _) if *fire == key(2000).to_string()),
            "{found:?}"
        );
    }
}
