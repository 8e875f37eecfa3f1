//! Moves of every kind, step by step, and what each leaves behind.

mod split;

use crate::stories::action;
use crate::world::{World, hello, seen};
use novacron_common::{
    api::{EventKind, MigrationState},
    ids::{HostId, MigrationId, VmId},
    record::{
        Climb, DiskDigest, InboundState, Limit, MigrationProgress, MigrationReport, MoveLimits,
        OutboundState, Rung, SideState, Strategy, VmAction, VmObservation, VmState,
    },
    spec::StopTerms,
    units::{ByteCount, Epoch},
    wire::AgentCommand,
};
use novacron_core::{
    Applied, CommandBody,
    command::{Handover, HostRemove, MigrationAsk, MigrationDenied, MigrationObserve, VmRestart},
    migration,
    migration::saga::{self, SagaAction},
    record::MigrationRecord,
    views, vms,
};
use std::num::NonZeroU32;

struct Move {
    world: World,
    vm: VmId,
    source: HostId,
    target: HostId,
}

const MIGRATION: MigrationId = MigrationId::from_u128(1);

impl Move {
    fn new(live: bool) -> Self {
        Self::within(live, MoveLimits::default())
    }

    fn within(live: bool, limits: MoveLimits) -> Self {
        let (mut world, hosts) = World::with_hosts(2);
        let (vm, source) = world.running_vm("web");
        let target = hosts.into_iter().find(|h| *h != source).unwrap();
        let ask = within(world.ask(1, vm, target, live), limits);
        world.ok(ask.clone());
        assert_eq!(world.ok(ask), Applied::MigrationAsked(MIGRATION), "asked twice is asked once");
        Self { world, vm, source, target }
    }

    fn record(&self) -> &MigrationRecord {
        self.world.state.migration(MIGRATION).unwrap()
    }

    fn source_says(&mut self, state: OutboundState) {
        self.say(self.source, SideState::Outbound(state));
    }

    fn target_says(&mut self, state: InboundState) {
        self.say(self.target, SideState::Inbound(state));
    }

    fn say(&mut self, host: HostId, side: SideState) {
        let asked_at_step = Some(self.record().step);
        let observe = MigrationObserve { id: MIGRATION, host, side, asked_at_step };
        self.world.ok(CommandBody::MigrationObserve(Box::new(observe)));
    }

    fn hand_over(&mut self) -> Applied {
        let expect_epoch = self.record().epoch;
        let handover = Handover { migration: MIGRATION, vm: self.vm, to: self.target, expect_epoch };
        self.world.ok(CommandBody::Handover(handover))
    }

    fn memory_on(&self, host: HostId) -> ByteCount {
        self.world.state.index().usage(host).memory
    }
}

const GONE: fn() -> OutboundState = || OutboundState::Gone(MigrationReport::default());

#[test]
fn why_a_move_ended_is_the_sources_word_even_if_the_target_speaks_first() {
    let mut m = Move::new(true);
    m.target_says(InboundState::Preparing);
    m.target_says(InboundState::Ready);
    m.source_says(OutboundState::Copying(Default::default()));
    m.target_says(InboundState::Discarded { reason: "the source ended the copy".into() });
    assert_eq!(m.record().message, "the source ended the copy");
    let reason = "the deadline passed".to_owned();
    m.source_says(OutboundState::Back { reason: reason.clone(), cancelled: false, climb: Climb::default() });
    assert_eq!(m.record().message, reason);
}

#[test]
fn a_live_move_goes_through_its_states_and_keeps_room_on_both_hosts_until_it_ends() {
    let mut m = Move::new(true);
    let room = ByteCount::gib(4);
    assert_eq!(vms::wanted(m.world.state.vm(m.vm).unwrap()), None, "the saga has it in hand");
    assert_eq!(saga::next(m.record()), [SagaAction::PrepareInbound, SagaAction::ObserveTarget]);
    m.target_says(InboundState::Preparing);
    assert_eq!(m.record().state, MigrationState::Preparing);
    m.target_says(InboundState::Ready);
    assert_eq!(saga::next(m.record()), [SagaAction::StartOutbound, SagaAction::ObserveSource]);
    m.source_says(OutboundState::Copying(Default::default()));
    assert_eq!((m.memory_on(m.source), m.memory_on(m.target)), (room, room));
    m.target_says(InboundState::Arrived);
    assert_eq!(m.record().state, MigrationState::Copying, "the source is not gone yet");
    m.source_says(GONE());
    assert_eq!(saga::next(m.record()), [SagaAction::Handover]);
    let refusal = m.world.refused(CommandBody::MigrationCancel { id: MIGRATION });
    assert!(refusal.cause.contains("too late"));
    assert_eq!(m.hand_over(), Applied::HandedOver { epoch: Epoch(2) });
    assert_eq!(m.hand_over(), Applied::HandedOver { epoch: Epoch(2) }, "the same answer again");
    assert_eq!((m.memory_on(m.source), m.memory_on(m.target)), (room, room));
    m.target_says(InboundState::Running);
    m.source_says(OutboundState::Released);
    assert_eq!(m.record().state, MigrationState::Completed);
    assert_eq!((m.memory_on(m.source), m.memory_on(m.target)), (ByteCount(0), room));
    let wanted = vms::wanted(m.world.state.vm(m.vm).unwrap()).unwrap();
    assert_eq!((wanted.epoch, wanted.action), (Epoch(2), VmAction::Run));
    assert_eq!(saga::next(m.record()), []);
}

/// The same request with limits.
pub fn within(ask: CommandBody, limits: MoveLimits) -> CommandBody {
    let CommandBody::MigrationAsk(ask) = ask else { panic!("no ask") };
    CommandBody::MigrationAsk(Box::new(MigrationAsk { limits, ..*ask }))
}

const LIMITS: MoveLimits = MoveLimits {
    strategy: Strategy::StopAndCopy,
    max_downtime_ms: Some(40),
    max_slowdown_pct: 0,
    deadline_ms: Some(5000),
    bandwidth_mbit: NonZeroU32::new(70),
    verify_disk: true,
};

/// The limits are of the request: kept, told to the source, and part of what makes a request the same one again.
#[test]
fn limits_are_kept_and_told_to_the_source_and_how_far_it_went_is_kept_too() {
    let mut m = Move::within(true, LIMITS);
    assert_eq!(m.record().limits, LIMITS);
    let other = m.world.ask(1, m.vm, m.target, true);
    m.world.refused(other);
    m.target_says(InboundState::Ready);
    let call = migration::call(&m.world.state, m.record(), SagaAction::StartOutbound);
    let Some((_, AgentCommand::StartOutbound { limits, .. })) = call else { panic!("{call:?}") };
    assert_eq!(limits, LIMITS);
    let climb = |rung, limit| Climb { rung, throttle_pct: 7, pause_ms: 40, limit };
    let (so_far, ended) = (climb(Rung::Throttle, None), climb(Rung::LongerPause, Some(Limit::Deadline)));
    m.source_says(OutboundState::Copying(MigrationProgress { climb: so_far, ..Default::default() }));
    assert_eq!(views::migration(&m.world.state, m.record()).climb, so_far);
    let reason = "the deadline passed".to_owned();
    m.source_says(OutboundState::Back { reason: reason.clone(), cancelled: false, climb: ended });
    let view = views::migration(&m.world.state, m.record());
    assert_eq!((view.limits, view.climb, view.status.message), (LIMITS, ended, reason));
}

#[test]
fn the_calls_of_a_move_carry_its_ticket_and_after_the_hand_over_the_new_epoch() {
    let mut m = Move::new(true);
    let call = |m: &Move, action| migration::call(&m.world.state, m.record(), action).unwrap();
    let (to, AgentCommand::PrepareInbound { ticket, .. }) = call(&m, SagaAction::PrepareInbound) else {
        panic!()
    };
    assert_eq!((to, ticket.epoch, ticket.source, ticket.secret), (m.target, Epoch(1), m.source, [9; 32]));
    let (to, AgentCommand::StartOutbound { target, .. }) = call(&m, SagaAction::StartOutbound) else {
        panic!()
    };
    assert_eq!((to, target), (m.source, hello(m.target, "x").addresses.quic));
    m.target_says(InboundState::Ready);
    m.target_says(InboundState::Arrived);
    let disk = Some(DiskDigest { sha256: [3; 32], data: ByteCount::mib(5) });
    m.source_says(OutboundState::Gone(MigrationReport { disk, ..MigrationReport::default() }));
    m.hand_over();
    let (to, AgentCommand::ResumeInbound { epoch, disk: expected, .. }) = call(&m, SagaAction::ResumeInbound)
    else {
        panic!()
    };
    assert_eq!((to, epoch, expected), (m.target, Epoch(2), disk));
    let (to, AgentCommand::ReleaseOutbound { epoch, .. }) = call(&m, SagaAction::ReleaseOutbound) else {
        panic!()
    };
    assert_eq!((to, epoch), (m.source, Epoch(2)));
    assert!(!format!("{:?}", m.record()).contains("9, 9"), "the ticket's secret is not shown");
}

#[test]
fn a_cancelled_move_leaves_nothing_on_the_target_and_its_room_is_free_once() {
    let mut m = Move::new(true);
    m.target_says(InboundState::Ready);
    m.world.ok(CommandBody::MigrationCancel { id: MIGRATION });
    assert_eq!(saga::next(m.record()), [SagaAction::CancelOutbound, SagaAction::ObserveSource]);
    m.source_says(OutboundState::Back {
        reason: "cancelled".into(),
        cancelled: true,
        climb: Climb::default(),
    });
    assert_eq!(saga::next(m.record()), [SagaAction::DiscardInbound, SagaAction::ObserveTarget]);
    assert_eq!(m.memory_on(m.target), ByteCount::gib(4));
    m.target_says(InboundState::Discarded { reason: "cancelled".into() });
    m.target_says(InboundState::Discarded { reason: "cancelled".into() });
    assert_eq!(m.record().state, MigrationState::Cancelled);
    assert_eq!((m.memory_on(m.source), m.memory_on(m.target)), (ByteCount::gib(4), ByteCount(0)));
    assert_eq!(m.world.state.vm(m.vm).unwrap().epoch, Epoch(1));
    m.world.refused(CommandBody::MigrationCancel { id: MIGRATION });
}

#[test]
fn unknown_counts_only_as_the_answer_to_a_question_of_this_step() {
    let mut m = Move::new(true);
    m.target_says(InboundState::Ready);
    let early = m.record().step;
    m.world.ok(CommandBody::MigrationCancel { id: MIGRATION });
    let unknown = |asked_at_step| {
        let side = SideState::Outbound(OutboundState::Unknown);
        let observe = MigrationObserve { id: MIGRATION, host: m.source, side, asked_at_step };
        CommandBody::MigrationObserve(Box::new(observe))
    };
    let now = Some(m.record().step);
    for asked in [None, Some(early)] {
        assert_eq!(m.world.apply(unknown(asked)), Applied::AlreadySo);
    }
    assert_eq!(m.world.apply(unknown(now)), Applied::Done);
    assert_eq!(saga::next(m.record())[0], SagaAction::DiscardInbound);
}

#[test]
fn a_refused_step_ends_the_move_with_the_agents_reason() {
    let mut m = Move::new(true);
    let deny = |step| {
        CommandBody::MigrationDenied(MigrationDenied { id: MIGRATION, step, reason: "no image".into() })
    };
    assert_eq!(m.world.apply(deny(7)), Applied::AlreadySo, "of another step");
    m.world.ok(deny(0));
    assert_eq!(m.record().state, MigrationState::Reverting);
    m.target_says(InboundState::Unknown);
    assert_eq!(m.record().state, MigrationState::Failed);
    assert_eq!(views::migration(&m.world.state, m.record()).status.message, "no image");
    assert_eq!(m.world.state.vm(m.vm).unwrap().migration, None);
}

#[test]
fn a_target_that_loses_the_guest_after_the_hand_over_gives_the_right_back() {
    let mut m = Move::new(true);
    m.target_says(InboundState::Ready);
    m.target_says(InboundState::Arrived);
    m.source_says(GONE());
    m.hand_over();
    m.target_says(InboundState::Discarded { reason: "the host crashed".into() });
    assert_eq!(m.record().state, MigrationState::Failed);
    let vm = m.world.state.vm(m.vm).unwrap();
    assert_eq!((vm.placed_on, vm.epoch), (Some(m.source), Epoch(3)));
    assert_eq!(m.memory_on(m.target), ByteCount(0));
}

#[test]
fn a_guest_lost_with_the_target_before_the_hand_over_is_the_sources_under_a_new_epoch() {
    let mut m = Move::new(true);
    m.target_says(InboundState::Ready);
    m.source_says(GONE());
    m.target_says(InboundState::Discarded { reason: "the host crashed".into() });
    assert_eq!(m.record().state, MigrationState::Failed);
    let wanted = vms::wanted(m.world.state.vm(m.vm).unwrap()).unwrap();
    assert_eq!((wanted.epoch, wanted.action), (Epoch(2), VmAction::Run));
    assert_eq!(m.world.state.vm(m.vm).unwrap().placed_on, Some(m.source));
}

#[test]
fn a_source_that_is_gone_is_waited_for_until_the_target_speaks() {
    let mut m = Move::new(true);
    m.target_says(InboundState::Ready);
    m.source_says(GONE());
    m.target_says(InboundState::Unknown);
    assert_eq!(
        (m.record().state, saga::next(m.record())),
        (MigrationState::Copying, vec![SagaAction::ObserveTarget])
    );
    m.world.ok(CommandBody::MigrationCancel { id: MIGRATION });
    assert_eq!(saga::next(m.record()), [SagaAction::ObserveTarget], "it may hold the only copy");
    m.target_says(InboundState::Arrived);
    assert_eq!(m.record().state, MigrationState::HandingOver, "too late to cancel");
}

#[test]
fn a_running_machine_is_stopped_before_it_is_moved_cold_and_started_after() {
    let mut m = Move::new(false);
    assert_eq!(action(&m.world, m.vm), Some(VmAction::Stop(StopTerms::within_ms(30_000))));
    assert_eq!(saga::next(m.record()), [SagaAction::AwaitStop]);
    let (source, vm) = (m.source, m.vm);
    m.world.see_late(source, seen(vm, 1, VmState::Stopped));
    assert_eq!(saga::next(m.record()), [SagaAction::AwaitStop], "that was before it was told to stop");
    m.world.see(source, seen(vm, 1, VmState::Stopped));
    assert_eq!(action(&m.world, m.vm), None);
    assert_eq!(saga::next(m.record())[0], SagaAction::PrepareInbound);
    m.target_says(InboundState::Ready);
    m.target_says(InboundState::Arrived);
    m.source_says(GONE());
    m.hand_over();
    m.target_says(InboundState::Running);
    m.source_says(OutboundState::Released);
    assert_eq!(m.record().state, MigrationState::Completed);
    assert_eq!(action(&m.world, m.vm), Some(VmAction::Run), "it is to run, now on the target");
}

#[test]
fn a_cold_move_that_is_cancelled_before_the_guest_stopped_ends_at_once() {
    let mut m = Move::new(false);
    m.world.ok(CommandBody::MigrationCancel { id: MIGRATION });
    assert_eq!(m.record().state, MigrationState::Cancelled);
    assert_eq!(action(&m.world, m.vm), Some(VmAction::Run));
    let (source, vm) = (m.source, m.vm);
    m.world.see_late(source, VmObservation { ran: true, ..seen(vm, 1, VmState::Stopped) });
    assert_eq!(action(&m.world, m.vm), Some(VmAction::Run), "it was stopped for the move, not by itself");
}

#[test]
fn a_restart_that_was_done_on_the_source_is_not_done_again_on_the_target() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, source) = world.running_vm("web");
    world.ok(CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::AT_ONCE }));
    let mut restarted = seen(vm, 1, VmState::Running);
    restarted.restarted = 1;
    world.see(source, restarted);
    let target = hosts.into_iter().find(|h| *h != source).unwrap();
    let ask = world.ask(1, vm, target, true);
    world.ok(ask);
    let mut m = Move { world, vm, source, target };
    m.target_says(InboundState::Ready);
    m.target_says(InboundState::Arrived);
    m.source_says(GONE());
    m.hand_over();
    m.target_says(InboundState::Running);
    m.source_says(OutboundState::Released);
    m.world.see(target, seen(vm, 2, VmState::Running));
    assert_eq!(action(&m.world, vm), Some(VmAction::Run));
}

#[test]
fn removing_the_target_by_force_ends_the_move_on_the_source() {
    let mut m = Move::new(true);
    let target = m.target;
    m.world.down(target);
    let message = views::migration(&m.world.state, m.record()).status.message;
    assert!(message.contains("--force"), "what it waits for, and the way out: {message}");
    m.world.ok(CommandBody::HostRemove(HostRemove { host: target, force: true }));
    assert_eq!(m.record().state, MigrationState::Failed);
    let message = views::migration(&m.world.state, m.record()).status.message;
    assert!(!message.contains("--force"), "{message}");
    assert_eq!(m.world.state.vm(m.vm).unwrap().placed_on, Some(m.source));
}

#[test]
fn changes_become_events_of_what_is_shown_and_of_nothing_secret() {
    let mut m = Move::new(true);
    m.world.ok(CommandBody::MigrationCancel { id: MIGRATION });
    let changes = m.world.state.take_changes();
    let events: Vec<_> = changes.iter().filter_map(|c| views::changed(&m.world.state, c).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|e| e.kind).collect();
    assert_eq!(kinds, [EventKind::Host, EventKind::Host, EventKind::Vm, EventKind::Migration]);
    assert_eq!(events[3].id, MIGRATION.to_string());
    let json = serde_json::to_string(&events.iter().map(|e| &e.object).collect::<Vec<_>>()).unwrap();
    assert!(json.contains("\"reverting\"") && !json.contains("secret"), "{json}");
}
