//! The run: start, load, faults, calm, judgement.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use novacron_common::api::FireView;
use novacron_common::ids::{FireCause, JobId};
use novacron_common::splitmix::SplitMix64;
use novacron_tests::ledger::audit::{self, Finding, Seen};
use novacron_tests::ledger::chance::SEED;
use novacron_tests::ledger::faults::{self, Step};
use novacron_tests::ledger::harvest::Harvest;
use novacron_tests::ledger::history::History;
use novacron_tests::ledger::linear;
use novacron_tests::ledger::registers::{self, Load};
use novacron_tests::ledger::schedule::{self, Job, Kind, PERIOD_MS};
use novacron_tests::ledger::trio::{Reach, Seats, Trio, TrioOptions};

/// The schedule: a hundred jobs, each due every second.
const RECORDS: usize = 40;
const NOOPS: usize = 55;
const COMMANDS: usize = 5;
const LOAD: Load = Load { registers: 6, clients: 5, pause: Duration::from_millis(60) };
/// How long the cluster may take to be well again after a fault: a generous multiple of an election.
const HEAL_LIMIT: Duration = Duration::from_secs(120);
/// How long attempts under way may take to be done after the schedule has ended.
const SETTLE_LIMIT: Duration = Duration::from_secs(300);
/// Faults between two harvests: the ledger keeps a thousand fires of a job.
const HARVEST_EVERY: usize = 20;

pub fn run(seed: u64, count: usize) -> Result<()> {
    let mut trio = Trio::start(&TrioOptions::new("ledger"))?;
    let outcome = told(&mut trio, seed, count);
    outcome.map_err(|fault| anyhow!("{fault:?}\n{SEED}={seed}\n{}", trio.seats.last_words(40)))
}

fn told(trio: &mut Trio, seed: u64, count: usize) -> Result<()> {
    let reach = &trio.reach;
    let (jobs, registers) = reach.on_api(async |api| {
        let mut jobs = schedule::make(api, Kind::Noop, NOOPS).await?;
        jobs.extend(schedule::make(api, Kind::Record, RECORDS).await?);
        jobs.extend(schedule::make(api, Kind::Command, COMMANDS).await?);
        Ok((jobs, registers::make(api, LOAD.registers).await?))
    })?;
    let from = schedule::now_ms();
    let mut harvest = Harvest::default();
    let mut trouble = Trouble { seats: &mut trio.seats, reach, jobs: &jobs, harvest: &mut harvest };
    let histories = trouble.while_clients_work(&registers, seed, count)?;
    let to = schedule::now_ms();
    reach.on_api(async |api| {
        schedule::stop(api, &jobs).await?;
        harvest.take_all(api, &jobs, SETTLE_LIMIT).await
    })?;
    harvest.take_records(&trio.seats.agents)?;
    judge_fires(&seen(&jobs, &harvest, from, to))?;
    judge_registers(&histories)
}

/// Who does the faults, and to what.
struct Trouble<'a> {
    seats: &'a mut Seats,
    reach: &'a Reach,
    jobs: &'a [Job],
    harvest: &'a mut Harvest,
}

impl Trouble<'_> {
    /// Does the faults one after the other while clients use the registers.
    fn while_clients_work(&mut self, registers: &[JobId], seed: u64, count: usize) -> Result<Vec<History>> {
        let stop = AtomicBool::new(false);
        let reach = self.reach;
        std::thread::scope(|scope| {
            let record =
                || reach.on_api(async |api| registers::record(api, registers, LOAD, seed, &stop).await);
            let recording = scope.spawn(record);
            let done = self.all(seed, count);
            stop.store(true, Ordering::Relaxed);
            let recorded = recording.join().map_err(|_| anyhow!("the clients panicked"))?;
            done.and(recorded)
        })
    }

    fn all(&mut self, seed: u64, count: usize) -> Result<()> {
        let began = Instant::now();
        for (number, step) in faults::plan(&mut SplitMix64::new(seed), count).into_iter().enumerate() {
            let at = began.elapsed().as_secs_f32();
            let told = self.one(&step).with_context(|| format!("fault {} of {count}: {step}", number + 1))?;
            println!("{at:6.1} s  {:3}/{count}  {step} {told}", number + 1);
            if (number + 1) % HARVEST_EVERY == 0 {
                let (harvest, jobs) = (&mut *self.harvest, self.jobs);
                let open = self.reach.on_api(async |api| harvest.take(api, jobs).await)?;
                println!("{:6.1} s  {open} fires are not done yet", began.elapsed().as_secs_f32());
            }
        }
        Ok(())
    }

    fn one(&mut self, step: &Step) -> Result<String> {
        let held = step.begin(self.seats, self.reach)?;
        std::thread::sleep(step.hold);
        held.end(self.seats)?;
        let ended = Instant::now();
        self.reach.wait_until_well(HEAL_LIMIT).context("the cluster did not recover")?;
        Ok(format!("on {}; well {} ms after its end", held.node(self.seats), ended.elapsed().as_millis()))
    }
}

fn seen(jobs: &[Job], harvest: &Harvest, from: i64, to: i64) -> Seen {
    let traced = jobs.iter().filter(|job| job.kind.is_traced());
    Seen {
        jobs: jobs.iter().map(|job| job.id).collect(),
        traced: traced.map(|job| job.id).collect(),
        period_ms: PERIOD_MS,
        from,
        to,
        fires: harvest.fires().cloned().collect(),
        runs: harvest.runs().cloned().collect(),
    }
}

/// A fire that must be in the ledger: those at the edges of what was watched may be there or not.
fn a_due_fire(seen: &Seen) -> usize {
    let due = |fire: &FireView| {
        let at = fire.scheduled_at.0;
        fire.cause == FireCause::Schedule && at > seen.from && at <= seen.to
    };
    seen.fires.iter().position(due).unwrap_or(0)
}

/// A run of which the ledger says that it ended well: one that was cut off need not have written anything.
fn an_ended_run(seen: &Seen) -> usize {
    let ended: BTreeSet<(String, u32)> = seen
        .fires
        .iter()
        .flat_map(|fire| fire.attempts.iter().map(|attempt| (fire.id.clone(), attempt)))
        .filter(|(_, attempt)| attempt.exit_code == Some(0))
        .map(|(fire, attempt)| (fire, attempt.number))
        .collect();
    seen.runs.iter().position(|run| ended.contains(&(run.fire.to_string(), run.attempt))).unwrap_or(0)
}

/// The auditor finds nothing; and it finds what is planted, so that its silence means something.
fn judge_fires(seen: &Seen) -> Result<()> {
    println!("{} fires, {} runs that attempts wrote down", seen.fires.len(), seen.runs.len());
    ensure!(!seen.runs.is_empty(), "no attempt wrote anything: the audit would prove nothing");
    let findings = audit::audit(seen);
    let first: Vec<String> = findings.iter().take(20).map(Finding::to_string).collect();
    ensure!(findings.is_empty(), "{} findings, the first: {first:#?}", findings.len());
    let plants: [fn(&mut Seen); 4] = [
        |seen| {
            seen.fires.remove(a_due_fire(seen));
        },
        |seen| seen.fires.push(seen.fires[a_due_fire(seen)].clone()),
        |seen| {
            seen.runs.remove(an_ended_run(seen));
        },
        |seen| seen.runs.push(seen.runs[seen.runs.len() / 2].clone()),
    ];
    for (number, plant) in plants.iter().enumerate() {
        let mut planted = seen.clone();
        plant(&mut planted);
        ensure!(!audit::audit(&planted).is_empty(), "the auditor did not see plant {number}");
    }
    Ok(())
}

/// Every register's history is linearizable; with a stale read planted, none is.
fn judge_registers(histories: &[History]) -> Result<()> {
    for (number, history) in histories.iter().enumerate() {
        let unknown = history.ops.iter().filter(|op| op.answered.is_none()).count();
        println!("register {number}: {} operations, {unknown} of unknown outcome", history.ops.len());
        linear::check(history).with_context(|| format!("register {number}"))?;
        let planted = history.with_a_stale_read().context("a history in which nothing was overwritten")?;
        ensure!(linear::check(&planted).is_err(), "a stale read planted in register {number} was not seen");
    }
    Ok(())
}
