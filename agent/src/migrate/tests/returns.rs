//! A machine that leaves and returns: what the first host kept need not cross again, and whatever is wrong with it, the
//! machine arrives as it left.

use super::{
    codec::record,
    moves::{ARRIVED, BACK, DISCARDED, GONE, MOVED, READY, RELEASED, RUNNING},
    world::{A, Agent, B, Host, VM, World, spec, ticket},
};
use crate::migrate::ports::Standing;
use novacron_common::{
    ids::MigrationId,
    record::{MemoryTraffic, MoveLimits, OutboundState, SideState, Ticket, TransferCounts},
    units::Epoch,
};
use std::{
    fs,
    os::unix::fs::FileExt as _,
    sync::{Arc, atomic::Ordering::SeqCst},
};

/// 1200 records are 5 MB: some of them cross before the rest is read.
const PAGES: u64 = 1200;

fn noise(seed: u64) -> [u8; 4096] {
    std::array::from_fn(|at| {
        let mixed = (seed * 8191 + at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed.to_be_bytes()[0]
    })
}

/// What QEMU writes for a guest whose pages are these, by their seeds.
fn memory(seeds: impl IntoIterator<Item = u64>) -> Vec<u8> {
    (0..).zip(seeds).flat_map(|(number, seed)| record(number, &noise(seed))).collect()
}

/// A world whose guest has this memory.
fn world(memory: Vec<u8>) -> World {
    let world = World::new();
    world.set(memory);
    world
}

impl World {
    fn set(&self, memory: Vec<u8>) {
        *self.faults.memory.lock().unwrap() = Some(Arc::new(memory));
    }
}

/// The way back.
fn back() -> Ticket {
    Ticket { migration: MigrationId::generate(), source: B, target: A, epoch: Epoch(2), ..ticket(true) }
}

async fn start(ticket: &Ticket, (from, to): (&Agent, &Agent), target: &Host) {
    to.migrations.prepare_inbound(ticket.clone(), spec()).await.unwrap();
    to.until(ticket.migration, READY).await;
    let (address, limits) = (target.address(), MoveLimits::default());
    from.migrations.start_outbound(ticket.clone(), spec(), address, limits).await.unwrap();
}

/// Moves, to the hand-over and what follows; what crossed.
async fn go(ticket: &Ticket, (from, to): (&Agent, &Agent), target: &Host) -> TransferCounts {
    start(ticket, (from, to), target).await;
    let (id, epoch) = (ticket.migration, ticket.epoch.next());
    to.until(id, ARRIVED).await;
    let SideState::Outbound(OutboundState::Gone(report)) = from.until(id, GONE).await else { unreachable!() };
    to.migrations.resume_inbound(id, VM, epoch, spec(), None).await.unwrap();
    from.migrations.release_outbound(id, VM, epoch).await.unwrap();
    to.until(id, RUNNING).await;
    from.until(id, RELEASED).await;
    report.counts
}

/// Pages that a host has of the machine that left it. Some may have been left out, if its disk was slow.
fn kept(host: &Host) -> u64 {
    host.checkpoints().stock(VM, None, None).map_or(0, |stock| stock.count().into())
}

/// Some pages crossed as references to what had been kept, the others in full. How many is not for a test to say: on a
/// link that is faster than the codec most pass as bytes.
fn check(sent: MemoryTraffic, kept: u64) {
    assert!((1..=kept).contains(&sent.held.pages), "{sent:?}, {kept} were kept");
    assert_eq!(sent.held.pages + sent.raw.pages, PAGES, "{sent:?}");
}

fn folder(host: &Host) -> Vec<String> {
    let entries = fs::read_dir(host.folder.join("checkpoints")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_left_behind_need_not_cross_again() {
    let world = world(memory(0..PAGES));
    let agents = (world.a.agent(), world.b.agent());
    let first = go(&ticket(true), (&agents.0, &agents.1), &world.b).await.memory;
    assert_eq!((first.held.pages, first.raw.pages), (0, PAGES), "{first:?}");
    let kept_there = kept(&world.a);
    assert!(kept_there > 0, "nothing was kept");

    // Both agents are replaced, and the guest has changed a little.
    drop(agents);
    let (a, b) = (world.a.agent(), world.b.agent());
    world.set(memory((0..PAGES).map(|page| if page % 40 == 0 { page + 50_000 } else { page })));
    let counts = go(&back(), (&b, &a), &world.a).await;
    let second = counts.memory;
    check(second, kept_there);
    assert!(second.offer_bytes > kept_there * 16, "what was offered is counted: {second:?}");
    // And the eight bytes by which the played QEMU answers.
    assert_eq!(counts.memory_bytes, second.wire_bytes + second.offer_bytes + 8);
    // Where it runs nothing is kept; where it left, a new one is.
    assert_eq!((kept(&world.a), kept(&world.b) > 0), (0, true));
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_has_read_of_its_templates_image_need_not_cross() {
    let world = world(memory(0..PAGES));
    let shared = 100..PAGES - 100;
    let image: Vec<u8> = shared.clone().rev().flat_map(noise).collect();
    fs::write(world.b.files().image(), image).unwrap();
    let (a, b) = (world.a.agent(), world.b.agent());
    let there = go(&ticket(true), (&a, &b), &world.b).await.memory;
    check(there, shared.end - shared.start);
    assert_eq!(world.b.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_ends_back_keeps_nothing() {
    let world = world(memory(0..PAGES));
    world.faults.hang_after.store(1 << 20, SeqCst);
    let ((a, b), ticket) = ((world.a.agent(), world.b.agent()), ticket(true));
    start(&ticket, (&a, &b), &world.b).await;
    a.until(ticket.migration, MOVED).await;
    a.migrations.cancel_outbound(ticket.migration, "changed my mind".into()).await.unwrap();
    a.until(ticket.migration, BACK).await;
    assert_eq!(folder(&world.a), [""; 0]);
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_return_that_is_called_off_may_be_tried_again_with_what_is_held() {
    let world = world(memory(0..PAGES));
    let (a, b) = (world.a.agent(), world.b.agent());
    go(&ticket(true), (&a, &b), &world.b).await;
    let held = kept(&world.a);
    world.faults.hang_after.store(1 << 20, SeqCst);
    let called_off = back();
    start(&called_off, (&b, &a), &world.a).await;
    b.until(called_off.migration, MOVED).await;
    b.migrations.cancel_outbound(called_off.migration, "not now".into()).await.unwrap();
    b.until(called_off.migration, BACK).await;
    a.migrations.discard_inbound(called_off.migration, VM, "it was called off".into()).await.ok();
    a.until(called_off.migration, DISCARDED).await;
    assert_eq!((kept(&world.a), folder(&world.b)), (held, vec![]));
    world.faults.hang_after.store(0, SeqCst);
    let second = go(&back(), (&b, &a), &world.a).await.memory;
    check(second, held);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_or_truncated_checkpoint_costs_bytes_and_never_the_move() {
    for truncated in [false, true] {
        let world = world(memory(0..PAGES));
        let (a, b) = (world.a.agent(), world.b.agent());
        go(&ticket(true), (&a, &b), &world.b).await;
        let held = kept(&world.a);
        let path = world.a.folder.join("checkpoints").join(format!("{VM}.pages"));
        let pages = fs::OpenOptions::new().write(true).open(path).unwrap();
        if truncated {
            pages.set_len(1000).unwrap();
        } else {
            (0..5).for_each(|record| pages.write_all_at(&[0xee; 16], record * 4120 + 500).unwrap());
        }
        let second = go(&back(), (&b, &a), &world.a).await.memory;
        if truncated {
            assert_eq!((second.held.pages, second.raw.pages), (0, PAGES), "{second:?}");
        } else {
            check(second, held - 5);
        }
        assert_eq!(world.a.hypervisor.get(), Standing::Running);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_are_lost_after_they_were_offered_end_it_back_and_the_next_try_does_without() {
    let world = world(memory(0..PAGES));
    let (a, b) = (world.a.agent(), world.b.agent());
    go(&ticket(true), (&a, &b), &world.b).await;
    // The source's QEMU waits behind its first mebibyte, and what was offered is gone from the disk when it goes on.
    world.faults.pause_after.store(1 << 20, SeqCst);
    let lost = back();
    let held = kept(&world.a);
    start(&lost, (&b, &a), &world.a).await;
    let all_told = |state: &SideState| {
        let SideState::Outbound(OutboundState::Copying(progress)) = state else { return false };
        progress.counts.memory.offer_bytes > held * 16
    };
    b.until(lost.migration, all_told).await;
    let path = world.a.folder.join("checkpoints").join(format!("{VM}.pages"));
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(0).unwrap();
    world.faults.go_on.notify_one();
    b.until(lost.migration, BACK).await;
    a.migrations.discard_inbound(lost.migration, VM, "it failed".into()).await.ok();
    a.until(lost.migration, DISCARDED).await;
    assert_eq!((world.b.hypervisor.get(), folder(&world.a)), (Standing::Running, vec![]));
    world.check_one_runner();
    world.faults.pause_after.store(0, SeqCst);
    let second = go(&back(), (&b, &a), &world.a).await.memory;
    assert_eq!((second.held.pages, second.raw.pages), (0, PAGES), "{second:?}");
}
