//! Whole migrations, and each way in which they fail.

use super::{
    libvirt::MEMORY,
    process::GuestProcess,
    wire::Wire,
    world::{A, Agent, MemoryJournal, Owner, PATIENCE, VM, World, spec, ticket},
};
use crate::migrate::{
    journal::{InboundMark, OutboundMark, Record},
    ports::{Journal as _, Standing},
};
use novacron_common::{
    record::{InboundState, MoveLimits, OutboundState, SideState, Ticket},
    units::{Epoch, UnixMillis},
    wire::DenialCode,
};
use std::{sync::atomic::Ordering::SeqCst, time::Duration};

pub type End = fn(&SideState) -> bool;

pub const READY: End = |s| matches!(s, SideState::Inbound(InboundState::Ready));
pub const ARRIVED: End = |s| matches!(s, SideState::Inbound(InboundState::Arrived));
pub const RUNNING: End = |s| matches!(s, SideState::Inbound(InboundState::Running));
pub const DISCARDED: End = |s| matches!(s, SideState::Inbound(InboundState::Discarded { .. }));
pub const COPYING: End = |s| matches!(s, SideState::Outbound(OutboundState::Copying(_)));
pub const MOVED: End = |s| {
    let SideState::Outbound(OutboundState::Copying(progress)) = s else { return false };
    progress.counts.memory.wire_bytes > 0
};
pub const GONE: End = |s| matches!(s, SideState::Outbound(OutboundState::Gone(_)));
pub const BACK: End = |s| matches!(s, SideState::Outbound(OutboundState::Back { .. }));
pub const RELEASED: End = |s| matches!(s, SideState::Outbound(OutboundState::Released));

/// Both agents, with a departure under way.
pub async fn begin(world: &World, ticket: &Ticket) -> (Agent, Agent) {
    let (a, b) = (world.a.agent(), world.b.agent());
    start(world, ticket, (&a, &b)).await;
    (a, b)
}

async fn start(world: &World, ticket: &Ticket, (a, b): (&Agent, &Agent)) {
    b.migrations.prepare_inbound(ticket.clone(), spec()).await.unwrap();
    b.until(ticket.migration, READY).await;
    a.migrations
        .start_outbound(ticket.clone(), spec(), world.b.address(), MoveLimits::default())
        .await
        .unwrap();
}

/// What a coordinator does once both sides say that it is over.
pub async fn hand_over(ticket: &Ticket, (a, b): (&Agent, &Agent)) {
    let (id, epoch) = (ticket.migration, ticket.epoch.next());
    b.migrations.resume_inbound(id, VM, epoch, spec(), None).await.unwrap();
    a.migrations.release_outbound(id, VM, epoch).await.unwrap();
    b.until(id, RUNNING).await;
    a.until(id, RELEASED).await;
}

pub fn reason(state: &SideState) -> String {
    match state {
        SideState::Outbound(OutboundState::Back { reason, .. })
        | SideState::Inbound(InboundState::Discarded { reason }) => reason.clone(),
        other => panic!("{other:?} has no reason"),
    }
}

fn lives(owner: &Owner) -> Option<Epoch> {
    owner.here.lock().unwrap().get(&VM).copied()
}

/// Fully back: it runs on the source, whose owner has it again, and nothing is left on the target.
pub async fn check_back(world: &World, ticket: &Ticket, (a, b): (&Agent, &Agent)) {
    a.until(ticket.migration, BACK).await;
    b.migrations.discard_inbound(ticket.migration, VM, "it failed".into()).await.ok();
    b.until(ticket.migration, DISCARDED).await;
    world.check_one_runner();
    assert_eq!((world.b.hypervisor.get(), lives(&world.b.owner)), (Standing::Absent, None));
    assert!(!world.b.files().disk().exists() && world.b.hypervisor.resumed.load(SeqCst) == 0);
    assert_eq!(lives(&world.a.owner), Some(Epoch(1)));
    assert!(world.a.owner.lent.lock().unwrap().is_empty());
    let left = |host: &super::world::Host| std::fs::read_dir(host.folder.join("m")).unwrap().count();
    assert_eq!((left(&world.a), left(&world.b)), (0, 0), "sockets are left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_moves_and_is_held_until_the_hand_over() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = begin(&world, &ticket).await;
    b.until(ticket.migration, ARRIVED).await;
    let gone = a.until(ticket.migration, GONE).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Paused { persistent: true });
    let SideState::Outbound(OutboundState::Gone(report)) = gone else { unreachable!() };
    assert!(
        (8..MEMORY).contains(&report.counts.memory_bytes),
        "{report:?}: what crosses the wire is counted"
    );

    let stale = b.migrations.resume_inbound(ticket.migration, VM, Epoch(1), spec(), None).await.unwrap_err();
    assert_eq!(stale.code, DenialCode::StaleEpoch);
    let stale = a.migrations.release_outbound(ticket.migration, VM, Epoch(1)).await.unwrap_err();
    assert_eq!(stale.code, DenialCode::StaleEpoch);
    assert_eq!(world.b.hypervisor.get(), Standing::Paused { persistent: true });

    hand_over(&ticket, (&a, &b)).await;
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Absent, Standing::Running));
    assert_eq!((lives(&world.a.owner), lives(&world.b.owner)), (None, Some(Epoch(2))));
    assert!(!world.a.files().disk().exists());
    let late = b.migrations.discard_inbound(ticket.migration, VM, "late".into()).await.unwrap_err();
    assert_eq!(late.code, DenialCode::Conflict);
    assert_eq!(world.b.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_reply_to_finish_brings_it_back_and_the_copy_never_runs() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.lose_finish_reply.store(true, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, BACK).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Paused { persistent: true });
    check_back(&world, &ticket, (&a, &b)).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_device_is_refused_by_the_target_and_named() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.foreign_device.store(true, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    let discarded = b.until(ticket.migration, DISCARDED).await;
    assert!(reason(&discarded).contains("hostdev"), "{discarded:?}");
    check_back(&world, &ticket, (&a, &b)).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_that_libvirt_refuses_ends_back() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.refuse_prepare.store(true, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    b.until(ticket.migration, DISCARDED).await;
    check_back(&world, &ticket, (&a, &b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_vanishes_is_noticed() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.hang_after.store(4 << 20, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    // What has moved shows that the target has accepted the link: before that it has none to cut.
    a.until(ticket.migration, MOVED).await;
    world.b.endpoint.disconnect(&novacron_transport::Role::Agent { host: A });
    let back = a.until(ticket.migration, BACK).await;
    assert!(reason(&back).contains("link"), "{back:?}");
    check_back(&world, &ticket, (&a, &b)).await;
}

/// A departure through a wire that can be cut, half of whose memory has moved.
async fn halfway(world: &World, ticket: &Ticket) -> (Wire, Agent, Agent) {
    world.faults.pause_after.store(MEMORY / 2, SeqCst);
    let wire = Wire::to(world.b.address()).await;
    let (a, b) = (world.a.agent(), world.b.agent());
    b.migrations.prepare_inbound(ticket.clone(), spec()).await.unwrap();
    b.until(ticket.migration, READY).await;
    a.migrations.start_outbound(ticket.clone(), spec(), wire.address, MoveLimits::default()).await.unwrap();
    a.until(ticket.migration, MOVED).await;
    (wire, a, b)
}

fn link_is(lost: bool, cuts: u32) -> impl Fn(&SideState) -> bool {
    move |state| {
        let SideState::Outbound(OutboundState::Copying(progress)) = state else { return false };
        (progress.link_lost, progress.cuts) == (lost, cuts)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_in_the_middle_is_told_and_the_machine_moves_on() {
    let (world, ticket) = (World::new(), ticket(true));
    let (wire, a, b) = halfway(&world, &ticket).await;
    wire.cut();
    a.until(ticket.migration, link_is(true, 0)).await;
    wire.mend();
    a.until(ticket.migration, link_is(false, 1)).await;
    world.faults.go_on.notify_one();
    b.until(ticket.migration, ARRIVED).await;
    let gone = a.until(ticket.migration, GONE).await;
    let SideState::Outbound(OutboundState::Gone(report)) = gone else { unreachable!() };
    assert_eq!(report.cuts, 1);
    assert!(
        (8..MEMORY).contains(&report.counts.memory_bytes),
        "{report:?}: what crosses the wire is counted"
    );
    hand_over(&ticket, (&a, &b)).await;
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Absent, Standing::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_for_good_ends_fully_back_after_the_grace() {
    let (world, ticket) = (World::new(), ticket(true));
    let (wire, a, b) = halfway(&world, &ticket).await;
    wire.cut();
    world.faults.go_on.notify_one();
    let back = a.until(ticket.migration, BACK).await;
    assert!(reason(&back).contains("did not come back within 3 s"), "{back:?}");
    // By itself: nobody has to tell the target.
    let discarded = b.until(ticket.migration, DISCARDED).await;
    assert!(reason(&discarded).contains("did not come back"), "{discarded:?}");
    check_back(&world, &ticket, (&a, &b)).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_cancelled_while_the_link_is_away_ends_back() {
    let (world, ticket) = (World::new(), ticket(true));
    let (wire, a, b) = halfway(&world, &ticket).await;
    wire.cut();
    a.until(ticket.migration, link_is(true, 0)).await;
    a.migrations.cancel_outbound(ticket.migration, "enough".into()).await.unwrap();
    world.faults.go_on.notify_one();
    let back = a.until(ticket.migration, BACK).await;
    assert!(matches!(&back, SideState::Outbound(OutboundState::Back { cancelled: true, .. })));
    check_back(&world, &ticket, (&a, &b)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ends_while_it_is_copied_is_back_and_stopped() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.guest_powers_off.store(true, SeqCst);
    let (a, b) = begin(&world, &ticket).await;
    check_back(&world, &ticket, (&a, &b)).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Stopped);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_source_ends_the_copy_and_goes_back() {
    let (world, ticket) = (World::new(), ticket(true));
    let record = Record::Outbound { ticket: ticket.clone(), spec: spec(), mark: OutboundMark::Begun };
    world.a.journal.put(ticket.migration, &record).unwrap();
    world.a.owner.lent.lock().unwrap().insert(VM);
    // libvirt had paused it for the last round when the agent died.
    world.a.hypervisor.set(Standing::Paused { persistent: true });
    let a = world.a.agent();
    a.until(ticket.migration, BACK).await;
    assert_eq!(world.a.hypervisor.get(), Standing::Running);
    assert!(world.a.owner.lent.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_departure_ends_when_the_machine_is_given_back_to_its_host() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, _b) = begin(&world, &ticket).await;
    a.until(ticket.migration, GONE).await;
    // The target lost it before it ran there: the owner of machines here has it again, under a higher epoch.
    world.a.owner.lent.lock().unwrap().clear();
    a.until(ticket.migration, BACK).await;
    until_written(&world.a.journal, |record| matches!(record, Record::Ended(state) if BACK(state))).await;
    assert!(a.migrations.is_idle(), "the next move of this machine is not in its way");
}

/// Waits until the journal holds a record that `wanted` takes: what is observed may not be written down yet.
async fn until_written(journal: &MemoryJournal, wanted: impl Fn(&Record) -> bool) {
    let holds = || journal.list().unwrap().iter().any(|(_, record)| wanted(record));
    let written = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, written).await.expect("it was never written down");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_restart_after_the_copy_still_hand_over() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = begin(&world, &ticket).await;
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, GONE).await;
    let written = world.a.journal.list().unwrap();
    let gone = |record: &Record| matches!(record, Record::Outbound { mark: OutboundMark::Gone(_), .. });
    assert!(written.iter().any(|(_, record)| gone(record)), "it is written before it is said: {written:?}");
    until_written(&world.b.journal, |record| {
        matches!(record, Record::Inbound { mark: InboundMark::Arrived { .. }, .. })
    })
    .await;
    drop((a, b));
    let (a, b) = (world.a.agent(), world.b.agent());
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, GONE).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Paused { persistent: true });
    hand_over(&ticket, (&a, &b)).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Running);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_complete_elsewhere_before_a_restart_has_left_unless_it_runs() {
    for (standing, end) in [(Standing::Stopped, GONE), (Standing::Absent, GONE), (Standing::Running, BACK)] {
        let (world, ticket) = (World::new(), ticket(true));
        let record = Record::Outbound { ticket: ticket.clone(), spec: spec(), mark: OutboundMark::Complete };
        world.a.journal.put(ticket.migration, &record).unwrap();
        world.a.owner.lent.lock().unwrap().insert(VM);
        world.a.hypervisor.set(standing);
        world.a.agent().until(ticket.migration, end).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_target_discards_what_is_incomplete_and_keeps_what_is_complete() {
    for (standing, end) in [(Standing::Absent, DISCARDED), (Standing::Paused { persistent: true }, ARRIVED)] {
        let (world, ticket) = (World::new(), ticket(true));
        let record = Record::Inbound { ticket: ticket.clone(), spec: spec(), mark: InboundMark::Begun };
        world.b.journal.put(ticket.migration, &record).unwrap();
        world.b.hypervisor.set(standing);
        let b = world.b.agent();
        b.until(ticket.migration, end).await;
        assert_eq!(world.b.hypervisor.get(), standing);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_lost_its_journal_still_obeys_a_committed_hand_over() {
    let (world, ticket) = (World::new(), ticket(true));
    world.a.hypervisor.set(Standing::Absent);
    world.b.hypervisor.set(Standing::Paused { persistent: true });
    let b = world.b.agent();
    b.migrations.resume_inbound(ticket.migration, VM, Epoch(2), spec(), None).await.unwrap();
    b.until(ticket.migration, RUNNING).await;
    assert_eq!((world.b.hypervisor.get(), lives(&world.b.owner)), (Standing::Running, Some(Epoch(2))));
}

#[tokio::test(flavor = "multi_thread")]
async fn orders_of_a_migration_that_is_not_known_do_not_touch_what_another_brings() {
    let (world, good) = (World::new(), ticket(true));
    let (a, b) = begin(&world, &good).await;
    b.until(good.migration, ARRIVED).await;
    a.until(good.migration, GONE).await;
    let other = ticket(true).migration;
    let early = b.migrations.resume_inbound(other, VM, Epoch(2), spec(), None).await.unwrap_err();
    assert_eq!(early.code, DenialCode::Conflict);
    b.migrations.discard_inbound(other, VM, "of another time".into()).await.unwrap();
    assert_eq!(world.b.hypervisor.get(), Standing::Paused { persistent: true }, "its only copy is untouched");
    hand_over(&good, (&a, &b)).await;
    let ended = |record: &Record| matches!(record, Record::Ended(SideState::Inbound(InboundState::Running)));
    assert!(world.b.journal.list().unwrap().iter().any(|(_, record)| ended(record)), "written, then said");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_machine_moves_with_its_disk() {
    let (world, ticket) = (World::new(), ticket(false));
    let disk = super::lanes::qcow2(5 << 20);
    std::fs::create_dir_all(world.a.folder.join("vm")).unwrap();
    std::fs::write(world.a.files().disk(), &disk).unwrap();
    let (a, b) = begin(&world, &ticket).await;
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, GONE).await;
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Stopped, Standing::Stopped));
    assert!(std::fs::read(world.b.files().disk()).unwrap() == disk, "the disk changed on the way");
    hand_over(&ticket, (&a, &b)).await;
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Absent, Standing::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_ended_while_it_was_held_is_not_started_anew_but_left_to_its_policy() {
    let (world, ticket) = (World::new(), ticket(true));
    let (a, b) = begin(&world, &ticket).await;
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, GONE).await;
    world.b.hypervisor.set(Standing::Stopped);
    hand_over(&ticket, (&a, &b)).await;
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Absent, Standing::Stopped));
    assert_eq!(lives(&world.b.owner), Some(Epoch(2)));
    assert_eq!(world.b.owner.to_run.lock().unwrap().get(&VM), Some(&true), "it is one that is to run");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_is_denied_and_changes_nothing() {
    let world = World::new();
    let (a, b) = (world.a.agent(), world.b.agent());
    let good = ticket(true);
    let to_itself = Ticket { target: A, ..good.clone() };
    let expired = Ticket { expires_at: UnixMillis(1), ..good.clone() };
    for bad in [to_itself, expired] {
        let denial = a
            .migrations
            .start_outbound(bad.clone(), spec(), world.b.address(), MoveLimits::default())
            .await
            .unwrap_err();
        assert_eq!(denial.code, DenialCode::Invalid);
        assert_eq!(b.migrations.prepare_inbound(bad, spec()).await.unwrap_err().code, DenialCode::Invalid);
    }
    world.a.hypervisor.set(Standing::Paused { persistent: true });
    let denial = a
        .migrations
        .start_outbound(good.clone(), spec(), world.b.address(), MoveLimits::default())
        .await
        .unwrap_err();
    assert_eq!(denial.code, DenialCode::Conflict);
    assert!(world.a.owner.lent.lock().unwrap().is_empty());
    world.a.hypervisor.set(Standing::Running);
    world.b.hypervisor.set(Standing::Stopped);
    assert_eq!(
        b.migrations.prepare_inbound(good.clone(), spec()).await.unwrap_err().code,
        DenialCode::Conflict
    );
    world.b.hypervisor.set(Standing::Absent);
    b.migrations.prepare_inbound(good.clone(), spec()).await.unwrap();
    b.migrations.prepare_inbound(good.clone(), spec()).await.unwrap();
    let other = ticket(true);
    assert_eq!(b.migrations.prepare_inbound(other, spec()).await.unwrap_err().code, DenialCode::Conflict);
    assert!(b.migrations.resume_inbound(good.migration, VM, Epoch(2), spec(), None).await.is_err());
    b.migrations.discard_inbound(good.migration, VM, "enough".into()).await.unwrap();
    b.until(good.migration, DISCARDED).await;
    assert_eq!(world.b.hypervisor.get(), Standing::Absent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_complete_elsewhere_is_killed_and_gone_before_its_hypervisor_has_tidied_up() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.tidies_slowly.store(true, SeqCst);
    let mut process = GuestProcess::start(&world.a);
    let (a, b) = begin(&world, &ticket).await;
    b.until(ticket.migration, ARRIVED).await;
    a.until(ticket.migration, GONE).await;
    assert!(process.was_killed());
    assert_eq!(world.a.hypervisor.get(), Standing::Paused { persistent: true }, "it still tidies up");

    let (id, epoch) = (ticket.migration, ticket.epoch.next());
    b.migrations.resume_inbound(id, VM, epoch, spec(), None).await.unwrap();
    b.until(id, RUNNING).await;
    a.migrations.release_outbound(id, VM, epoch).await.unwrap();
    assert!(world.a.files().disk().exists(), "nothing is taken from the hypervisor meanwhile");
    world.faults.go_on.notify_one();
    a.until(id, RELEASED).await;
    assert!(!world.a.files().disk().exists());
    assert_eq!((world.a.hypervisor.get(), world.b.hypervisor.get()), (Standing::Absent, Standing::Running));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_whose_process_ends_before_it_is_complete_elsewhere_is_not_gone() {
    let (world, ticket) = (World::new(), ticket(true));
    world.faults.hang_after.store(MEMORY / 2, SeqCst);
    let mut process = GuestProcess::start(&world.a);
    let (a, b) = begin(&world, &ticket).await;
    a.until(ticket.migration, MOVED).await;
    process.end();
    tokio::time::sleep(Duration::from_millis(200)).await;
    let states = a.migrations.observe(ticket.migration).await;
    assert!(states.iter().any(COPYING), "{states:?}");
    a.migrations.cancel_outbound(ticket.migration, "enough".into()).await.unwrap();
    check_back(&world, &ticket, (&a, &b)).await;
}
