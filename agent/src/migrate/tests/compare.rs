//! Disks that are compared: a machine whose copy is another disk does not go on with it.

use super::{
    moves::{ARRIVED, BACK, DISCARDED, GONE, READY, RELEASED, RUNNING, reason},
    world::{Agent, Host, VM, World, spec, ticket},
};
use crate::migrate::ports::Standing;
use novacron_common::{
    record::{MigrationReport, MoveLimits, OutboundState, SideState, Ticket},
    units::{ByteCount, Epoch},
};
use std::process::Command;

/// Gives the machine a disk on this host that holds a cluster of this byte.
fn write_disk(host: &Host, byte: u8) {
    let disk = host.files().disk();
    let disk = disk.to_str().unwrap();
    let write = format!("write -P {byte} 1M 64k");
    let made = Command::new("qemu-img").args(["create", "-q", "-f", "qcow2", disk, "4M"]).output().unwrap();
    let written = Command::new("qemu-io").args(["-f", "qcow2", "-c", &write, disk]).output().unwrap();
    assert!(made.status.success() && written.status.success(), "{made:?} {written:?}");
}

/// Moves to a host on which the disk then holds `copied`; what the source says when it has left.
async fn go(world: &World, ticket: &Ticket, copied: u8) -> (Agent, Agent, MigrationReport) {
    let (a, b) = (world.a.agent(), world.b.agent());
    b.migrations.prepare_inbound(ticket.clone(), spec()).await.unwrap();
    b.until(ticket.migration, READY).await;
    std::fs::create_dir_all(world.a.files().disk().parent().unwrap()).unwrap();
    write_disk(&world.a, 1);
    write_disk(&world.b, copied);
    let limits = MoveLimits { verify_disk: true, ..MoveLimits::default() };
    a.migrations.start_outbound(ticket.clone(), spec(), world.b.address(), limits).await.unwrap();
    b.until(ticket.migration, ARRIVED).await;
    let gone = a.until(ticket.migration, GONE).await;
    let SideState::Outbound(OutboundState::Gone(report)) = gone else { unreachable!() };
    (a, b, report)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_disks_are_the_same_goes_on() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b, report) = go(&world, &ticket, 1).await;
    assert_eq!(report.disk.map(|disk| disk.data), Some(ByteCount(64 << 10)));
    b.migrations.resume_inbound(ticket.migration, VM, Epoch(2), spec(), report.disk).await.unwrap();
    b.until(ticket.migration, RUNNING).await;
    a.migrations.release_outbound(ticket.migration, VM, Epoch(2)).await.unwrap();
    a.until(ticket.migration, RELEASED).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_copy_is_another_disk_is_its_old_hosts_with_the_disk_that_it_had() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b, report) = go(&world, &ticket, 2).await;
    b.migrations.resume_inbound(ticket.migration, VM, Epoch(2), spec(), report.disk).await.unwrap();
    let discarded = b.until(ticket.migration, DISCARDED).await;
    assert!(reason(&discarded).contains("not the one that left"), "{discarded:?}");
    assert_eq!((world.b.hypervisor.get(), world.b.hypervisor.runs_as_target()), (Standing::Absent, false));
    // The coordinator gives it back.
    world.a.owner.lent.lock().unwrap().clear();
    a.until(ticket.migration, BACK).await;
    assert!(world.a.files().disk().exists() && !world.b.files().disk().exists());
}
