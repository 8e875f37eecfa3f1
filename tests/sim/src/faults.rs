//! What goes wrong, and when: chosen by the seed, one after the other, several at a time.

use crate::{
    cluster::Cluster,
    executor::{Machine, SYNC},
    net::{CALM, Weather},
    os::SECOND,
};
use novacron_common::splitmix::SplitMix64;
use std::time::Duration;

/// Milliseconds, in nanoseconds.
const MILLI: u64 = 1_000_000;

/// Something that goes wrong, or right again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Crash,
    Restart,
    CutOff,
    CutOneWay,
    Mend,
    Weather,
    Pause,
    Resume,
    Clock,
    SlowDisk,
    Compact,
    KillAgent,
    PowerCut,
    StartAgents,
    CutHost,
    PauseAgent,
    CrashAll,
    LeaderAlone,
    HostAlone,
    OldOrders,
}

/// How often each is chosen.
const MIX: &[(Fault, u64)] = &[
    (Fault::Crash, 4),
    (Fault::Restart, 6),
    (Fault::CutOff, 3),
    (Fault::CutOneWay, 3),
    (Fault::Mend, 5),
    (Fault::Weather, 3),
    (Fault::Pause, 2),
    (Fault::Resume, 4),
    (Fault::Clock, 2),
    (Fault::SlowDisk, 2),
    (Fault::Compact, 2),
    (Fault::KillAgent, 4),
    (Fault::PowerCut, 2),
    (Fault::StartAgents, 5),
    (Fault::CutHost, 2),
    (Fault::PauseAgent, 2),
    (Fault::CrashAll, 2),
    (Fault::LeaderAlone, 2),
    (Fault::HostAlone, 1),
    (Fault::OldOrders, 2),
];
/// How long a new leader is waited for.
const ELECTION: Duration = Duration::from_secs(3);
/// How long a host is out of sight: QUIC's idle time-out, the grace of hosts, and a while with what is tried elsewhere.
const OUT_OF_SIGHT: Duration = Duration::from_secs(16);
/// How long a new leader may need until it takes proposals.
const SETTLED: Duration = Duration::from_millis(600);
/// How long a leader that is cut off takes proposals: its lease.
const ALONE: Duration = Duration::from_millis(400);

/// Runs the cluster for `duration` while things go wrong, then makes everything right.
pub fn storm(cluster: &mut Cluster, rng: &mut SplitMix64, duration: Duration) {
    let until = cluster.executor.elapsed() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    while cluster.executor.elapsed() < until {
        let pause = rng.between(50 * MILLI, 2 * SECOND);
        cluster.executor.run_for(Duration::from_nanos(pause));
        strike(cluster, rng);
    }
    make_right(cluster);
}

fn strike(cluster: &mut Cluster, rng: &mut SplitMix64) {
    let machine = rng.below(cluster.machines().len() as u64) as Machine;
    let fault = choose(MIX, rng);
    cluster.executor.note(&[0xfa17, fault as u64, machine as u64]);
    match fault {
        Fault::Crash => cluster.crash(machine),
        Fault::Restart => cluster.start(machine),
        Fault::CutOff => others(cluster, machine).for_each(|other| {
            cluster.net.cut(machine, other);
            cluster.net.cut(other, machine);
        }),
        Fault::CutOneWay => {
            let other = (machine + 1 + rng.below(2) as Machine) % cluster.machines().len();
            cluster.net.cut(machine, other);
        }
        Fault::Mend => cluster.net.mend(),
        Fault::Weather => cluster.net.set_weather(weather(rng)),
        Fault::Pause => cluster.executor.pause(machine),
        Fault::Resume => resume(cluster),
        Fault::Clock => {
            let step = i64::try_from(rng.between(0, 4000 * MILLI)).unwrap_or(0);
            cluster.executor.set_skew(machine, step - 2000 * MILLI as i64);
        }
        Fault::SlowDisk => {
            let slow = rng.percent(60);
            cluster.executor.set_sync(machine, if slow { (20 * MILLI, 300 * MILLI) } else { SYNC });
        }
        Fault::Compact => cluster.compact(machine),
        Fault::KillAgent => host(cluster, rng).kill_agent(),
        Fault::PowerCut => host(cluster, rng).lose_power(),
        Fault::StartAgents => cluster.start_hosts(),
        Fault::CutHost => {
            let agent = host(cluster, rng).machine();
            cut_host(cluster, agent, (rng.percent(70), rng.percent(70)));
        }
        Fault::PauseAgent => {
            let host = host(cluster, rng);
            host.pause_agent();
            // Who is stopped sends no sign of life either.
            cluster.machines().for_each(|coordinator| cluster.net.cut(host.machine(), coordinator));
        }
        Fault::CrashAll => {
            cluster.machines().for_each(|machine| cluster.crash(machine));
            cluster.machines().for_each(|machine| cluster.start(machine));
        }
        Fault::LeaderAlone => leader_alone(cluster, rng),
        Fault::HostAlone => host_alone(cluster, rng),
        Fault::OldOrders => cluster.net.repeat_orders(),
    }
}

fn resume(cluster: &Cluster) {
    cluster.machines().for_each(|machine| cluster.executor.resume(machine));
    cluster.hosts.iter().for_each(crate::host::Host::resume);
}

/// The leader fails. As soon as another one is elected, or soon after, it is cut off, and its voters begin anew: whoever
/// voted for it must still know. Then it begins anew itself, with entries that nobody else has.
fn leader_alone(cluster: &mut Cluster, rng: &mut SplitMix64) {
    let Some(old) = cluster.leader() else { return };
    cluster.net.mend();
    resume(cluster);
    cluster.machines().for_each(|machine| cluster.start(machine));
    cluster.crash(old);
    let mut waited = Duration::ZERO;
    while cluster.leader().is_none() && waited < ELECTION {
        cluster.executor.run_for(ELECTION / 500);
        waited += ELECTION / 500;
    }
    let Some(new) = cluster.leader() else { return };
    if rng.percent(50) {
        cluster.executor.run_for(SETTLED);
    }
    for other in others(cluster, new) {
        cluster.net.cut(new, other);
        cluster.net.cut(other, new);
        cluster.crash(other);
        cluster.start(other);
    }
    cluster.executor.run_for(ALONE);
    cluster.crash(new);
    cluster.start(new);
}

/// A host is out of sight until the leases of its attempts are over, while the coordinators are well: what it runs may
/// be tried elsewhere then.
fn host_alone(cluster: &mut Cluster, rng: &mut SplitMix64) {
    cluster.net.mend();
    resume(cluster);
    cluster.machines().for_each(|machine| cluster.start(machine));
    cluster.start_hosts();
    cut_host(cluster, host(cluster, rng).machine(), (true, true));
    cluster.executor.run_for(OUT_OF_SIGHT);
}

fn cut_host(cluster: &Cluster, agent: Machine, (there, back): (bool, bool)) {
    for coordinator in cluster.machines() {
        there.then(|| cluster.net.cut(agent, coordinator));
        back.then(|| cluster.net.cut(coordinator, agent));
    }
}

fn host<'a>(cluster: &'a Cluster, rng: &mut SplitMix64) -> &'a crate::host::Host {
    &cluster.hosts[rng.below(cluster.hosts.len() as u64) as usize]
}

/// One of `mix`, each as often as its weight says.
pub fn choose<T: Copy>(mix: &[(T, u64)], rng: &mut SplitMix64) -> T {
    let total = mix.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.below(total);
    let mut chosen = mix[0].0;
    for (one, weight) in mix {
        chosen = *one;
        if left < *weight {
            break;
        }
        left -= weight;
    }
    chosen
}

/// A bad day.
pub fn weather(rng: &mut SplitMix64) -> Weather {
    let worst = rng.between(1, 120) * MILLI;
    Weather { delay: (100_000, worst), loss: rng.below(25), doubled: rng.below(10) }
}

fn others(cluster: &Cluster, machine: Machine) -> impl Iterator<Item = Machine> + use<> {
    cluster.machines().filter(move |other| *other != machine)
}

/// Nothing is wrong any more.
pub fn make_right(cluster: &mut Cluster) {
    cluster.net.mend();
    cluster.net.set_weather(CALM);
    cluster.start_hosts();
    resume(cluster);
    for machine in cluster.machines() {
        cluster.executor.set_skew(machine, 0);
        cluster.executor.set_sync(machine, SYNC);
        cluster.start(machine);
    }
}
