//! SIGKILL for each of the three programs in the middle of the copy; a little later it is started again.

use std::time::Duration;

use anyhow::Result;
use novacron_common::api::MigrationView;
use novacron_tests::cluster::{Cluster, ClusterOptions, Machine};
use novacron_tests::require;

use crate::after::{cluster_with_machine, fully_there_or_back};

/// The link's rate during the copy, Mbit/s: the copy takes seconds, so that the kill falls into it.
const SLOW: u32 = 80;
/// How long the dead stays dead.
const ABSENCE: Duration = Duration::from_secs(2);

#[derive(Clone, Copy)]
enum Victim {
    Agent(&'static str),
    Coordinator,
}

fn kill_in_the_copy(lab: &str, victim: Victim) -> Result<()> {
    let (mut cluster, machine) = cluster_with_machine(&ClusterOptions::two_hosts(lab))?;
    let outcome = kill_and_restart(&mut cluster, &machine, victim)
        .and_then(|migration| fully_there_or_back(&cluster, &machine, &migration));
    cluster.explain(&machine, outcome).map(|_| ())
}

fn kill_and_restart(cluster: &mut Cluster, machine: &Machine, victim: Victim) -> Result<MigrationView> {
    cluster.lab.shape(&cluster.members[0].host, SLOW)?;
    let migration = cluster.ask_to_migrate(machine, "h2", &[])?;
    cluster.follow_to_copying(&migration.id.to_string())?;
    match victim {
        Victim::Agent(host) => cluster.kill_agent(host)?,
        Victim::Coordinator => cluster.coordinator.kill9()?,
    }
    std::thread::sleep(ABSENCE);
    cluster.lab.unshape(&cluster.members[0].host)?;
    match victim {
        Victim::Agent(host) => cluster.start_agent(host)?,
        Victim::Coordinator => cluster.start_coordinator()?,
    }
    Ok(migration)
}

#[test]
fn the_source_agent_is_killed_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    kill_in_the_copy("kill-src", Victim::Agent("h1"))
}

#[test]
fn the_target_agent_is_killed_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    kill_in_the_copy("kill-tgt", Victim::Agent("h2"))
}

#[test]
fn the_coordinator_is_killed_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    kill_in_the_copy("kill-crd", Victim::Coordinator)
}
