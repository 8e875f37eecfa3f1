//! Whole stories: a machine's life, a host's absence, a job with retries, moves of every kind.

use crate::world::{NOON, World, command_target, hello, job_spec, seen, vm_create, vm_spec};
use novacron_common::{
    api::{EventKind, FireState, MigrationState, VmDesired},
    ids::{FireKey, HostId, JobId, MigrationId, VmId},
    record::{
        AttemptEnd, AttemptOutcome, AttemptReport, HostStatus, InboundState, MigrationReport, OutboundState,
        Output, SideState, VmAction, VmState,
    },
    spec::{RestartPolicy, VmSpec},
    units::{ByteCount, Epoch, Incarnation, UnixMillis},
    wire::AgentCommand,
};
use novacron_core::{
    Applied, CommandBody, attempts,
    command::{
        AttemptPlace, Handover, HostRemove, JobExecute, MigrationDenied, MigrationObserve, VmDesire, VmPlace,
        VmRestart,
    },
    hosts, migration,
    migration::saga::{self, SagaAction},
    placement::{Constraints, plan},
    record::MigrationRecord,
    schedule, views, vms,
};

fn action(world: &World, vm: VmId) -> Option<VmAction> {
    vms::wanted(world.state.vm(vm).unwrap()).map(|assignment| assignment.action)
}

fn desire(world: &mut World, vm: VmId, desired: VmDesired) {
    world.ok(CommandBody::VmDesire(VmDesire { vm, desired, grace_ms: 5000 }));
}

#[test]
fn a_machine_is_made_run_restarted_once_stopped_and_forgotten() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.vm("web");
    assert_eq!(action(&world, vm), Some(VmAction::Run));
    world.see(host, seen(vm, 1, VmState::Running));
    world.ok(CommandBody::VmRestart(VmRestart { vm, grace_ms: 7 }));
    assert_eq!(action(&world, vm), Some(VmAction::Restart { request: 1, grace_ms: 7 }));
    world.see(host, seen(vm, 1, VmState::Stopped));
    assert_eq!(action(&world, vm), Some(VmAction::Restart { request: 1, grace_ms: 7 }), "stopped on the way");
    let mut restarted = seen(vm, 1, VmState::Running);
    restarted.restarted = 1;
    world.see(host, restarted);
    assert_eq!(action(&world, vm), Some(VmAction::Run));
    desire(&mut world, vm, VmDesired::Stopped);
    assert_eq!(action(&world, vm), Some(VmAction::Stop { grace_ms: 5000 }));
    desire(&mut world, vm, VmDesired::Deleted);
    assert_eq!(action(&world, vm), Some(VmAction::Delete));
    world.refused(CommandBody::VmForget { vm });
    world.see(host, seen(vm, 1, VmState::Missing));
    world.ok(CommandBody::VmForget { vm });
    assert_eq!(world.state.index().usage(host), Default::default());
    assert_eq!(world.state, world_without_changes(&world));
}

fn world_without_changes(world: &World) -> novacron_core::State {
    let mut state = world.state.clone();
    state.take_changes();
    assert_eq!(world.reloaded(), state);
    world.state.clone()
}

#[test]
fn a_guest_that_shuts_itself_down_stays_down_unless_it_is_to_run_always() {
    for (policy, then) in
        [(RestartPolicy::Never, VmDesired::Stopped), (RestartPolicy::Always, VmDesired::Running)]
    {
        let (mut world, _) = World::with_hosts(1);
        let (vm, host) = match world.ok(vm_create(1, VmSpec { restart: policy, ..vm_spec("web") })) {
            Applied::VmCreated { vm, host } => (vm, host),
            other => panic!("{other:?}"),
        };
        world.see(host, seen(vm, 1, VmState::Stopped));
        assert_eq!(world.state.vm(vm).unwrap().desired, VmDesired::Running, "not yet started");
        world.see(host, seen(vm, 1, VmState::Running));
        world.see(host, seen(vm, 1, VmState::Stopped));
        assert_eq!(world.state.vm(vm).unwrap().desired, then);
    }
}

#[test]
fn a_stop_and_a_start_in_quick_succession_end_running() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.running_vm("web");
    desire(&mut world, vm, VmDesired::Stopped);
    desire(&mut world, vm, VmDesired::Running);
    world.see(host, seen(vm, 1, VmState::Stopped));
    assert_eq!(action(&world, vm), Some(VmAction::Run));
}

#[test]
fn words_of_a_stranger_or_a_past_epoch_are_not_heard() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, host) = world.running_vm("web");
    let stranger = hosts.into_iter().find(|h| *h != host).unwrap();
    world.see(stranger, seen(vm, 1, VmState::Stopped));
    world.see(host, seen(vm, 2, VmState::Stopped));
    assert_eq!(world.state.vm(vm).unwrap().state, VmState::Running);
}

#[test]
fn only_news_is_committed_and_what_is_not_listed_is_missing() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.running_vm("web");
    let (new, _) = world.vm("new");
    let mut same = seen(vm, 1, VmState::Running);
    same.cpu_ms = 999;
    let now = world.now;
    let news = |world: &World, report: &[_]| vms::news(&world.state, host, report, now);
    assert!(
        news(&world, std::slice::from_ref(&same)).is_empty(),
        "CPU time is no news, nor is a machine to come"
    );
    let mut moved = same.clone();
    moved.addresses = vec!["10.0.0.7".parse().unwrap()];
    assert_eq!(news(&world, std::slice::from_ref(&moved)), [moved]);
    let missing = news(&world, &[]);
    assert_eq!(missing.iter().map(|o| (o.vm, o.state)).collect::<Vec<_>>(), [(vm, VmState::Missing)]);
    world.down(host);
    assert_eq!(world.state.vm(vm).unwrap().state, VmState::Unknown);
    assert_eq!(news(&world, std::slice::from_ref(&same)).len(), 1, "known again after the host came back");
    assert_eq!(world.state.vm(new).unwrap().state, VmState::Unknown);
}

#[test]
fn a_host_that_is_away_keeps_its_machines_and_its_attempts_unknown() {
    let (mut world, hosts) = World::with_hosts(1);
    let (vm, host) = world.running_vm("web");
    let fire = execute_command(&mut world, 0);
    world.ok(CommandBody::AttemptPlace(AttemptPlace { fire, host }));
    world.down(host);
    assert_eq!(world.state.vm(vm).unwrap().placed_on, Some(host));
    assert_eq!(world.state.fire(fire).unwrap().state, FireState::Unknown);
    assert_eq!(attempts::due(&world.state, world.now, 10), [], "no second attempt while the first may live");
    world.now.0 += 1000;
    world.up(hosts[0], "a");
    assert_eq!(world.state.fire(fire).unwrap().state, FireState::Running);
    assert_eq!(world.state.index().usage(host).vms, 1);
}

#[test]
fn a_host_report_is_committed_only_if_it_says_something_new() {
    let (mut world, hosts) = World::with_hosts(1);
    let mut status = HostStatus {
        incarnation: Incarnation(1),
        sequence: 1,
        capacity: crate::world::capacity(),
        load_millis: 100,
        memory_available: ByteCount::gib(1),
        vms: Vec::new(),
        foreign_domains: Vec::new(),
    };
    assert_eq!(hosts::news(&world.state, hosts[0], &status), None);
    status.foreign_domains = vec!["theirs".into()];
    let seen = hosts::news(&world.state, hosts[0], &status).unwrap();
    world.ok(CommandBody::HostSeen(seen));
    assert_eq!(hosts::news(&world.state, hosts[0], &status), None);
    world.down(hosts[0]);
    assert!(hosts::news(&world.state, hosts[0], &status).is_some(), "it is alive after all");
}

#[test]
fn machines_of_a_host_removed_by_force_wait_for_a_new_place_under_a_new_epoch() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, host) = world.running_vm("web");
    world.down(host);
    world.ok(CommandBody::HostRemove(HostRemove { host, force: true }));
    let record = world.state.vm(vm).unwrap();
    assert_eq!((record.placed_on, record.epoch, vms::wanted(record)), (None, Epoch(2), None));
    let offer = plan(&world.state, &record.spec, Constraints::default()).unwrap();
    let other = hosts.into_iter().find(|h| *h != host).unwrap();
    let placed = world.ok(CommandBody::VmPlace(Box::new(VmPlace { vm, offer })));
    assert_eq!(placed, Applied::VmCreated { vm, host: other });
    assert_eq!(world.state.vm(vm).unwrap().epoch, Epoch(3));
}

// ---- jobs

fn command_job(world: &mut World, max_retries: u32) -> JobId {
    let mut spec = job_spec("work", "0 0 1 1 *");
    spec.target = command_target();
    spec.max_retries = max_retries;
    world.job(spec)
}

fn execute_command(world: &mut World, max_retries: u32) -> FireKey {
    let id = command_job(world, max_retries);
    match world.ok(CommandBody::JobExecute(JobExecute { id, at: NOON })) {
        Applied::FireCommitted(fire) => fire,
        other => panic!("{other:?}"),
    }
}

fn start(world: &mut World, fire: FireKey) -> AttemptReport {
    let host = attempts::choose_host(&world.state).unwrap();
    let Applied::AttemptStarted { attempt, epoch } =
        world.ok(CommandBody::AttemptPlace(AttemptPlace { fire, host }))
    else {
        panic!("not started");
    };
    let (to, start) = attempts::start(&world.state, fire).unwrap();
    assert_eq!((to, start.attempt, start.epoch), (host, attempt, epoch));
    let end = AttemptEnd {
        outcome: AttemptOutcome::Exited(1),
        started_at: Some(world.now),
        ended_at: world.now,
        output: Output::default(),
    };
    AttemptReport { attempt, epoch, end }
}

#[test]
fn a_failed_fire_is_tried_again_with_back_off_until_its_tries_are_used_up() {
    let (mut world, _) = World::with_hosts(1);
    let fire = execute_command(&mut world, 2);
    for (number, wait_ms) in [(1, 1000), (2, 2000)] {
        let report = start(&mut world, fire);
        assert_eq!(report.attempt.number, number);
        world.ok(CommandBody::AttemptEnd(Box::new(report.clone())));
        assert_eq!(world.apply(CommandBody::AttemptEnd(Box::new(report))), Applied::AlreadySo);
        assert!(attempts::due(&world.state, world.now, 9).is_empty());
        assert_eq!(attempts::next_due(&world.state), Some(UnixMillis(world.now.0 + wait_ms)));
        world.now.0 += wait_ms;
        assert_eq!(attempts::due(&world.state, world.now, 9), [fire]);
        world.ok(CommandBody::VmObserve(novacron_core::command::VmObserve {
            host: HostId::from_u128(1),
            observations: Vec::new(),
        }));
    }
    let report = start(&mut world, fire);
    world.ok(CommandBody::AttemptEnd(Box::new(report)));
    let record = world.state.fire(fire).unwrap();
    assert_eq!((record.state, record.attempts, record.epoch), (FireState::Failed, 3, Epoch(3)));
    let job = world.state.job(fire.job).unwrap();
    assert_eq!((job.fires, job.succeeded, job.failed), (1, 0, 1));
    assert_eq!(views::fire(&world.state, record, views::Outputs::Shown).attempts[2].outcome, "exited(1)");
}

#[test]
fn a_report_of_a_past_epoch_or_an_unknown_attempt_is_ignored() {
    let (mut world, _) = World::with_hosts(1);
    let fire = execute_command(&mut world, 1);
    let first = start(&mut world, fire);
    world.ok(CommandBody::AttemptEnd(Box::new(first.clone())));
    world.now.0 += 1000;
    let second = start(&mut world, fire);
    let mut stale = second.clone();
    stale.epoch = first.epoch;
    stale.end.outcome = AttemptOutcome::Exited(0);
    let mut future = second.clone();
    future.epoch = Epoch(99);
    let mut unknown = second;
    unknown.attempt.number = 7;
    for report in [first, stale, future, unknown] {
        assert_eq!(world.apply(CommandBody::AttemptEnd(Box::new(report))), Applied::AlreadySo);
    }
    assert_eq!(world.state.fire(fire).unwrap().state, FireState::Running);
}

#[test]
fn output_and_fires_on_record_are_bounded() {
    let (mut world, _) = World::with_hosts(1);
    let fire = execute_command(&mut world, 0);
    let mut report = start(&mut world, fire);
    let long = vec![b'x'; 100_000];
    report.end.output = Output { head: long.clone(), tail: long, total: 200_000 };
    let attempt = report.attempt;
    world.ok(CommandBody::AttemptEnd(Box::new(report)));
    let kept = &world.state.attempt(attempt).unwrap().end.as_ref().unwrap().output;
    assert_eq!((kept.head.len(), kept.tail.len()), (Output::PART_MAX, Output::PART_MAX));
    for n in 1..=1200 {
        world.ok(CommandBody::JobExecute(JobExecute { id: fire.job, at: UnixMillis(NOON.0 + n) }));
    }
    assert_eq!(world.state.fires().len(), 1000);
    assert!(world.state.attempts().is_empty(), "attempts go with their fire");
    let job = world.state.job(fire.job).unwrap();
    assert_eq!((job.fires, job.dropped, job.failed), (1201, 200, 201));
}

#[test]
fn a_cancelled_fire_waits_no_longer_or_is_killed() {
    let (mut world, _) = World::with_hosts(1);
    let waiting = execute_command(&mut world, 3);
    world.ok(CommandBody::FireCancel { fire: waiting });
    assert_eq!(world.state.fire(waiting).unwrap().state, FireState::Cancelled);
    world.refused(CommandBody::FireCancel { fire: waiting });
    let again = CommandBody::JobExecute(JobExecute { id: waiting.job, at: NOON });
    let Applied::FireCommitted(running) = world.ok(again) else { panic!("no fire") };
    assert_eq!(running.scheduled_at.0, NOON.0 + 1, "the instant was taken");
    let mut report = start(&mut world, running);
    world.ok(CommandBody::FireCancel { fire: running });
    assert!(attempts::is_to_be_killed(world.state.fire(running).unwrap()));
    report.end.outcome = AttemptOutcome::Killed;
    world.ok(CommandBody::AttemptEnd(Box::new(report)));
    assert_eq!(world.state.fire(running).unwrap().state, FireState::Cancelled);
}

#[test]
fn attempts_spread_over_the_hosts() {
    let (mut world, _) = World::with_hosts(2);
    let id = command_job(&mut world, 0);
    let mut places = Vec::new();
    for _ in 0..4 {
        let executed = world.ok(CommandBody::JobExecute(JobExecute { id, at: NOON }));
        let Applied::FireCommitted(fire) = executed else { panic!("no fire") };
        start(&mut world, fire);
        places.push(world.state.fire(fire).unwrap().host.unwrap());
    }
    assert_eq!(places.iter().filter(|host| **host == places[0]).count(), 2);
}

#[test]
fn backing_off_doubles_up_to_five_minutes() {
    let seconds: Vec<_> = [1, 2, 3, 8, 9, 10, 1000].map(|n| attempts::backoff(n).as_secs()).to_vec();
    assert_eq!(seconds, [1, 2, 4, 128, 256, 300, 300]);
}

#[test]
fn the_ledgers_time_never_runs_backwards() {
    let (mut world, _) = World::with_hosts(1);
    world.now.0 -= 60_000;
    let (vm, _) = world.vm("web");
    assert_eq!(world.state.vm(vm).unwrap().created_at, NOON);
    assert_eq!(schedule::next_due(&world.state), None);
}

// ---- migrations

struct Move {
    world: World,
    vm: VmId,
    source: HostId,
    target: HostId,
}

const MIGRATION: MigrationId = MigrationId::from_u128(1);

impl Move {
    fn new(live: bool) -> Self {
        let (mut world, hosts) = World::with_hosts(2);
        let (vm, source) = world.running_vm("web");
        let target = hosts.into_iter().find(|h| *h != source).unwrap();
        let ask = world.ask(1, vm, target, live);
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
    m.source_says(GONE());
    m.hand_over();
    let (to, AgentCommand::ResumeInbound { epoch, .. }) = call(&m, SagaAction::ResumeInbound) else {
        panic!()
    };
    assert_eq!((to, epoch), (m.target, Epoch(2)));
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
    m.source_says(OutboundState::Back { reason: "cancelled".into(), cancelled: true });
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
    assert_eq!(views::migration(m.record()).status.message, "no image");
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
    assert_eq!(action(&m.world, m.vm), Some(VmAction::Stop { grace_ms: 30_000 }));
    assert_eq!(saga::next(m.record()), [SagaAction::AwaitStop]);
    let (source, vm) = (m.source, m.vm);
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
}

#[test]
fn a_restart_that_was_done_on_the_source_is_not_done_again_on_the_target() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, source) = world.running_vm("web");
    world.ok(CommandBody::VmRestart(VmRestart { vm, grace_ms: 0 }));
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
    m.world.ok(CommandBody::HostRemove(HostRemove { host: target, force: true }));
    assert_eq!(m.record().state, MigrationState::Failed);
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
