//! Strikes a victim, holds the blow, and heals it.

use std::net::Ipv4Addr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use novacron_tests::cluster::{Cluster, Program};
use novacron_tests::lab::{Node, Process};
use novacron_tests::matrix::{Blow, Victim};

use super::stage::{PATIENCE, Sides};

/// How long a service that was killed stays dead.
const DEAD: Duration = Duration::from_secs(2);
/// How long a process is stopped.
const STOPPED: Duration = Duration::from_secs(10);
/// How long a cut is that is survived.
const CUT: Duration = Duration::from_secs(5);
/// Longer than the agents' grace (15 s, and 3 s until the target notices) and a coordinator's wait for an agent.
const BEYOND_GRACE: Duration = Duration::from_secs(25);

/// A blow that was struck.
pub struct Wound {
    victim: Victim,
    blow: Blow,
    sides: Sides,
    /// The QEMU that it was done to.
    qemu: Option<Pid>,
}

/// Strikes. A QEMU that is only just being started is waited for.
pub fn strike(cluster: &mut Cluster, (victim, blow): (Victim, Blow), sides: Sides) -> Result<Wound> {
    let qemu = match victim {
        Victim::SourceQemu => find_qemu(cluster, sides.source)?,
        Victim::TargetQemu => Some(await_qemu(cluster, sides.target)?),
        _ => None,
    };
    match blow {
        Blow::Kill => send_kill(cluster, victim, sides, qemu)?,
        Blow::Stop => signal(cluster, victim, sides, qemu, Signal::SIGSTOP)?,
        Blow::Cut | Blow::CutForGood => cut(cluster, victim, sides)?,
    }
    Ok(Wound { victim, blow, sides, qemu })
}

impl Wound {
    /// Waits as long as the blow holds. `ended`: waits for the migration's end.
    pub fn hold(&self, cluster: &Cluster, ended: impl FnOnce(&Cluster) -> Result<()>) -> Result<()> {
        match (self.blow, self.victim) {
            (Blow::Kill, Victim::SourceQemu | Victim::TargetQemu) => {}
            (Blow::Kill, _) => sleep(DEAD),
            (Blow::Stop, _) => sleep(STOPPED),
            (Blow::Cut, _) => sleep(CUT),
            // Both agents have the coordinator: the end comes though the link does not.
            (Blow::CutForGood, Victim::Link) => return ended(cluster),
            (Blow::CutForGood, _) => sleep(BEYOND_GRACE),
        }
        Ok(())
    }

    /// Undoes it.
    pub fn heal(&self, cluster: &mut Cluster) -> Result<()> {
        let Self { victim, blow, sides, qemu } = *self;
        match blow {
            Blow::Kill => start(cluster, victim, sides),
            Blow::Stop => signal(cluster, victim, sides, qemu, Signal::SIGCONT),
            Blow::Cut | Blow::CutForGood => mend(cluster, victim, sides),
        }
        .with_context(|| format!("healing {}.{}", victim.name(), blow.name()))
    }
}

fn program(cluster: &mut Cluster, victim: Victim, sides: Sides) -> Option<&mut Program> {
    match victim {
        Victim::SourceAgent => Some(&mut cluster.members[sides.source].agent),
        Victim::TargetAgent => Some(&mut cluster.members[sides.target].agent),
        Victim::Coordinator => Some(&mut cluster.coordinator),
        _ => None,
    }
}

/// The host whose libvirtd is meant.
fn libvirtd_of(victim: Victim, sides: Sides) -> usize {
    if victim == Victim::SourceLibvirtd { sides.source } else { sides.target }
}

fn send_kill(cluster: &mut Cluster, victim: Victim, sides: Sides, qemu: Option<Pid>) -> Result<()> {
    if let Some(program) = program(cluster, victim, sides) {
        return program.kill9();
    }
    match victim {
        Victim::SourceLibvirtd | Victim::TargetLibvirtd => {
            cluster.members[libvirtd_of(victim, sides)].host.kill9_libvirtd()
        }
        _ => signal_qemu(qemu, Signal::SIGKILL),
    }
}

fn start(cluster: &mut Cluster, victim: Victim, sides: Sides) -> Result<()> {
    match victim {
        Victim::SourceAgent | Victim::TargetAgent => {
            let side = if victim == Victim::SourceAgent { sides.source } else { sides.target };
            let member = &mut cluster.members[side];
            member.agent.start(member.host.node())
        }
        Victim::Coordinator => cluster.start_coordinator(),
        Victim::SourceLibvirtd | Victim::TargetLibvirtd => {
            cluster.members[libvirtd_of(victim, sides)].host.start_libvirtd()
        }
        Victim::SourceQemu | Victim::TargetQemu | Victim::Link => Ok(()),
    }
}

fn signal(
    cluster: &mut Cluster,
    victim: Victim,
    sides: Sides,
    qemu: Option<Pid>,
    what: Signal,
) -> Result<()> {
    if let Some(program) = program(cluster, victim, sides) {
        return program.process()?.kill(what);
    }
    match victim {
        Victim::SourceLibvirtd | Victim::TargetLibvirtd => {
            let libvirtd: Option<&Process> = cluster.members[libvirtd_of(victim, sides)].host.libvirtd();
            libvirtd.context("libvirtd does not run")?.kill(what)
        }
        _ => signal_qemu(qemu, what),
    }
}

/// A QEMU that has ended meanwhile is past all blows.
fn signal_qemu(qemu: Option<Pid>, what: Signal) -> Result<()> {
    match qemu.map(|pid| kill(pid, what)) {
        None | Some(Ok(()) | Err(Errno::ESRCH)) => Ok(()),
        Some(Err(error)) => Err(error).with_context(|| format!("sending {what} to QEMU")),
    }
}

fn find_qemu(cluster: &Cluster, side: usize) -> Result<Option<Pid>> {
    let found = cluster.members[side].host.qemu_pids()?.first().copied();
    found.map(|pid| Ok(Pid::from_raw(i32::try_from(pid)?))).transpose()
}

fn await_qemu(cluster: &Cluster, side: usize) -> Result<Pid> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(pid) = find_qemu(cluster, side)? {
            return Ok(pid);
        }
        ensure!(Instant::now() < deadline, "no QEMU came up on the target within {PATIENCE:?}");
        sleep(Duration::from_millis(2));
    }
}

fn cut(cluster: &Cluster, victim: Victim, sides: Sides) -> Result<()> {
    match victim {
        Victim::SourceAgent => cluster.lab.set_link(cluster.members[sides.source].host.node(), false),
        Victim::TargetAgent => cluster.lab.set_link(cluster.members[sides.target].host.node(), false),
        Victim::Coordinator => {
            let both = [sides.source, sides.target].map(|side| cluster.members[side].host.address());
            both.into_iter().try_for_each(|host| lose(cluster.lab.outside(), host))
        }
        _ => {
            let (at, other) = (&cluster.members[sides.target].host, &cluster.members[sides.source].host);
            lose(at.node(), other.address())
        }
    }
}

fn mend(cluster: &Cluster, victim: Victim, sides: Sides) -> Result<()> {
    match victim {
        Victim::SourceAgent => cluster.lab.set_link(cluster.members[sides.source].host.node(), true),
        Victim::TargetAgent => cluster.lab.set_link(cluster.members[sides.target].host.node(), true),
        Victim::Coordinator => iptables(cluster.lab.outside(), &["-F"]),
        _ => iptables(cluster.members[sides.target].host.node(), &["-F"]),
    }
}

/// Loses every packet between a node and another's address.
fn lose(node: &Node, other: Ipv4Addr) -> Result<()> {
    let other = other.to_string();
    iptables(node, &["-A", "INPUT", "-s", &other, "-j", "DROP"])?;
    iptables(node, &["-A", "OUTPUT", "-d", &other, "-j", "DROP"])
}

fn iptables(node: &Node, words: &[&str]) -> Result<()> {
    // Waits for the lock that all namespaces of the machine share.
    node.exec("iptables", &[&["-w", "10"], words].concat()).map(drop)
}
