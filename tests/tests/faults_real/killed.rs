//! SIGKILL for each of the three programs, in the middle of the copy and at its end, when the guest is on neither host
//! running: paused on the target, gone or about to go from the source. A little later the dead is started again.

use std::time::Duration;

use anyhow::Result;
use novacron_common::api::MigrationView;
use novacron_tests::cluster::{Cluster, ClusterOptions, Machine};
use novacron_tests::require;

use crate::after::{SOON, cluster_with_machine, fully_there_or_back};
use crate::control_relay::{Cut, relay_before, with_relay};

/// The link's rate during the copy, Mbit/s: the copy takes seconds, so that the kill falls into it.
const SLOW: u32 = 80;
/// How long the dead stays dead.
const ABSENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
enum Victim {
    Agent(&'static str),
    Coordinator,
}

impl Victim {
    fn kill(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Agent(host) => cluster.kill_agent(host),
            Self::Coordinator => cluster.coordinator.kill9(),
        }
    }

    fn start(self, cluster: &mut Cluster) -> Result<()> {
        match self {
            Self::Agent(host) => cluster.start_agent(host),
            Self::Coordinator => cluster.start_coordinator(),
        }
    }
}

type Story = fn(&mut Cluster, &Machine, Victim) -> Result<MigrationView>;

fn killed(lab: &str, victim: Victim, story: Story) -> Result<()> {
    let (mut cluster, machine) = cluster_with_machine(&with_relay(ClusterOptions::two_hosts(lab)))?;
    let outcome = story(&mut cluster, &machine, victim)
        .and_then(|migration| fully_there_or_back(&cluster, &machine, &migration));
    cluster.explain(&machine, outcome).map(|_| ())
}

fn in_the_copy(cluster: &mut Cluster, machine: &Machine, victim: Victim) -> Result<MigrationView> {
    let _relay = relay_before(&cluster.members[1].host, Cut::Nowhere)?;
    cluster.lab.shape(&cluster.members[0].host, SLOW)?;
    let migration = cluster.ask_to_migrate(machine, "h2", &[])?;
    cluster.follow_to_copying(&migration.id.to_string())?;
    victim.kill(cluster)?;
    std::thread::sleep(ABSENCE);
    cluster.lab.unshape(&cluster.members[0].host)?;
    victim.start(cluster)?;
    Ok(migration)
}

fn at_its_end(cluster: &mut Cluster, machine: &Machine, victim: Victim) -> Result<MigrationView> {
    let relay = relay_before(&cluster.members[1].host, Cut::Nowhere)?;
    let migration = cluster.ask_to_migrate(machine, "h2", &[])?;
    relay.wait_for_it(SOON)?;
    victim.kill(cluster)?;
    std::thread::sleep(ABSENCE);
    victim.start(cluster)?;
    Ok(migration)
}

#[test]
fn the_source_agent_is_killed_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    killed("kill-src", Victim::Agent("h1"), in_the_copy)
}

#[test]
fn the_target_agent_is_killed_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    killed("kill-tgt", Victim::Agent("h2"), in_the_copy)
}

#[test]
fn the_coordinator_is_killed_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    killed("kill-crd", Victim::Coordinator, in_the_copy)
}

#[test]
fn the_source_agent_is_killed_when_the_copy_is_complete() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    killed("end-src", Victim::Agent("h1"), at_its_end)
}

#[test]
fn the_target_agent_is_killed_when_the_copy_is_complete() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    killed("end-tgt", Victim::Agent("h2"), at_its_end)
}

#[test]
fn the_coordinator_is_killed_when_the_copy_is_complete() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    killed("end-crd", Victim::Coordinator, at_its_end)
}
