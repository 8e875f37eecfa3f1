//! Post-copy: only for machines that allow it; the hand-over comes first, and what follows when it breaks.

use super::*;
use novacron_core::command::VmUpdate;

fn allow(world: &mut World, vm: VmId) {
    world.ok(CommandBody::VmUpdate(VmUpdate { vm, name: None, restart: None, post_copy: Some(true) }));
}

/// A move whose source waits for the hand-over.
fn poised() -> Move {
    let mut m = Move::new(true);
    m.target_says(InboundState::Ready);
    m.source_says(OutboundState::Copying(Default::default()));
    m.source_says(OutboundState::Poised(Default::default()));
    assert_eq!(m.record().state, MigrationState::Copying, "the target is not ready for it");
    m.target_says(InboundState::Receiving);
    assert_eq!(saga::next(m.record()), [SagaAction::Handover]);
    m
}

/// One whose guest went over.
fn split() -> Move {
    let mut m = poised();
    m.source_says(OutboundState::Split(Default::default()));
    assert_eq!(m.record().outbound, OutboundState::Poised(Default::default()), "not without the hand-over");
    assert_eq!(m.hand_over(), Applied::HandedOver { epoch: Epoch(2) });
    use SagaAction::{ObserveSource, ObserveTarget, OpenInbound, SplitOutbound};
    assert_eq!(saga::next(m.record()), [OpenInbound, SplitOutbound, ObserveSource, ObserveTarget]);
    m.source_says(OutboundState::Split(Default::default()));
    m.target_says(InboundState::Split);
    m
}

fn place(m: &Move) -> (Option<HostId>, Epoch, Option<MigrationId>) {
    let vm = m.world.state.vm(m.vm).unwrap();
    (vm.placed_on, vm.epoch, vm.migration)
}

fn stranded() -> OutboundState {
    OutboundState::Stranded { reason: "the link".into() }
}

#[test]
fn a_machine_that_does_not_allow_it_is_not_moved_by_it_and_the_refusal_says_how_to() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, source) = world.running_vm("web");
    let target = hosts.into_iter().find(|h| *h != source).unwrap();
    let limits = MoveLimits { strategy: Strategy::Postcopy, ..MoveLimits::default() };
    let ask = within(world.ask(1, vm, target, true), limits);
    let refusal = world.refused(ask.clone());
    assert!(refusal.cause.contains("web does not allow post-copy"), "{refusal:?}");
    allow(&mut world, vm);
    world.ok(ask);
    assert!(views::vm(&world.state, world.state.vm(vm).unwrap()).post_copy);
}

#[test]
fn the_hand_over_comes_first_and_the_move_ends_when_all_of_the_guest_is_there() {
    let mut m = split();
    assert_eq!(place(&m), (Some(m.target), Epoch(2), Some(MIGRATION)));
    let view = views::migration(&m.world.state, m.record());
    assert!(view.status.message.contains("memory follows"), "{view:?}");
    let refusal = m.world.refused(CommandBody::MigrationCancel { id: MIGRATION });
    assert!(refusal.cause.contains("too late"));
    m.source_says(GONE());
    assert_eq!(saga::next(m.record()), [SagaAction::ResumeInbound, SagaAction::ObserveTarget]);
    m.target_says(InboundState::Running);
    m.source_says(OutboundState::Released);
    assert_eq!((m.record().state, place(&m)), (MigrationState::Completed, (Some(m.target), Epoch(2), None)));
}

#[test]
fn a_copy_that_fails_behind_the_hand_over_gives_the_right_back() {
    let mut m = poised();
    m.hand_over();
    m.source_says(OutboundState::Back {
        reason: "the link".into(),
        cancelled: false,
        climb: Climb::default(),
    });
    assert_eq!(saga::next(m.record()), [SagaAction::DiscardInbound, SagaAction::ObserveTarget]);
    m.target_says(InboundState::Discarded { reason: "the link".into() });
    assert_eq!((m.record().state, place(&m)), (MigrationState::Failed, (Some(m.source), Epoch(3), None)));
    assert!(!m.record().handed_over && m.memory_on(m.target) == ByteCount(0));
}

#[test]
fn a_target_that_never_ran_it_has_the_source_take_it_back() {
    let mut m = poised();
    m.hand_over();
    m.target_says(InboundState::Discarded { reason: "it was not told".into() });
    m.source_says(stranded());
    assert_eq!(saga::next(m.record()), [SagaAction::CancelOutbound, SagaAction::ObserveSource]);
    m.source_says(OutboundState::Back {
        reason: "stopped".into(),
        cancelled: false,
        climb: Climb::default(),
    });
    assert_eq!((m.record().state, place(&m)), (MigrationState::Failed, (Some(m.source), Epoch(3), None)));
}

#[test]
fn halves_that_lose_each_other_are_stranded_until_they_meet_again() {
    let mut m = split();
    m.target_says(InboundState::Stranded { reason: "no memory follows".into() });
    assert_eq!(m.record().state, MigrationState::Stranded);
    m.source_says(stranded());
    assert_eq!((m.record().state, m.record().message.as_str()), (MigrationState::Stranded, "the link"));
    let refusal = m.world.refused(CommandBody::MigrationCancel { id: MIGRATION });
    assert!(refusal.cause.contains("half of the guest"), "{refusal:?}");
    let view = views::migration(&m.world.state, m.record());
    assert!(view.status.message.starts_with("the link; they meet again by themselves"), "{view:?}");
    assert_eq!(saga::next(m.record()), [SagaAction::ObserveSource, SagaAction::ObserveTarget]);
    m.source_says(GONE());
    assert_eq!(m.record().state, MigrationState::Finishing);
    m.target_says(InboundState::Running);
    m.source_says(OutboundState::Released);
    assert_eq!(m.record().state, MigrationState::Completed);
    assert!(m.record().message.contains("met again"), "what it says is what became of it: {:?}", m.record());
}

#[test]
fn a_half_that_ends_takes_the_other_with_it_and_the_machine_is_on_the_target() {
    let mut m = split();
    m.source_says(OutboundState::Lost { reason: "the source's QEMU ended".into() });
    assert_eq!(saga::next(m.record()), [SagaAction::AbandonInbound, SagaAction::ObserveTarget]);
    m.target_says(InboundState::Lost { reason: "given up".into() });
    assert_eq!(saga::next(m.record()), [SagaAction::ReleaseOutbound, SagaAction::ObserveSource]);
    m.source_says(OutboundState::Released);
    assert_eq!((m.record().state, place(&m)), (MigrationState::Lost, (Some(m.target), Epoch(2), None)));
    assert_eq!(m.record().message, "the source's QEMU ended", "the cause, not what followed from it");
}

#[test]
fn a_stranded_guest_can_be_given_up_and_no_other() {
    let give_up = || CommandBody::MigrationGiveUp { id: MIGRATION };
    let mut m = split();
    assert!(m.world.refused(give_up()).cause.contains("not stranded"));
    m.source_says(stranded());
    m.world.ok(give_up());
    assert_eq!(saga::next(m.record()), [SagaAction::AbandonInbound, SagaAction::ObserveTarget]);
    m.source_says(stranded());
    assert_eq!(
        m.world.apply(give_up()),
        Applied::AlreadySo,
        "a source that repeats itself brings nothing back"
    );
    m.target_says(InboundState::Lost { reason: "told so".into() });
    m.source_says(OutboundState::Released);
    assert_eq!((m.record().state, place(&m)), (MigrationState::Lost, (Some(m.target), Epoch(2), None)));
    assert_eq!(m.record().message, "the guest is lost: it was given up on request");
    assert!(m.world.refused(give_up()).cause.contains("has ended"));
}

#[test]
fn a_guest_that_was_whole_before_it_was_given_up_runs() {
    let mut m = split();
    m.source_says(stranded());
    m.world.ok(CommandBody::MigrationGiveUp { id: MIGRATION });
    m.target_says(InboundState::Running);
    assert_eq!(saga::next(m.record()), [SagaAction::ReleaseOutbound, SagaAction::ObserveSource]);
    m.source_says(OutboundState::Released);
    assert_eq!(m.record().state, MigrationState::Completed);
}

#[test]
fn what_the_other_half_says_behind_a_loss_at_the_target_hides_nothing() {
    let mut m = split();
    m.target_says(InboundState::Lost { reason: "the target's QEMU ended".into() });
    m.source_says(stranded());
    m.source_says(OutboundState::Released);
    assert_eq!(
        (m.record().state, m.record().message.as_str()),
        (MigrationState::Lost, "the target's QEMU ended")
    );
}

#[test]
fn a_source_that_is_removed_by_force_takes_its_half_with_it() {
    let mut m = split();
    let source = m.source;
    m.source_says(stranded());
    m.world.down(source);
    m.world.ok(CommandBody::HostRemove(HostRemove { host: source, force: true }));
    assert_eq!(saga::next(m.record()), [SagaAction::AbandonInbound, SagaAction::ObserveTarget]);
}
