//! A running machine moves, and moves back; a move that is cancelled did not happen.

use std::time::Duration;

use anyhow::{Result, ensure};
use novacron_common::api::MigrationState;
use novacron_tests::cluster::{Cluster, ClusterOptions, Echo, GuestOptions, Machine, TemplateOptions};
use novacron_tests::require;

pub const SOON: Duration = Duration::from_secs(60);

/// A cluster of two hosts with the template `guest`, whose machines get a blank disk.
pub fn two_hosts(name: &str) -> Result<Cluster> {
    let cluster = Cluster::start(&ClusterOptions::two_hosts(name))?;
    cluster.make_template(&TemplateOptions { name: "guest".to_owned(), disk: None })?;
    Ok(cluster)
}

#[test]
fn a_machine_moves_there_and_back_while_it_works_and_is_gone_when_deleted() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-live")?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    let echo = Echo::start(cluster.lab.outside(), machine.address)?;
    for to in ["h2", "h1"] {
        let asked = cluster.ask_to_migrate(&machine, to, &[])?;
        let ended = cluster.follow_to_end(&asked.id.to_string(), SOON)?;
        ensure!(ended.status.state == MigrationState::Completed, "{ended:?}");
        let memory = ended.memory;
        ensure!(memory.raw.pages > 0 && memory.zero.pages > 0, "pages of both kinds were sent: {memory:?}");
        ensure!(memory.wire_bytes < memory.written_bytes, "the codec saved something: {memory:?}");
        ensure!(cluster.place_of(&machine)? == (to.to_owned(), "running".to_owned()));
        machine.recorder.wait_for_ticks(25, SOON)?;
        echo.wait_for_answers(5, SOON)?;
    }
    let passes = machine.recorder.judge().last.passes;
    cluster.wait_until(SOON, "all memory is checked after the moves", |_| {
        Ok(machine.recorder.judge().last.passes >= passes + 2)
    })?;
    let connection = echo.finish()?;
    ensure!(connection.fault.is_none(), "{connection:?}");
    let by_guest = cluster.settle_disk(&machine)?;
    cluster.novactl(&["vm", "stop", "vm", "--wait"])?;
    let by_host = cluster.hash_of_image(&machine, "h1")?;
    ensure!(by_guest == by_host, "the guest read {by_guest:016x}, the host holds {by_host:016x}");
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous() && verdict.last.disk_writes > 0, "{verdict:?}");
    cluster.delete(&machine)?;
    let remains = cluster.remains_of(&machine)?;
    ensure!(remains.is_empty(), "{remains:?}");
    Ok(())
}

#[test]
fn a_cancelled_move_leaves_the_machine_where_it_was_and_it_can_move_again() -> Result<()> {
    require!(root, libvirt, qemu, apt);
    let cluster = two_hosts("mv-stop")?;
    let machine = cluster.boot_guest(&GuestOptions::small("vm", "guest", "h1"))?;
    cancel_in_the_copy(&cluster, &machine)?;
    cluster.lab.unshape(&cluster.members[0].host)?;
    cluster.migrate(&machine, "h2")?;
    machine.recorder.wait_for_ticks(25, SOON)?;
    let verdict = machine.recorder.judge();
    ensure!(verdict.is_continuous(), "{verdict:?}");
    let source = cluster.leftovers_on("h1", &machine)?;
    ensure!(source.is_empty(), "{source:?}");
    Ok(())
}

/// Sends the machine from h1 to h2 over a slow link, cancels that, and sees that it did not happen.
pub fn cancel_in_the_copy(cluster: &Cluster, machine: &Machine) -> Result<()> {
    // Slow enough that the copy is certainly under way when it is cancelled.
    cluster.lab.shape(&cluster.members[0].host, 40)?;
    let asked = cluster.ask_to_migrate(machine, "h2", &[])?;
    let id = asked.id.to_string();
    cluster.follow_to_copying(&id)?;
    cluster.novactl(&["migration", "cancel", &id])?;
    let ended = cluster.follow_to_end(&id, SOON)?;
    ensure!(ended.status.state == MigrationState::Cancelled, "{ended:?}");
    ensure!(cluster.place_of(machine)? == ("h1".to_owned(), "running".to_owned()));
    let target = cluster.leftovers_on("h2", machine)?;
    ensure!(target.is_empty(), "{target:?}");
    machine.recorder.wait_for_ticks(25, SOON)
}
