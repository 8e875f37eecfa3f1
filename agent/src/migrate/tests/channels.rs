//! Memory that crosses on several channels, each on a connection of its own.

use super::{
    moves::{ARRIVED, GONE, READY, begin, hand_over},
    wire::Wire,
    world::{A, B, GRACE, Net, World, spec, ticket},
};
use crate::migrate::{
    channels::Channels,
    link::{
        keeper::{Keeper, LinkCondition},
        links::Links,
        pace::Pacer,
    },
    ports::Standing,
};
use novacron_common::{
    record::{MoveLimits, OutboundState, SideState},
    spec::{Mobility, VmSpec},
    wire::{LaneId, LaneKind, LaneOpen, LaneVerdict},
};
use novacron_transport::{Endpoint, Stream};
use std::{
    num::NonZeroU8,
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    time::Duration,
};
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(40);

impl World {
    /// The source's agent sends memory on so many channels beside the main one.
    pub fn send_on(&mut self, channels: u8) {
        self.a.channels = Channels::Always(NonZeroU8::new(channels));
        self.faults.channels.store(channels, SeqCst);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_crosses_on_as_many_channels_as_the_agent_is_told() {
    for channels in [2, 4] {
        let mut world = World::new();
        world.send_on(channels);
        let ticket = ticket(true);
        // The played QEMU of the target waits for so many connections, and holds what comes against what was sent.
        let (a, b) = begin(&world, &ticket).await;
        b.until(ticket.migration, ARRIVED).await;
        a.until(ticket.migration, GONE).await;
        hand_over(&ticket, (&a, &b)).await;
        assert_eq!(world.b.hypervisor.get(), Standing::Running);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_allows_post_copy_keeps_to_the_main_channel() {
    let mut world = World::new();
    world.send_on(4);
    world.faults.channels.store(0, SeqCst);
    let (ticket, allows) = (ticket(true), VmSpec { mobility: Mobility::PostCopy, ..spec() });
    let (a, b) = (world.a.agent(), world.b.agent());
    b.migrations.prepare_inbound(ticket.clone(), allows.clone()).await.unwrap();
    b.until(ticket.migration, READY).await;
    let (to, limits) = (world.b.address(), MoveLimits::default());
    a.migrations.start_outbound(ticket.clone(), allows, to, limits).await.unwrap();
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, GONE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_links_are_cut_at_once_and_every_channel_goes_on() {
    let mut world = World::new();
    world.send_on(3);
    world.faults.pause_after.store(8 << 20, SeqCst);
    let (ticket, a, b) = (ticket(true), world.a.agent(), world.b.agent());
    let wire = Wire::to(world.b.address()).await;
    b.migrations.prepare_inbound(ticket.clone(), spec()).await.unwrap();
    b.until(ticket.migration, READY).await;
    a.migrations.start_outbound(ticket.clone(), spec(), wire.address, MoveLimits::default()).await.unwrap();
    a.until(ticket.migration, super::moves::MOVED).await;
    let seen = |lost, cuts| {
        move |state: &SideState| {
            let SideState::Outbound(OutboundState::Copying(progress)) = state else { return false };
            (progress.link_lost, progress.cuts) == (lost, cuts)
        }
    };
    wire.cut();
    a.until(ticket.migration, seen(true, 0)).await;
    wire.mend();
    a.until(ticket.migration, seen(false, 1)).await;
    world.faults.go_on.notify_one();
    b.until(ticket.migration, ARRIVED).await;
    let SideState::Outbound(OutboundState::Gone(report)) = a.until(ticket.migration, GONE).await else {
        panic!("it did not go")
    };
    assert_eq!(report.cuts, 1, "one cut of all links is one");
}

/// Lanes by the connection on which they came.
type Came = Arc<Mutex<Vec<Vec<LaneId>>>>;

/// Opens every lane that comes, and notes it.
async fn note(endpoint: Endpoint, came: Came) {
    let mut kept: Vec<Stream> = Vec::new();
    let (keep, mut streams) = tokio::sync::mpsc::channel(64);
    loop {
        tokio::select! {
            Some(stream) = streams.recv() => kept.push(stream),
            link = endpoint.accept() => {
                let Some(link) = link else { return };
                let (came, keep) = (came.clone(), keep.clone());
                let number = came.lock().unwrap().len();
                came.lock().unwrap().push(Vec::new());
                tokio::spawn(async move {
                    while let Ok((_, mut stream)) = link.accept().await {
                        let open: LaneOpen = stream.recv().await.unwrap();
                        came.lock().unwrap()[number].push(open.lane);
                        stream.send(&LaneVerdict::Open { received: 0 }).await.unwrap();
                        keep.send(stream).await.unwrap();
                    }
                });
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_channel_has_a_connection_and_the_first_has_all_the_rest() {
    let net = Net::new();
    let (near, far, came) = (net.endpoint(A), net.endpoint(B), Came::default());
    let address = far.local_addr().unwrap();
    tokio::spawn(note(far, came.clone()));
    let mut keepers = Vec::new();
    for _ in 0..3 {
        let dialled = Keeper::dial(near.clone(), address, ticket(true), GRACE, Pacer::default());
        keepers.push(dialled.await.unwrap());
    }
    let further = keepers.split_off(1);
    let links = Links::new(keepers.pop().unwrap(), further);
    let kinds = [LaneKind::Control, LaneKind::Memory, LaneKind::Memory, LaneKind::Memory, LaneKind::Memory];
    let mut open = Vec::new();
    for kind in kinds.into_iter().chain([LaneKind::Disk, LaneKind::Disk]) {
        open.push(timeout(PATIENCE, links.open(links.next(kind).unwrap())).await.unwrap().unwrap());
    }
    let lane = |kind, number| LaneId { kind, number };
    let first = [(LaneKind::Control, 0), (LaneKind::Memory, 0), (LaneKind::Disk, 0), (LaneKind::Disk, 1)];
    let expected = [
        first.map(|(kind, number)| lane(kind, number)).to_vec(),
        vec![lane(LaneKind::Memory, 1), lane(LaneKind::Memory, 3)],
        vec![lane(LaneKind::Memory, 2)],
    ];
    assert_eq!(*came.lock().unwrap(), expected);
    assert_eq!(links.condition(), LinkCondition::default());
    links.close();
    let reason = timeout(PATIENCE, links.over()).await.unwrap();
    assert!(reason.contains("over here"), "{reason}");
}
