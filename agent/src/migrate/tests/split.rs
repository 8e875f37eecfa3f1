//! Post-copy: only after a committed hand-over that both sides know, only where the machine allows it, and what becomes of
//! two halves.

use super::{
    libvirt::MEMORY,
    moves::{ARRIVED, BACK, DISCARDED, End, GONE, READY, RELEASED, RUNNING},
    world::{Agent, VM, World, by, spec, ticket},
};
use crate::migrate::{journal::under_way, ports::Standing};
use novacron_common::{
    record::{InboundState, MoveLimits, OutboundState, Rung, SideState, Strategy, Ticket},
    spec::{Mobility, VmSpec},
    units::Epoch,
    wire::DenialCode,
};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};

const POISED: End = |s| matches!(s, SideState::Outbound(OutboundState::Poised(_)));
const SPLIT: End = |s| matches!(s, SideState::Outbound(OutboundState::Split(_)));
const SPLIT_THERE: End = |s| matches!(s, SideState::Inbound(InboundState::Split));
const STRANDED: End = |s| matches!(s, SideState::Outbound(OutboundState::Stranded { .. }));
const STRANDED_THERE: End = |s| matches!(s, SideState::Inbound(InboundState::Stranded { .. }));
const LOST: End = |s| matches!(s, SideState::Outbound(OutboundState::Lost { .. }));
const LOST_THERE: End = |s| matches!(s, SideState::Inbound(InboundState::Lost { .. }));

fn allows() -> VmSpec {
    VmSpec { mobility: Mobility::PostCopy, ..spec() }
}

async fn begin(world: &World, ticket: &Ticket, limits: MoveLimits) -> (Agent, Agent) {
    let (a, b) = (world.a.agent(), world.b.agent());
    b.migrations.prepare_inbound(ticket.clone(), allows()).await.unwrap();
    b.until(ticket.migration, READY).await;
    a.migrations.start_outbound(ticket.clone(), allows(), world.b.address(), limits).await.unwrap();
    (a, b)
}

/// A busy guest whose copy waits for the hand-over.
async fn poised(world: &World, ticket: &Ticket) -> (Agent, Agent) {
    world.faults.busy.store(true, SeqCst);
    world.faults.pause_after.store(MEMORY / 2, SeqCst);
    let (a, b) = begin(world, ticket, by(Strategy::Postcopy)).await;
    let poised = a.until(ticket.migration, POISED).await;
    let SideState::Outbound(OutboundState::Poised(progress)) = poised else { panic!("{poised:?}") };
    assert_eq!(progress.climb.rung, Rung::Postcopy);
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
    (a, b)
}

/// One that went over, and whose memory stops following.
async fn split(world: &World, ticket: &Ticket) -> (Agent, Agent) {
    world.faults.hang_after.store(MEMORY / 2 + (4 << 20), SeqCst);
    let (a, b) = poised(world, ticket).await;
    b.migrations.open_inbound(ticket.migration, Epoch(2)).await.unwrap();
    a.migrations.split_outbound(ticket.migration, Epoch(2)).await.unwrap();
    a.until(ticket.migration, SPLIT).await;
    b.until(ticket.migration, SPLIT_THERE).await;
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_guest_goes_over_once_the_hand_over_is_committed_and_its_memory_follows() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = poised(&world, &ticket).await;
    let id = ticket.migration;
    let stale = b.migrations.open_inbound(id, Epoch(1)).await.unwrap_err();
    assert_eq!(stale.code, DenialCode::StaleEpoch);
    let stale = a.migrations.split_outbound(id, Epoch(1)).await.unwrap_err();
    assert_eq!(stale.code, DenialCode::StaleEpoch);
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.runs_as_target()), (Standing::Running, false));

    b.migrations.open_inbound(id, Epoch(2)).await.unwrap();
    b.migrations.open_inbound(id, Epoch(2)).await.unwrap();
    a.migrations.split_outbound(id, Epoch(2)).await.unwrap();
    b.until(id, RUNNING).await;
    let gone = a.until(id, GONE).await;
    let SideState::Outbound(OutboundState::Gone(report)) = gone else { panic!("{gone:?}") };
    assert_eq!((report.climb.rung, report.climb.limit), (Rung::Postcopy, None));
    a.migrations.release_outbound(id, VM, Epoch(2)).await.unwrap();
    a.until(id, RELEASED).await;
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Absent, Standing::Running));
    assert_eq!(world.b.owner.here.lock().unwrap().get(&VM), Some(&Epoch(2)));
    assert_eq!(world.b.hypervisor.resumed.load(SeqCst), 0, "its own libvirt let it run");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_converges_after_all_is_held_as_any_other() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = begin(&world, &ticket, MoveLimits::default()).await;
    a.until(ticket.migration, GONE).await;
    b.until(ticket.migration, ARRIVED).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Paused { persistent: true });
    b.migrations.resume_inbound(ticket.migration, VM, Epoch(2), allows(), None).await.unwrap();
    b.until(ticket.migration, RUNNING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_not_told_lets_nothing_run_and_the_machine_stays_with_its_host() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = poised(&world, &ticket).await;
    a.migrations.split_outbound(ticket.migration, Epoch(2)).await.unwrap();
    b.until(ticket.migration, DISCARDED).await;
    assert!(!world.b.hypervisor.runs_as_target());
    // Its processor's state left QEMU here: it cannot run on, and the machine is stopped.
    a.until(ticket.migration, STRANDED).await;
    a.migrations.cancel_outbound(ticket.migration, "the target has discarded it".into()).await.unwrap();
    a.until(ticket.migration, BACK).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Stopped);
    assert_eq!(world.a.owner.here.lock().unwrap().get(&VM), Some(&Epoch(1)));
    drop((a, b));
    check_returning(&world, &ticket).await;
}

/// By the ledger the machine is the target's: nobody starts it at its source before that is taken back, not behind a restart either.
async fn check_returning(world: &World, ticket: &Ticket) {
    let is_lent = || world.a.owner.lent.lock().unwrap().contains(&VM);
    assert!(is_lent());
    let a = world.a.agent();
    a.until(ticket.migration, BACK).await;
    assert!(is_lent());
    assert!(under_way(&world.a.journal).unwrap().contains(&ticket.migration));
    world.a.owner.lent.lock().unwrap().clear();
    while under_way(&world.a.journal).unwrap().contains(&ticket.migration) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// One whose hand-over is committed, and whose hypervisor does not let it go over.
async fn given_away_in_vain(world: &World, ticket: &Ticket) -> (Agent, Agent) {
    world.faults.hang_after.store(MEMORY / 2, SeqCst);
    world.faults.refuse_to_go_over.store(true, SeqCst);
    let (a, b) = poised(world, ticket).await;
    let refused = a.migrations.split_outbound(ticket.migration, Epoch(2)).await.unwrap_err();
    assert_eq!(refused.code, DenialCode::Failed);
    (a, b)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_ends_before_the_guest_goes_over_knows_that_the_ledger_gave_it_away() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = given_away_in_vain(&world, &ticket).await;
    drop((a, b));
    world.a.hypervisor.abort_now();
    check_returning(&world, &ticket).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_could_not_go_over_is_its_hosts_when_the_ledger_says_so() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = given_away_in_vain(&world, &ticket).await;
    a.migrations.cancel_outbound(ticket.migration, "the target has discarded it".into()).await.unwrap();
    a.until(ticket.migration, BACK).await;
    drop((a, b));
    check_returning(&world, &ticket).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_before_it_goes_over_brings_it_back() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.hang_after.store(MEMORY / 2, SeqCst);
    let (a, b) = poised(&world, &ticket).await;
    b.migrations.open_inbound(ticket.migration, Epoch(2)).await.unwrap();
    a.migrations.cancel_outbound(ticket.migration, "changed my mind".into()).await.unwrap();
    a.until(ticket.migration, BACK).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
    b.migrations.discard_inbound(ticket.migration, VM, "changed my mind".into()).await.ok();
    b.until(ticket.migration, DISCARDED).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_that_lose_each_other_are_kept_through_restarts_and_never_run_twice() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = split(&world, &ticket).await;
    let refused = b.migrations.discard_inbound(ticket.migration, VM, "no".into()).await.unwrap_err();
    assert_eq!(refused.code, DenialCode::Conflict);
    world.a.hypervisor.abort_now();
    a.until(ticket.migration, STRANDED).await;
    b.until(ticket.migration, STRANDED_THERE).await;
    drop((a, b));
    let (a, b) = (world.a.agent(), world.b.agent());
    a.until(ticket.migration, STRANDED).await;
    b.until(ticket.migration, STRANDED_THERE).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Split { broken: true });
    assert_eq!((world.a.hypervisor.resumed.load(SeqCst), world.b.hypervisor.resumed.load(SeqCst)), (0, 0));
    world.check_one_runner();
    // Memory has followed after all.
    world.a.hypervisor.set(Standing::Absent);
    world.b.hypervisor.set(Standing::Running);
    a.until(ticket.migration, GONE).await;
    b.until(ticket.migration, RUNNING).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn halves_that_lost_each_other_meet_again_even_with_agents_that_were_started_anew() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = split(&world, &ticket).await;
    world.a.hypervisor.abort_now();
    a.until(ticket.migration, STRANDED).await;
    b.until(ticket.migration, STRANDED_THERE).await;
    drop((a, b));
    let (a, b) = (world.a.agent(), world.b.agent());
    world.faults.reunites.store(true, SeqCst);
    let gone = a.until(ticket.migration, GONE).await;
    let SideState::Outbound(OutboundState::Gone(report)) = gone else { panic!("{gone:?}") };
    assert_eq!(report.cuts, 1);
    b.until(ticket.migration, RUNNING).await;
    a.migrations.release_outbound(ticket.migration, VM, Epoch(2)).await.unwrap();
    a.until(ticket.migration, RELEASED).await;
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Absent, Standing::Running));
    assert_eq!((world.a.hypervisor.resumed.load(SeqCst), world.b.hypervisor.resumed.load(SeqCst)), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_its_hypervisor_lets_run_on_both_hosts_is_ended_on_the_one_that_it_left() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = split(&world, &ticket).await;
    world.a.hypervisor.abort_now();
    a.until(ticket.migration, STRANDED).await;
    b.until(ticket.migration, STRANDED_THERE).await;
    world.a.hypervisor.set(Standing::Running);
    a.until(ticket.migration, LOST).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_whose_hypervisor_will_never_send_on_is_ended() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = split(&world, &ticket).await;
    world.faults.copy_failed.store(true, SeqCst);
    world.a.hypervisor.abort_now();
    b.until(ticket.migration, STRANDED_THERE).await;
    world.faults.reunites.store(true, SeqCst);
    a.until(ticket.migration, LOST).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_that_is_left_alone_is_given_up_and_its_machine_kept_stopped_at_the_target() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = split(&world, &ticket).await;
    world.a.hypervisor.abort_now();
    b.until(ticket.migration, STRANDED_THERE).await;
    a.until(ticket.migration, STRANDED).await;
    // The source's QEMU is killed: libvirt has the machine as stopped.
    world.a.hypervisor.set(Standing::Stopped);
    a.until(ticket.migration, LOST).await;
    b.migrations.abandon_inbound(ticket.migration, "the source lost it".into()).await.unwrap();
    b.until(ticket.migration, LOST_THERE).await;
    b.migrations.abandon_inbound(ticket.migration, "the source lost it".into()).await.unwrap();
    assert_eq!(world.b.hypervisor.get(), Standing::Stopped);
    assert_eq!(world.b.owner.here.lock().unwrap().get(&VM), Some(&Epoch(2)));
    a.migrations.release_outbound(ticket.migration, VM, Epoch(2)).await.unwrap();
    a.until(ticket.migration, RELEASED).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Absent);
}
