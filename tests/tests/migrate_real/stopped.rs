//! `live: false`: a running machine is stopped, moved and started; a stopped one is moved and stays stopped.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use novacron_tests::cluster::{Cluster, GuestOptions, Machine};
use novacron_tests::require;

use crate::{
    live::{SOON, two_hosts},
    returns::completed,
};

fn move_offline(cluster: &Cluster, machine: &Machine, to: &str) -> Result<()> {
    let ended = completed(cluster, machine, to, &["--offline", "--verify-disk"])?;
    ensure!(ended.compared_bytes > Some(0), "{ended:?}");
    Ok(())
}

/// How many blocks of its own the guest found when it booted, from its line `DISK slots=… found=… torn=… seq=…`.
fn found_blocks(machine: &Machine, since: Duration) -> Result<u64> {
    let line = machine.recorder.wait_for(since, SOON, |line| line.starts_with("DISK "))?.text;
    let field = |name: &str| line.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    ensure!(field("torn") == Some("0"), "{line}");
    field("found").with_context(|| format!("no count in {line:?}"))?.parse().context("reading the count")
}

#[test]
fn a_machine_that_moves_stopped_keeps_its_disk_and_its_state() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-cold")?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    cluster.explain(&machine, moves_running_and_stopped(&cluster, &machine))
}

fn moves_running_and_stopped(cluster: &Cluster, machine: &Machine) -> Result<()> {
    machine.recorder.wait_for_ticks(25, SOON)?;
    let since = machine.recorder.now();
    move_offline(cluster, machine, "h2")?;
    ensure!(found_blocks(machine, since)? > 0, "the guest lost its disk");
    cluster.wait_for_place(machine, "h2", "running")?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    cluster.novactl(&["vm", "stop", "vm", "--wait"])?;
    let before = cluster.hash_of_image(machine, "h2")?;
    move_offline(cluster, machine, "h1")?;
    cluster.wait_for_place(machine, "h1", "stopped")?;
    ensure!(cluster.hash_of_image(machine, "h1")? == before, "the disk changed on the way");
    let left = cluster.leftovers_on("h2", machine)?;
    ensure!(left.is_empty(), "{left:?}");
    let since = machine.recorder.now();
    cluster.novactl(&["vm", "start", "vm", "--wait"])?;
    ensure!(found_blocks(machine, since)? > 0, "the guest lost its disk");
    machine.recorder.wait_for(since, SOON, |line| line.starts_with("READY"))?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    let verdict = machine.recorder.judge();
    let sound = verdict.lost + verdict.repeated + verdict.garbled + verdict.bad_pages + verdict.disk_bad == 0;
    ensure!(sound && verdict.boots == 3, "{verdict:?}");
    Ok(())
}
