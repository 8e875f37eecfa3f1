//! Departures that are called off: before they begin, while they begin, and while their guest is copied.

use super::{
    moves::{BACK, COPYING, DISCARDED, GONE, begin, check_back, reason},
    world::{World, spec, ticket},
};
use crate::migrate::{
    journal::{Record, under_way},
    ports::{Journal as _, Standing},
};
use novacron_common::{
    record::{MoveLimits, OutboundState, SideState},
    wire::DenialCode,
};
use std::{collections::BTreeSet, sync::atomic::Ordering::SeqCst, time::Duration};

#[tokio::test(flavor = "multi_thread")]
async fn cancel_works_while_it_is_copied() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.hang_after.store(4 << 20, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    a.until(ticket.migration, COPYING).await;
    assert_eq!(under_way(&world.a.journal).unwrap(), BTreeSet::from([ticket.migration]));
    a.migrations.cancel_outbound(ticket.migration, "changed my mind".into()).await.unwrap();
    let back = a.until(ticket.migration, BACK).await;
    assert!(matches!(&back, SideState::Outbound(OutboundState::Back { cancelled: true, .. })));
    assert_eq!(reason(&back), "changed my mind");
    check_back(&world, &ticket, (&a, &b)).await;
    a.migrations.cancel_outbound(ticket.migration, "again".into()).await.unwrap();
    let again =
        a.migrations.start_outbound(ticket.clone(), spec(), world.b.address(), MoveLimits::default()).await;
    assert!(again.is_ok() && a.until(ticket.migration, BACK).await == back, "it must not begin again");
}

/// libvirt's answer to an abort that comes before its job: there is nothing to end.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_that_came_before_the_copy_had_begun_is_repeated() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.hang_after.store(1 << 20, SeqCst);
    world.faults.unheeded_aborts.store(1, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    a.until(ticket.migration, COPYING).await;
    a.migrations.cancel_outbound(ticket.migration, "now".into()).await.unwrap();
    b.until(ticket.migration, DISCARDED).await;
    assert!(!world.faults.cut_off.load(SeqCst), "the hypervisor ends it, and need not be cut off");
    check_back(&world, &ticket, (&a, &b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hypervisor_that_does_not_heed_an_abort_is_cut_off() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.hang_after.store(1 << 20, SeqCst);
    world.faults.unheeded_aborts.store(u64::MAX, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    a.until(ticket.migration, COPYING).await;
    a.migrations.cancel_outbound(ticket.migration, "now".into()).await.unwrap();
    b.until(ticket.migration, DISCARDED).await;
    assert!(world.faults.cut_off.load(SeqCst));
    check_back(&world, &ticket, (&a, &b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departure_that_was_called_off_before_it_began_never_begins() {
    let (world, ticket) = (World::new(), ticket(true));
    let a = world.a.agent();
    a.migrations.cancel_outbound(ticket.migration, "never mind".into()).await.unwrap();
    let denial = a
        .migrations
        .start_outbound(ticket.clone(), spec(), world.b.address(), MoveLimits::default())
        .await
        .unwrap_err();
    assert_eq!(denial.code, DenialCode::Conflict);
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_comes_while_it_begins_leaves_nothing_lent() {
    let world = World::new();
    let ticket = ticket(true);
    let a = world.a.agent();
    let start = a.migrations.start_outbound(ticket.clone(), spec(), world.b.address(), MoveLimits::default());
    let cancel = a.migrations.cancel_outbound(ticket.migration, "no".into());
    let (started, cancelled) = tokio::join!(start, cancel);
    cancelled.unwrap();
    a.until(ticket.migration, BACK).await;
    assert!(world.a.owner.lent.lock().unwrap().is_empty(), "started: {started:?}");
    let written = world.a.journal.list().unwrap();
    assert!(matches!(written[..], [(_, Record::Ended(_))]), "{written:?}");
}

/// Its process is not seen here: the hypervisor's word is waited for.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_complete_elsewhere_leaves_although_it_is_called_off() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.tidies_slowly.store(true, SeqCst);
    let (a, _b) = begin(&world, &ticket).await;
    world.faults.tidying.notified().await;
    a.migrations.cancel_outbound(ticket.migration, "too late".into()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    world.faults.go_on.notify_one();
    a.until(ticket.migration, GONE).await;
}
