//! The link to the target is cut in the middle of the copy: for five seconds, which the machine's move outlives, and
//! for longer than the agents wait for it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use novacron_common::api::{MigrationState, MigrationView};
use novacron_tests::cluster::{Cluster, ClusterOptions, Machine};
use novacron_tests::require;

use crate::after::{SOON, cluster_with_machine, fully_there_or_back};

/// The link's rate during the copy, Mbit/s: the copy takes many seconds, so that the cut falls into it.
const SLOW: u32 = 40;
const CUT: Duration = Duration::from_secs(5);

/// A move that copies, whose target has just been cut off.
fn cut_off(cluster: &Cluster, machine: &Machine) -> Result<MigrationView> {
    cluster.lab.shape(&cluster.members[0].host, SLOW)?;
    let migration = cluster.ask_to_migrate(machine, "h2", &[])?;
    cluster.follow_to_copying(&migration.id.to_string())?;
    cluster.lab.set_link(&cluster.members[1].host, false)?;
    Ok(migration)
}

fn outlives_a_cut(cluster: &Cluster, machine: &Machine) -> Result<()> {
    let began = Instant::now();
    let migration = cut_off(cluster, machine)?;
    let (id, cut) = (migration.id.to_string(), Instant::now());
    cluster.follow(&id, SOON, |view| view.status.message.contains("is lost"))?;
    let told = cut.elapsed();
    std::thread::sleep(CUT.saturating_sub(told));
    cluster.lab.set_link(&cluster.members[1].host, true)?;
    let back = Instant::now();
    cluster.follow(&id, SOON, |view| view.cuts_survived > 0)?;
    println!("told after {told:?}, went on {:?} after the link was back", back.elapsed());
    cluster.lab.unshape(&cluster.members[0].host)?;
    let home = fully_there_or_back(cluster, machine, &migration)?;
    println!("the move took {:?}", began.elapsed());
    ensure!(home == "h2", "a cut of {CUT:?} ended the move");
    let ended = cluster.migration(&id)?;
    ensure!(ended.cuts_survived == 1, "{ended:?}");
    Ok(())
}

#[test]
fn a_cut_of_five_seconds_in_the_copy_is_survived_and_told() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let (cluster, machine) = cluster_with_machine(&ClusterOptions::two_hosts("link-cut"))?;
    cluster.explain(&machine, outlives_a_cut(&cluster, &machine))
}

fn goes_back(cluster: &Cluster, machine: &Machine) -> Result<()> {
    let migration = cut_off(cluster, machine)?;
    let given_up = |view: &MigrationView| view.status.state == MigrationState::Reverting;
    let reverting = cluster.follow(&migration.id.to_string(), SOON, given_up)?;
    ensure!(reverting.status.message.contains("did not come back"), "{reverting:?}");
    // The target is still cut off: the source's guest runs on meanwhile.
    machine.recorder.wait_for_ticks(25, SOON)?;
    cluster.lab.set_link(&cluster.members[1].host, true)?;
    let home = fully_there_or_back(cluster, machine, &migration)?;
    ensure!(home == "h1", "it moved over a cut link");
    let ended = cluster.migration(&migration.id.to_string())?;
    ensure!(ended.status.message.contains("did not come back"), "{ended:?}");
    cluster.lab.unshape(&cluster.members[0].host)?;
    cluster.wait_for_hosts()?;
    cluster.migrate(machine, "h2")?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    ensure!(machine.recorder.judge().is_continuous(), "{:?}", machine.recorder.judge());
    Ok(())
}

#[test]
fn a_cut_that_outlasts_the_grace_ends_fully_back() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let (cluster, machine) = cluster_with_machine(&ClusterOptions::two_hosts("link-off"))?;
    cluster.explain(&machine, goes_back(&cluster, &machine))
}
