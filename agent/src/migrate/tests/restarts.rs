//! Planned restarts: an agent that is replaced in the middle of the copy leaves it to its successor, which goes on from the
//! last byte, if it can read what was left.

use super::{
    libvirt::MEMORY,
    moves::{ARRIVED, BACK, DISCARDED, GONE, MOVED, READY, hand_over},
    wire::Wire,
    world::{Agent, World, spec, ticket},
};
use crate::{handover, migrate::ports::Standing};
use novacron_common::{
    record::{InboundState, MoveLimits, OutboundState, SideState, Ticket},
    spec::{Mobility, VmSpec},
    units::Epoch,
};
use std::{
    num::NonZeroU8,
    sync::{Arc, atomic::Ordering::SeqCst},
};

#[derive(Debug, Clone, Copy)]
enum Replaced {
    Source,
    Target,
}

/// What no codec makes less of, and none of it twice.
fn noise() -> Arc<Vec<u8>> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let words = (0..MEMORY / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    Arc::new(words.collect())
}

/// Memory crosses, and the link is there.
fn moves_on(state: &SideState) -> bool {
    let SideState::Outbound(OutboundState::Copying(progress)) = state else { return false };
    !progress.link_lost && MOVED(state)
}

/// Moves the machine while agents are replaced; the played QEMU compares what arrives with what was sent.
async fn moved_while(replaced: &[Replaced]) {
    moved_in(World::new(), replaced).await;
}

async fn moved_in(mut world: World, replaced: &[Replaced]) {
    let ticket = ticket(true);
    let id = ticket.migration;
    let (mut a, mut b, wire) = half_moved(&world, &ticket, spec()).await;
    for who in replaced {
        a.until(id, moves_on).await;
        b.until(id, |state| matches!(state, SideState::Inbound(InboundState::Receiving))).await;
        match who {
            Replaced::Source => a = world.a.restart(&world.net, a).await,
            Replaced::Target => {
                b = world.b.restart(&world.net, b).await;
                wire.lead_to(world.b.address()).await;
            }
        }
    }
    world.faults.go_on.notify_one();
    b.until(id, ARRIVED).await;
    let SideState::Outbound(OutboundState::Gone(report)) = a.until(id, GONE).await else { panic!("gone") };
    assert!(report.counts.memory_bytes >= MEMORY, "what the agents before sent counts: {report:?}");
    assert_eq!(report.channels.map_or(0, NonZeroU8::get), world.faults.channels.load(SeqCst));
    assert_eq!(world.a.hypervisor.get(), Standing::Absent);
    assert_eq!(world.b.hypervisor.get(), Standing::Paused { persistent: true });
    hand_over(&ticket, (&a, &b)).await;
    world.check_one_runner();
    assert_eq!(world.b.hypervisor.resumed.load(SeqCst), 1);
    for host in [&world.a, &world.b] {
        let left = std::fs::read_dir(host.folder.join("m")).unwrap().count();
        assert_eq!(left, 0, "sockets are left in {}", host.folder.display());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_replaced_in_the_copy_goes_on_with_it() {
    moved_while(&[Replaced::Source]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_replaced_in_the_copy_goes_on_with_it() {
    moved_while(&[Replaced::Target]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_are_replaced_one_after_the_other_and_again() {
    moved_while(&[Replaced::Source, Replaced::Target, Replaced::Source, Replaced::Target]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_on_several_channels_outlives_both_agents() {
    let mut world = World::new();
    world.send_on(3);
    moved_in(world, &[Replaced::Source, Replaced::Target]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_replaced_once_the_guest_may_go_over_has_its_hypervisors_ear_again() {
    let mut world = World::new();
    let ticket = ticket(true);
    let allows = VmSpec { mobility: Mobility::PostCopy, ..spec() };
    world.faults.reunites.store(true, SeqCst);
    let (a, b, wire) = half_moved(&world, &ticket, allows).await;
    b.migrations.open_inbound(ticket.migration, Epoch(2)).await.unwrap();
    let b = world.b.restart(&world.net, b).await;
    wire.lead_to(world.b.address()).await;
    world.faults.go_on.notify_one();
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, GONE).await;
    assert_eq!(world.b.hypervisor.ears.load(SeqCst), 2, "one for each agent that was told of the hand-over");
}

/// Until half of the memory has crossed; the agents, and the wire between them.
async fn half_moved(world: &World, ticket: &Ticket, spec: VmSpec) -> (Agent, Agent, Wire) {
    *world.faults.memory.lock().unwrap() = Some(noise());
    world.faults.pause_after.store(MEMORY / 2, SeqCst);
    let (a, b) = (world.a.agent(), world.b.agent());
    // A played host's next agent has another port.
    let wire = Wire::to(world.b.address()).await;
    b.migrations.prepare_inbound(ticket.clone(), spec.clone()).await.unwrap();
    b.until(ticket.migration, READY).await;
    a.migrations.start_outbound(ticket.clone(), spec, wire.address, MoveLimits::default()).await.unwrap();
    a.until(ticket.migration, moves_on).await;
    (a, b, wire)
}

/// The copy is given up on both hosts.
async fn ends_fully_back(world: &World, ticket: &Ticket, (a, b): (&Agent, &Agent)) {
    world.faults.go_on.notify_one(); // the played QEMU writes again, to nobody
    a.until(ticket.migration, BACK).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
    b.until(ticket.migration, DISCARDED).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Absent);
    world.check_one_runner();
}

/// An image as another version of the agent would have left it.
fn of_another_version(mut image: Vec<u8>) -> Vec<u8> {
    image[4] += 1;
    image
}

/// No part of an image, and none that was changed, is taken for a whole one, or harms who reads it.
fn damaged(image: Vec<u8>) -> Vec<u8> {
    let readable = |image: &[u8]| handover::inheritances(image, Vec::new()).is_ok();
    assert!(readable(&image));
    let spread = || (0..image.len()).step_by(image.len() / 50);
    for length in spread() {
        assert!(!readable(&image[..length]), "the first {length} bytes");
    }
    for at in (0..image.len().min(400)).chain(spread()) {
        let mut changed = image.clone();
        changed[at] ^= 0x81;
        let _readable_or_not = readable(&changed);
    }
    image[..image.len() / 2].to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_cannot_read_what_was_left_ends_as_if_it_had_been_killed() {
    let mut world = World::new();
    let ticket = ticket(true);
    let (a, b, _wire) = half_moved(&world, &ticket, spec()).await;
    let a = world.a.restart_with(&world.net, a, damaged).await;
    ends_fully_back(&world, &ticket, (&a, &b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_of_another_version_ends_as_if_it_had_been_killed() {
    let mut world = World::new();
    let ticket = ticket(true);
    let (a, b, wire) = half_moved(&world, &ticket, spec()).await;
    let b = world.b.restart_with(&world.net, b, of_another_version).await;
    wire.lead_to(world.b.address()).await;
    ends_fully_back(&world, &ticket, (&a, &b)).await;
}
