//! A planned restart of an agent (SIGTERM, and a start in its place) in the middle of the copy ends no migration.

use anyhow::{Result, ensure};
use novacron_common::api::{MigrationState, MigrationView};
use novacron_tests::cluster::{Cluster, ClusterOptions, Machine};
use novacron_tests::require;

use crate::after::{SOON, cluster_with_machine, fully_there_or_back};

/// The link's rate during the copy, Mbit/s: the copy takes seconds, so that the restart falls into it.
const SLOW: u32 = 80;

fn restarted(lab: &str, host: &str) -> Result<()> {
    let (mut cluster, machine) = cluster_with_machine(&ClusterOptions::two_hosts(lab))?;
    let outcome = in_the_copy(&mut cluster, &machine, host)
        .and_then(|migration| went_on(&cluster, &machine, &migration))
        .and_then(|()| {
            let left = cluster.left_descriptors(host)?;
            ensure!(left == 0, "{left} descriptors were left, and not taken over");
            Ok(())
        });
    cluster.explain(&machine, outcome)
}

fn in_the_copy(cluster: &mut Cluster, machine: &Machine, host: &str) -> Result<MigrationView> {
    cluster.lab.shape(&cluster.members[0].host, SLOW)?;
    let migration = cluster.ask_to_migrate(machine, "h2", &[])?;
    cluster.follow_to_copying(&migration.id.to_string())?;
    cluster.restart_agent(host)?;
    let id = migration.id.to_string();
    let between = cluster.migration(&id)?;
    ensure!(!between.status.state.is_final(), "it ended with the agent: {between:?}");
    cluster.lab.unshape(&cluster.members[0].host)?;
    Ok(migration)
}

fn went_on(cluster: &Cluster, machine: &Machine, migration: &MigrationView) -> Result<()> {
    let home = fully_there_or_back(cluster, machine, migration)?;
    let ended = cluster.migration(&migration.id.to_string())?;
    ensure!(home == "h2" && ended.status.state == MigrationState::Completed, "{ended:?}");
    ensure!(ended.cuts_survived >= 1, "the restart is a cut that was survived: {ended:?}");
    let passes = machine.recorder.judge().last.passes;
    cluster.wait_until(SOON, "all memory is checked after the move", |_| {
        Ok(machine.recorder.judge().last.passes >= passes + 2)
    })?;
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous() && verdict.bad_pages == 0, "{verdict:?}");
    Ok(())
}

#[test]
fn the_source_agent_is_restarted_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    restarted("again-src", "h1")
}

#[test]
fn the_target_agent_is_restarted_in_the_copy() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    restarted("again-tgt", "h2")
}
