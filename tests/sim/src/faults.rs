//! What goes wrong, and when: chosen by the seed, one after the other, several at a time.

use crate::{
    cluster::Cluster,
    executor::{Machine, SYNC},
    net::{CALM, Weather},
    os::SECOND,
    rng::Rng,
};
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
];

/// Runs the cluster for `duration` while things go wrong, then makes everything right.
pub fn storm(cluster: &mut Cluster, rng: &mut Rng, duration: Duration) {
    let until = cluster.executor.elapsed() + u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    while cluster.executor.elapsed() < until {
        let pause = rng.between(50 * MILLI, 2 * SECOND);
        cluster.executor.run_for(Duration::from_nanos(pause));
        strike(cluster, rng);
    }
    make_right(cluster);
}

fn strike(cluster: &mut Cluster, rng: &mut Rng) {
    let machine = rng.below(cluster.machines().len() as u64) as Machine;
    let fault = choose(rng);
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
        Fault::Resume => cluster.machines().for_each(|machine| cluster.executor.resume(machine)),
        Fault::Clock => {
            let step = i64::try_from(rng.between(0, 4000 * MILLI)).unwrap_or(0);
            cluster.executor.set_skew(machine, step - 2000 * MILLI as i64);
        }
        Fault::SlowDisk => {
            let slow = rng.percent(60);
            cluster.executor.set_sync(machine, if slow { (20 * MILLI, 300 * MILLI) } else { SYNC });
        }
        Fault::Compact => cluster.compact(machine),
    }
}

fn choose(rng: &mut Rng) -> Fault {
    let total = MIX.iter().map(|(_, weight)| weight).sum();
    let mut left = rng.below(total);
    for (fault, weight) in MIX {
        if left < *weight {
            return *fault;
        }
        left -= weight;
    }
    Fault::Mend
}

fn weather(rng: &mut Rng) -> Weather {
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
    for machine in cluster.machines() {
        cluster.executor.resume(machine);
        cluster.executor.set_skew(machine, 0);
        cluster.executor.set_sync(machine, SYNC);
        cluster.start(machine);
    }
}
