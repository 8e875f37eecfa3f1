//! What the coordinators do to machines for a fire, and how its end is told from what is observed.

use crate::world::{World, job_spec, seen};
use novacron_common::{
    api::{FireState, VmDesired},
    ids::{FireKey, HostId, VmId},
    record::{
        AttemptEnd, AttemptOutcome, AttemptReport, Climb, InboundState, OutboundState, Output, SideState,
        VmState,
    },
    spec::{JobSpec, JobTarget, Program, StopTerms, VmCommandTarget, VmVerb, VmVerbTarget},
};
use novacron_core::{
    Applied, CommandBody, attempts,
    command::{AttemptPlace, HostCordon, JobExecute, MigrationObserve, VerbBegin, VerbStep},
    verbs,
};

fn fire(world: &mut World, vm: &str, verb: VmVerb) -> FireKey {
    let target = JobTarget::Vm(VmVerbTarget { vm: vm.into(), verb });
    let job =
        world.job(JobSpec { target, ..job_spec(&format!("verb-{}", world.state.jobs().len()), "@daily") });
    match world.ok(CommandBody::JobExecute(JobExecute { id: job, at: world.now, node: None })) {
        Applied::FireCommitted(fire) => fire,
        other => panic!("{other:?}"),
    }
}

/// As the reconciler does.
fn begin(world: &mut World, fire: FireKey) {
    assert_eq!(attempts::plan(&world.state, world.now, 9, 9).verbs, [fire]);
    let JobTarget::Vm(target) = &world.state.job(fire.job).unwrap().spec.target else { panic!("no verb") };
    let step = verbs::step(&world.state, target).expect("not a migration");
    world.ok(CommandBody::VerbBegin(Box::new(VerbBegin { fire, step })));
}

fn outcome(world: &World, fire: FireKey) -> Option<AttemptOutcome> {
    let attempt = world.state.fire(fire).unwrap().attempt().unwrap();
    verbs::outcome(&world.state, world.state.attempt(attempt).unwrap())
}

fn see(world: &mut World, host: HostId, vm: VmId, state: VmState) {
    world.see(host, seen(vm, 1, state));
}

#[test]
fn stop_and_start_end_when_the_machine_is_seen_so() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.running_vm("web");
    let stop = fire(&mut world, "web", VmVerb::Stop { grace_ms: 7 });
    begin(&mut world, stop);
    assert_eq!(world.state.vm(vm).unwrap().desired, VmDesired::Stopped);
    assert_eq!(outcome(&world, stop), None, "it still runs");
    see(&mut world, host, vm, VmState::Stopped);
    assert_eq!(outcome(&world, stop), Some(AttemptOutcome::Done));
    let start = fire(&mut world, &vm.to_string(), VmVerb::Start);
    let record = world.state.fire(stop).unwrap();
    let (attempt, epoch) = (record.attempt().unwrap(), record.epoch);
    let end = AttemptEnd {
        outcome: AttemptOutcome::Done,
        started_at: None,
        ended_at: world.now,
        output: Output::default(),
        result: None,
    };
    world.ok(CommandBody::AttemptEnd(Box::new(AttemptReport { attempt, epoch, end })));
    assert_eq!(world.state.fire(stop).unwrap().state, FireState::Succeeded);
    begin(&mut world, start);
    assert_eq!(outcome(&world, start), None);
    see(&mut world, host, vm, VmState::Running);
    assert_eq!(outcome(&world, start), Some(AttemptOutcome::Done));
    world.assert_reloads();
}

#[test]
fn a_restart_ends_when_that_restart_is_done() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.running_vm("web");
    let restart = fire(&mut world, "web", VmVerb::Restart);
    begin(&mut world, restart);
    see(&mut world, host, vm, VmState::Running);
    assert_eq!(outcome(&world, restart), None, "it runs, but that is the life before");
    let mut again = seen(vm, 1, VmState::Running);
    again.restarted = 1;
    world.see(host, again);
    assert_eq!(outcome(&world, restart), Some(AttemptOutcome::Done));
}

#[test]
fn what_cannot_begin_fails_with_its_reason_and_a_wish_of_somebody_else_ends_it() {
    let (mut world, _) = World::with_hosts(1);
    let missing = fire(&mut world, "nobody", VmVerb::Start);
    begin(&mut world, missing);
    let record = world.state.fire(missing).unwrap();
    assert_eq!(record.state, FireState::Failed);
    let end = world.state.attempts().iter().next().unwrap().end.clone().unwrap();
    assert!(matches!(end.outcome, AttemptOutcome::FailedToStart { reason } if reason.contains("nobody")));

    let (vm, _) = world.vm("db");
    let stop = fire(&mut world, "db", VmVerb::Stop { grace_ms: 1 });
    begin(&mut world, stop);
    let desired = VmDesired::Running;
    world.ok(CommandBody::VmDesire(novacron_core::command::VmDesire {
        vm,
        desired,
        stop: StopTerms::within_ms(1),
    }));
    assert!(matches!(outcome(&world, stop), Some(AttemptOutcome::Failed { .. })));
}

#[test]
fn a_move_ends_with_its_migration() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, source) = world.running_vm("web");
    let target = hosts.into_iter().find(|host| *host != source).unwrap();
    let moved = fire(&mut world, "web", VmVerb::Migrate { target: None, live: true });
    let JobTarget::Vm(verb) = &world.state.job(moved.job).unwrap().spec.target else { panic!("no verb") };
    assert_eq!(verbs::step(&world.state, verb), None, "the shell chooses the target");
    let CommandBody::MigrationAsk(ask) = world.ask(7, vm, target, true) else { panic!("no ask") };
    let step = VerbStep::Migrate(*ask);
    world.ok(CommandBody::VerbBegin(Box::new(VerbBegin { fire: moved, step })));
    assert!(world.state.vm(vm).unwrap().migration.is_some());
    assert_eq!(outcome(&world, moved), None);
    let id = world.state.vm(vm).unwrap().migration.unwrap();
    world.ok(CommandBody::MigrationCancel { id });
    let ended = world.state.migration(id).unwrap().is_final();
    assert_eq!(outcome(&world, moved).is_some(), ended);
}

fn command_in(world: &mut World, vm: &str) -> FireKey {
    let target = VmCommandTarget { vm: vm.into(), program: Program::new(["true"]) };
    let target = JobTarget::VmCommand(target);
    let name = format!("inside-{}", world.state.jobs().len());
    let job = world.job(JobSpec { target, ..job_spec(&name, "@daily") });
    match world.ok(CommandBody::JobExecute(JobExecute { id: job, at: world.now, node: None })) {
        Applied::FireCommitted(fire) => fire,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_command_for_a_machine_goes_to_its_host_by_id_even_if_that_is_cordoned() {
    let (mut world, _) = World::with_hosts(3);
    let (vm, host) = world.running_vm("web");
    world.ok(CommandBody::HostCordon(HostCordon { host, cordoned: true }));
    let fire = command_in(&mut world, "web");
    let place = AttemptPlace { fire, host };
    assert_eq!(attempts::plan(&world.state, world.now, 9, 9).places, std::slice::from_ref(&place));
    world.ok(CommandBody::AttemptPlace(place));
    let lease = novacron_common::wire::Lease { duration_ms: 30_000 };
    let (told, start) = attempts::start(&world.state, fire, lease).unwrap();
    let JobTarget::VmCommand(target) = start.target else { panic!("{:?}", start.target) };
    assert_eq!((told, target.vm), (host, vm.to_string()));
}

#[test]
fn a_command_for_a_machine_that_moves_waits_for_the_end_of_the_move() {
    let (mut world, hosts) = World::with_hosts(2);
    let (vm, source) = world.running_vm("web");
    let target = hosts.into_iter().find(|host| *host != source).unwrap();
    let ask = world.ask(7, vm, target, true);
    world.ok(ask);
    let id = world.state.vm(vm).unwrap().migration.unwrap();
    let fire = command_in(&mut world, "web");
    let plan = attempts::plan(&world.state, world.now, 9, 9);
    assert!(plan.is_empty() && plan.short, "{plan:?}");
    world.ok(CommandBody::MigrationCancel { id });
    let mut see_side = |host, side| {
        let seen = MigrationObserve { id, host, side, asked_at_step: None };
        world.ok(CommandBody::MigrationObserve(Box::new(seen)));
    };
    let reason = || "cancelled".to_owned();
    see_side(
        source,
        SideState::Outbound(OutboundState::Back {
            reason: reason(),
            cancelled: true,
            climb: Climb::default(),
        }),
    );
    see_side(target, SideState::Inbound(InboundState::Discarded { reason: reason() }));
    let host = source;
    assert_eq!(attempts::plan(&world.state, world.now, 9, 9).places, [AttemptPlace { fire, host }]);
}

#[test]
fn a_command_for_a_machine_that_cannot_run_it_fails_with_the_reason_and_one_that_comes_is_waited_for() {
    let (mut world, _) = World::with_hosts(1);
    let nobody = command_in(&mut world, "nobody");
    let plan = attempts::plan(&world.state, world.now, 9, 9);
    assert!(plan.impossible[0].1.contains("no machine"), "{plan:?}");
    let step = VerbStep::Impossible(plan.impossible[0].1.clone());
    world.ok(CommandBody::VerbBegin(Box::new(VerbBegin { fire: nobody, step })));
    assert_eq!(world.state.fire(nobody).unwrap().state, FireState::Failed);

    let (vm, host) = world.vm("web");
    let fire = command_in(&mut world, "web");
    let plan = attempts::plan(&world.state, world.now, 9, 9);
    assert!(plan.is_empty() && plan.short, "it is being made: {plan:?}");
    see(&mut world, host, vm, VmState::Running);
    assert_eq!(attempts::plan(&world.state, world.now, 9, 9).places, [AttemptPlace { fire, host }]);
    see(&mut world, host, vm, VmState::Failed);
    let plan = attempts::plan(&world.state, world.now, 9, 9);
    assert_eq!(plan.impossible[0].0, fire);
    assert!(plan.impossible[0].1.contains("web has failed"), "{plan:?}");
    see(&mut world, host, vm, VmState::Running);
    world.down(host);
    let plan = attempts::plan(&world.state, world.now, 9, 9);
    assert!(plan.impossible[0].1.contains("not heard from"), "{plan:?}");
}
