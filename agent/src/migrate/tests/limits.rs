//! Limits of a live move, from the order to what the hypervisor is told. What follows from a look is `climb`'s to test.

use super::{
    libvirt::MEMORY,
    world::{Agent, PATIENCE, VM, World, by, spec, ticket},
};
use crate::migrate::ports::Standing;
use novacron_common::{
    record::{Climb, InboundState, Limit, MoveLimits, OutboundState, Rung, SideState, Strategy, Ticket},
    units::Epoch,
};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};

/// A departure within these limits.
async fn begin(world: &World, ticket: &Ticket, limits: MoveLimits) -> (Agent, Agent) {
    let (a, b) = (world.a.agent(), world.b.agent());
    b.migrations.prepare_inbound(ticket.clone(), spec()).await.unwrap();
    b.until(ticket.migration, |s| matches!(s, SideState::Inbound(InboundState::Ready))).await;
    a.migrations.start_outbound(ticket.clone(), spec(), world.b.address(), limits).await.unwrap();
    (a, b)
}

/// Why it came back, and how far up the ladder it had been.
async fn until_back(a: &Agent, ticket: &Ticket) -> (String, Climb) {
    let back =
        a.until(ticket.migration, |s| matches!(s, SideState::Outbound(OutboundState::Back { .. }))).await;
    let SideState::Outbound(OutboundState::Back { reason, climb, .. }) = back else { panic!("{back:?}") };
    (reason, climb)
}

fn held(state: &SideState) -> bool {
    matches!(state, SideState::Outbound(OutboundState::Copying(p)) if p.climb.rung == Rung::StopAndCopy)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_brings_it_back_with_the_reason_and_the_limit() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.busy.store(true, SeqCst);
    world.faults.hang_after.store(MEMORY / 2, SeqCst);
    let limits = MoveLimits { deadline_ms: Some(1000), ..by(Strategy::Precopy) };
    let (a, _b) = begin(&world, &ticket, limits).await;
    let (reason, climb) = until_back(&a, &ticket).await;
    assert!(reason.contains("the deadline of 1.0 s passed"), "{reason}");
    assert_eq!((climb.limit, climb.rung, climb.pause_ms), (Some(Limit::Deadline), Rung::Precopy, 300));
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
    assert!(world.a.owner.lent.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_guest_is_held_by_stop_and_copy_and_arrives() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.busy.store(true, SeqCst);
    // The rest goes only when the guest is held.
    world.faults.pause_after.store(MEMORY / 2, SeqCst);
    let (a, b) = begin(&world, &ticket, by(Strategy::StopAndCopy)).await;
    let gone = a.until(ticket.migration, |s| matches!(s, SideState::Outbound(OutboundState::Gone(_)))).await;
    let SideState::Outbound(OutboundState::Gone(report)) = gone else { panic!("{gone:?}") };
    assert_eq!((report.climb.rung, report.climb.limit), (Rung::StopAndCopy, None));
    b.until(ticket.migration, |s| matches!(s, SideState::Inbound(InboundState::Arrived))).await;
    b.migrations.resume_inbound(ticket.migration, VM, Epoch(2), spec(), None).await.unwrap();
    b.until(ticket.migration, |s| matches!(s, SideState::Inbound(InboundState::Running))).await;
    world.check_one_runner();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_guest_whose_copy_fails_runs_on_where_it_was() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.busy.store(true, SeqCst);
    world.faults.hang_after.store(MEMORY / 2, SeqCst);
    let (a, _b) = begin(&world, &ticket, by(Strategy::StopAndCopy)).await;
    a.until(ticket.migration, held).await;
    a.migrations.cancel_outbound(ticket.migration, "changed my mind".into()).await.unwrap();
    let (reason, climb) = until_back(&a, &ticket).await;
    assert_eq!((reason.as_str(), climb.rung), ("changed my mind", Rung::StopAndCopy));
    assert_eq!((world.a.hypervisor.get(), world.a.hypervisor.resumed.load(SeqCst)), (Standing::Running, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hypervisor_is_told_the_pause_at_the_start_and_when_it_grows() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.busy.store(true, SeqCst);
    world.faults.hang_after.store(MEMORY / 2, SeqCst);
    let limits = MoveLimits { max_downtime_ms: Some(1000), ..by(Strategy::StopAndCopy) };
    let (a, _b) = begin(&world, &ticket, limits).await;
    let told = || world.a.hypervisor.pauses.lock().unwrap().clone();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while told().len() < 3 {
        assert!(tokio::time::Instant::now() < deadline, "told {:?}", told());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(told(), [40, 300, 1000]);
    a.migrations.cancel_outbound(ticket.migration, "enough".into()).await.unwrap();
    let (_, climb) = until_back(&a, &ticket).await;
    assert_eq!((climb.rung, climb.pause_ms), (Rung::LongerPause, 1000));
    assert_eq!(world.a.hypervisor.get(), Standing::Running, "nobody held it");
}
