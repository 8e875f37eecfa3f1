//! One seed, from beginning to verdict.

use crate::{
    checks,
    cluster::Cluster,
    executor::Executor,
    faults,
    identities::{COORDINATORS, MACHINES, identity},
    jobs, os, tell,
};
#[cfg(feature = "planted")]
use novacron_common::planted::Mistake;
use novacron_common::splitmix::SplitMix64;
use std::{any::Any, thread, time::Duration};

/// How long the cluster may take to come up.
const UP: Duration = Duration::from_secs(20);
/// How long things go wrong.
const STORM: Duration = Duration::from_secs(15);
/// How long the cluster may take to be whole again once nothing is wrong, and to catch up with what it had to do: an
/// idle time-out, an election and a snapshot; leases that run out; and attempts that fail, several times over.
const HEALING: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(250);

/// What came of a seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong; empty if nothing is.
    pub faults: Vec<String>,
    /// Hash over everything that happened.
    pub trace: u64,
    /// How much happened.
    pub events: u64,
    /// Acknowledged writes.
    pub writes: usize,
    /// Reads.
    pub reads: usize,
    /// Terms that had a leader.
    pub terms: usize,
    /// Attempts that were started.
    pub attempts: usize,
}

/// Runs one seed, on a thread of its own.
///
/// # Panics
/// If there is no thread to be had.
pub fn run(seed: u64) -> Verdict {
    on_a_thread(seed, move || simulate(seed), failed)
}

/// As [`run`], while the code makes a mistake.
///
/// # Panics
/// As [`run`].
#[cfg(feature = "planted")]
pub fn run_with(seed: u64, mistake: Option<Mistake>) -> Verdict {
    on_a_thread(seed, planting(mistake, move || simulate(seed)), failed)
}

/// Simulates while the code makes a mistake.
#[cfg(feature = "planted")]
pub(crate) fn planting<V>(mistake: Option<Mistake>, simulate: impl FnOnce() -> V) -> impl FnOnce() -> V {
    move || {
        novacron_common::planted::plant(mistake);
        simulate()
    }
}

fn failed(panic: String) -> Verdict {
    Verdict { faults: vec![panic], ..Verdict::default() }
}

/// Runs a world on a thread of its own; of one that panics `failed` says what came.
pub(crate) fn on_a_thread<V: Send + 'static>(
    seed: u64,
    simulate: impl FnOnce() -> V + Send + 'static,
    failed: impl FnOnce(String) -> V,
) -> V {
    // Keys are made outside of the world.
    let _made = identity(0);
    let world = thread::Builder::new().name(format!("seed {seed}")).spawn(simulate);
    let ended = world.expect("a thread starts").join();
    ended.unwrap_or_else(|panic| failed(text(&*panic)))
}

fn text(panic: &(dyn Any + Send)) -> String {
    let known = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
    format!("a panic: {}", known.unwrap_or("without words"))
}

fn simulate(seed: u64) -> Verdict {
    let mut rng = SplitMix64::new(seed);
    let _os = os::simulate(rng.bits());
    let executor = Executor::new(rng.bits(), MACHINES);
    let _world = novacron_runtime::enter(executor.clone());
    let _told = tell::begin(&executor);
    let mut cluster = Cluster::new(executor.clone());
    let mut faults = Vec::new();
    cluster.machines().for_each(|machine| cluster.start(machine));
    cluster.start_hosts();
    if !wait(&cluster, UP, |cluster| is_whole(cluster) && jobs::are_there(cluster)) {
        faults.push("no cluster came up".into());
    }
    faults::storm(&mut cluster, &mut rng, STORM);
    cluster.history.lock().over = true;
    if !wait(&cluster, HEALING, |cluster| is_whole(cluster) && jobs::are_settled(cluster)) {
        faults.push(format!("the cluster did not heal: {}", describe(&cluster)));
    }
    faults.extend(checks::faults(&cluster));
    let verdict = verdict(&cluster, faults);
    drop(cluster);
    executor.end();
    verdict
}

fn verdict(cluster: &Cluster, faults: Vec<String>) -> Verdict {
    let seen = cluster.history.lock();
    let acknowledged = |write: &&crate::history::Write| {
        matches!(write.ended, Some((_, crate::history::Wrote::Acknowledged)))
    };
    let trace = cluster.executor.trace();
    Verdict {
        faults,
        trace: trace.hash(),
        events: trace.events(),
        writes: seen.writes.iter().filter(acknowledged).count(),
        reads: seen.reads.len(),
        terms: seen.leaders.len(),
        attempts: seen.started.len(),
    }
}

/// Runs the world until something is so, or patience is over; says whether it is.
pub(crate) fn wait(cluster: &Cluster, patience: Duration, there: impl Fn(&Cluster) -> bool) -> bool {
    let mut waited = Duration::ZERO;
    while waited < patience {
        if there(cluster) {
            return true;
        }
        cluster.executor.run_for(LOOK);
        waited += LOOK;
    }
    there(cluster)
}

/// Somebody leads, all vote, and all have applied the same.
pub(crate) fn is_whole(cluster: &Cluster) -> bool {
    let Some(leader) = cluster.leader().and_then(|leader| cluster.ledger(leader)) else { return false };
    let applied = leader.status().applied;
    let all = cluster.machines().all(|machine| {
        cluster
            .ledger(machine)
            .is_some_and(|ledger| ledger.status().applied == applied && ledger.status().running)
    });
    all && leader.members().iter().filter(|member| member.voter).count() == COORDINATORS
}

fn describe(cluster: &Cluster) -> String {
    let statuses = cluster.machines().map(|machine| cluster.ledger(machine).map(|ledger| ledger.status()));
    format!("{:?}", statuses.collect::<Vec<_>>())
}
