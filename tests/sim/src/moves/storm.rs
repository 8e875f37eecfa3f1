//! What goes wrong while machines move: by chance, and at every edge of a move.

use super::{users::Users, yard::Striker};
use crate::{
    cluster::Cluster,
    executor::Executor,
    faults::{self, choose},
    host::Host,
    net::CALM,
    os::SECOND,
};
use novacron_common::{
    ids::HostId,
    record::{OutboundState, SideState},
    splitmix::SplitMix64,
};
use std::{
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

/// Milliseconds, in nanoseconds.
const MILLI: u64 = 1_000_000;
/// How long what was struck stays down.
const DOWN: (u64, u64) = (50 * MILLI, 3 * SECOND);
/// Per cent of a move's edges at which something is struck.
const EDGES_STRUCK: u64 = 12;

/// Something that goes wrong, or right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    CrashCoordinator,
    CrashLeader,
    KillAgent,
    PowerCut,
    CutHost,
    CutHosts,
    Mend,
    PauseAgent,
    Resume,
    Weather,
    Calm,
    KillDaemon,
    KillGuest,
    OldOrders,
    SlowDisk,
    LastWordLost,
}

/// How often each is chosen.
const MIX: &[(Fault, u64)] = &[
    (Fault::CrashCoordinator, 2),
    (Fault::CrashLeader, 3),
    (Fault::KillAgent, 4),
    (Fault::PowerCut, 1),
    (Fault::CutHost, 3),
    (Fault::CutHosts, 3),
    (Fault::Mend, 6),
    (Fault::PauseAgent, 2),
    (Fault::Resume, 4),
    (Fault::Weather, 3),
    (Fault::Calm, 3),
    (Fault::KillDaemon, 2),
    (Fault::KillGuest, 1),
    (Fault::OldOrders, 4),
    (Fault::SlowDisk, 2),
    (Fault::LastWordLost, 3),
];

/// Runs the cluster for `duration` while people act and things go wrong, then makes everything right.
pub fn storm(cluster: &mut Cluster, users: &mut Users, rng: &mut SplitMix64, duration: Duration) {
    let until = cluster.executor.elapsed() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    while cluster.executor.elapsed() < until {
        let pause = rng.between(20 * MILLI, SECOND);
        cluster.executor.run_for(Duration::from_nanos(pause));
        match rng.percent(55) {
            true => users.act(cluster, rng),
            false => strike(cluster, rng),
        }
    }
    calm(cluster);
}

/// Makes everything right, and lets nothing go wrong any more.
pub fn calm(cluster: &mut Cluster) {
    cluster.hosts.iter().for_each(Host::spare);
    faults::make_right(cluster);
    for metal in cluster.hosts.iter().filter_map(Host::metal) {
        metal.lose_last_word(false);
        metal.start_daemon();
    }
}

fn strike(cluster: &mut Cluster, rng: &mut SplitMix64) {
    let fault = choose(MIX, rng);
    let host = usize::try_from(rng.below(cluster.hosts.len() as u64)).unwrap_or(0);
    let coordinator = usize::try_from(rng.below(cluster.machines().len() as u64)).unwrap_or(0);
    cluster.executor.note(&[0xfa17, fault as u64, host as u64, coordinator as u64]);
    tracing::info!(?fault, host, coordinator, "something goes wrong");
    let struck = cluster.hosts[host].clone();
    match fault {
        Fault::CrashCoordinator => begin_anew(cluster, coordinator),
        Fault::CrashLeader => cluster.leader().into_iter().for_each(|leader| begin_anew(cluster, leader)),
        Fault::KillAgent => struck.kill_agent_for(rng.between(DOWN.0, DOWN.1)),
        Fault::PowerCut => struck.lose_power(),
        Fault::CutHost => {
            for coordinator in cluster.machines() {
                cluster.net.cut(struck.machine(), coordinator);
                cluster.net.cut(coordinator, struck.machine());
            }
        }
        Fault::CutHosts => {
            for other in cluster.hosts.iter().filter(|other| other.machine() != struck.machine()) {
                cluster.net.cut(struck.machine(), other.machine());
                rng.percent(70).then(|| cluster.net.cut(other.machine(), struck.machine()));
            }
        }
        Fault::Mend => cluster.net.mend(),
        Fault::PauseAgent => struck.pause_agent(),
        Fault::Resume => cluster.hosts.iter().for_each(Host::resume),
        Fault::Weather => cluster.net.set_weather(faults::weather(rng)),
        Fault::Calm => cluster.net.set_weather(CALM),
        Fault::KillDaemon => struck.kill_daemon_for(rng.between(DOWN.0, DOWN.1)),
        Fault::KillGuest => struck.kill_a_guest(rng.below(8)),
        Fault::OldOrders => cluster.net.repeat_orders(),
        Fault::SlowDisk => cluster.executor.set_sync(struck.machine(), (10 * MILLI, 300 * MILLI)),
        Fault::LastWordLost => struck.metal().into_iter().for_each(|metal| metal.lose_last_word(true)),
    }
    if fault == Fault::PowerCut {
        struck.start();
    }
}

fn begin_anew(cluster: &mut Cluster, machine: usize) {
    cluster.crash(machine);
    cluster.start(machine);
}

/// Who is struck at the edges of moves.
pub type Hosts = Arc<Mutex<Vec<Host>>>;

/// Strikes at a share of all edges, within a moment that is as likely to be short as to be long.
pub fn striker(executor: &Arc<Executor>, hosts: &Hosts) -> Striker {
    let (executor, hosts) = (Arc::downgrade(executor), Arc::downgrade(hosts));
    Arc::new(move |host, _, state| {
        let Some((executor, hosts)) = Weak::upgrade(&executor).zip(Weak::upgrade(&hosts)) else { return };
        let copies = matches!(state, SideState::Outbound(OutboundState::Copying(_)));
        let share = if copies { EDGES_STRUCK / 4 } else { EDGES_STRUCK };
        let drawn = executor.draw(|rng| {
            rng.percent(share).then(|| {
                let soon = (MILLI / 10) << rng.below(11);
                (rng.below(8), rng.below(soon), rng.between(DOWN.0, DOWN.1))
            })
        });
        let Some((what, soon, down)) = drawn else { return };
        executor.note(&[0xed6e, what, soon]);
        executor.act_in(soon, Box::new(move || strike_at_edge(&hosts, host, what, down)));
    })
}

fn strike_at_edge(hosts: &Hosts, here: HostId, what: u64, down: u64) {
    let hosts = hosts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let is_here = |host: &&Host| host.metal().is_some_and(|metal| metal.host == here);
    let chosen = match what % 2 {
        0 => hosts.iter().find(is_here),
        _ => hosts.iter().find(|host| !is_here(host)),
    };
    let Some(host) = chosen.filter(|host| host.may_be_struck()) else { return };
    tracing::info!(host = %host.id(), what = what / 2, down, "struck at an edge");
    match what / 2 {
        0 | 1 => host.kill_agent_for(down),
        2 => host.kill_daemon_for(down),
        _ => host.cut_off_for(down),
    }
}
