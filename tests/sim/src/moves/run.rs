//! One seed of machines that move, from beginning to verdict.

use super::{
    checks, storm,
    users::{REGRET_MS, Users},
};
use crate::{
    cluster::Cluster,
    executor::Executor,
    host::Host,
    identities::MACHINES,
    os,
    run::{is_whole, on_a_thread, wait},
    tell,
};
use novacron_common::{api::MigrationState, splitmix::SplitMix64};
use std::time::Duration;

/// How long the cluster may take to come up, with machines that run.
const UP: Duration = Duration::from_secs(30);
/// How long things go wrong.
const STORM: Duration = Duration::from_secs(25);
/// How long it may take until all moves have ended and all machines are as they are wanted, once nothing is wrong: QUIC's idle
/// time-out, an election, two looks at what does not report by itself, and copies that libvirt gives up.
const HEALING: Duration = Duration::from_secs(100);

/// How long it may take until whoever calls a move off on a calm day has done so, and is answered: a coordinator that asks its
/// leader over a link that died learns it by that link's idle time-out, and gives up each proposal before.
const ANSWERING: Duration = Duration::from_secs(15);
/// How long a move may take to end once that is answered, when nothing is wrong: less than the hypervisor is given before
/// its connections are cut.
const CANCELLING: Duration = Duration::from_secs(5);

/// What came of a seed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What is wrong; empty if nothing is.
    pub faults: Vec<String>,
    /// Hash over everything that happened.
    pub trace: u64,
    /// Moves that were asked for.
    pub moves: u128,
    /// Moves that completed.
    pub completed: usize,
    /// Moves that were called off in time.
    pub cancelled: usize,
    /// How often guests were started.
    pub boots: u64,
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
pub fn run_with(seed: u64, mistake: Option<novacron_common::planted::Mistake>) -> Verdict {
    on_a_thread(seed, crate::run::planting(mistake, move || simulate(seed)), failed)
}

fn failed(panic: String) -> Verdict {
    Verdict { faults: vec![panic], ..Verdict::default() }
}

fn simulate(seed: u64) -> Verdict {
    let mut rng = SplitMix64::new(seed);
    let _os = os::simulate(rng.bits());
    let executor = Executor::new(rng.bits(), MACHINES);
    let _world = novacron_runtime::enter(executor.clone());
    let _told = tell::begin(&executor);
    let mut cluster = Cluster::with_moves(executor.clone());
    let (mut users, mut faults) = (Users::default(), Vec::new());
    cluster.machines().for_each(|machine| cluster.start(machine));
    cluster.start_hosts();
    if !wait(&cluster, UP, |cluster| is_whole(cluster) && cluster.has_hosts()) {
        faults.push("no cluster came up".into());
    }
    users.begin(&cluster);
    if !wait(&cluster, UP, |cluster| cluster.knows(users.machines()) && checks::are_settled(cluster)) {
        faults.push("no machine came up".into());
    }
    storm::storm(&mut cluster, &mut users, &mut rng, STORM);
    let healed = wait(&cluster, HEALING, |cluster| is_whole(cluster) && checks::are_settled(cluster));
    if healed {
        users.settle(&cluster);
        let runs = |cluster: &Cluster| is_whole(cluster) && checks::all_run(cluster, users.machines());
        if !wait(&cluster, HEALING, |cluster| runs(cluster) && checks::are_settled(cluster)) {
            faults.push("a machine that is wanted does not run".into());
        }
        users.power_off_and_start(&cluster, &mut rng);
        if !wait(&cluster, HEALING, |cluster| runs(cluster) && checks::are_settled(cluster)) {
            faults
                .push("a machine that was started right after it had powered itself off does not run".into());
        }
        // What hosts were told before a machine was deleted comes once more: it is not to make the machine anew.
        users.replace(&cluster, 0);
        let _looked_at_below = wait(&cluster, HEALING, |cluster| {
            cluster.knows(users.machines())
                && checks::all_run(cluster, users.machines())
                && checks::are_settled(cluster)
        });
        cluster.net.repeat_orders();
        let called_off = users.move_and_cancel(&cluster, &mut rng);
        if !wait(&cluster, ANSWERING, |_| called_off.is_answered()) {
            faults.push("nobody answers who calls a move off on a calm day".into());
        }
        if !wait(&cluster, CANCELLING, |cluster| checks::have_ended(cluster, &called_off.accepted())) {
            faults.push("a move that was called off on a calm day does not end".into());
        }
        if wait(&cluster, HEALING, checks::are_settled) {
            cluster.hosts.iter().for_each(Host::expose);
            let sent = users.send_over(&cluster);
            executor.run_for(Duration::from_millis(REGRET_MS));
            let _struck_at_edges = wait(&cluster, STORM, |cluster| checks::have_ended(cluster, &sent));
            storm::calm(&mut cluster);
        }
        let _looked_at_below = wait(&cluster, HEALING, checks::are_settled);
    }
    faults.extend(checks::faults(&cluster));
    let verdict = Verdict {
        faults,
        trace: executor.trace().hash(),
        moves: users.moves(),
        completed: checks::ended(&cluster, MigrationState::Completed),
        cancelled: checks::ended(&cluster, MigrationState::Cancelled),
        boots: cluster.truth().map_or(0, |truth| truth.boots()),
    };
    drop(cluster);
    executor.end();
    verdict
}
