//! Whole stories: a machine's life, a host's absence, a job with retries. Moves are in `moves`.

use crate::world::{NOON, World, command_target, job_spec, seen, vm_create, vm_spec};
use novacron_common::{
    api::{FireState, ProblemCode, VmDesired},
    ids::{FireKey, HostId, JobId, VmId},
    record::{
        AttemptEnd, AttemptOutcome, AttemptReport, HostStatus, Output, VmAction, VmObservation, VmState,
    },
    spec::{RestartPolicy, StopTerms, VmSpec},
    units::{ByteCount, Epoch, Incarnation, UnixMillis},
    wire::Lease,
};
use novacron_core::{
    Applied, CommandBody, attempts,
    command::{AttemptPlace, HostRemove, JobExecute, VmDesire, VmPlace, VmRestart},
    hosts,
    placement::{Constraints, plan},
    schedule, views, vms,
};

pub(crate) fn action(world: &World, vm: VmId) -> Option<VmAction> {
    vms::wanted(world.state.vm(vm).unwrap()).map(|assignment| assignment.action)
}

fn desire(world: &mut World, vm: VmId, desired: VmDesired) {
    world.ok(CommandBody::VmDesire(VmDesire { vm, desired, stop: StopTerms::within_ms(5000) }));
}

#[test]
fn a_machine_is_made_run_restarted_once_stopped_and_forgotten() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.vm("web");
    assert_eq!(action(&world, vm), Some(VmAction::Run));
    world.see(host, seen(vm, 1, VmState::Running));
    world.ok(CommandBody::VmRestart(VmRestart { vm, stop: StopTerms::within_ms(7) }));
    assert_eq!(action(&world, vm), Some(VmAction::Restart { request: 1, stop: StopTerms::within_ms(7) }));
    world.see(host, seen(vm, 1, VmState::Stopped));
    assert_eq!(
        action(&world, vm),
        Some(VmAction::Restart { request: 1, stop: StopTerms::within_ms(7) }),
        "stopped on the way"
    );
    let mut restarted = seen(vm, 1, VmState::Running);
    restarted.restarted = 1;
    world.see(host, restarted);
    assert_eq!(action(&world, vm), Some(VmAction::Run));
    desire(&mut world, vm, VmDesired::Stopped);
    assert_eq!(action(&world, vm), Some(VmAction::Stop(StopTerms::within_ms(5000))));
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
        assert_eq!(world.state.vm(vm).unwrap().desired, VmDesired::Running);
        // Whether or not anybody ever saw it run.
        world.see(host, VmObservation { ran: true, ..seen(vm, 1, VmState::Stopped) });
        assert_eq!(world.state.vm(vm).unwrap().desired, then);
    }
}

#[test]
fn a_stop_and_a_start_in_quick_succession_end_running() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.running_vm("web");
    desire(&mut world, vm, VmDesired::Stopped);
    desire(&mut world, vm, VmDesired::Running);
    world.see_late(host, seen(vm, 1, VmState::Stopped));
    assert_eq!(action(&world, vm), Some(VmAction::Run), "it was said before the last wish was heard");
    assert!(!vms::is_settled(world.state.vm(vm).unwrap()));
    world.see(host, seen(vm, 1, VmState::Running));
    assert!(vms::is_settled(world.state.vm(vm).unwrap()));
}

#[test]
fn every_wish_has_a_generation_of_its_own() {
    let (mut world, _) = World::with_hosts(1);
    let (vm, host) = world.running_vm("web");
    let asked = |world: &World| vms::wanted(world.state.vm(vm).unwrap()).unwrap();
    let (first, before) = (asked(&world), world.state.vm(vm).unwrap().generation);
    desire(&mut world, vm, VmDesired::Running);
    assert!(first.is_older_than(&asked(&world)), "somebody who does not see it run may start it again");
    world.see_late(host, VmObservation { generation: before, ran: true, ..seen(vm, 1, VmState::Stopped) });
    assert_eq!(action(&world, vm), Some(VmAction::Run), "that is the run before");
    let second = asked(&world);
    desire(&mut world, vm, VmDesired::Stopped);
    assert!(second.is_older_than(&asked(&world)));
    world.see(host, seen(vm, 1, VmState::Stopped));
    world.see_late(host, seen(vm, 1, VmState::Running));
    assert_eq!(world.state.vm(vm).unwrap().state, VmState::Stopped, "a report that comes late is not taken");
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
    desire(&mut world, new, VmDesired::Deleted);
    assert_eq!(news(&world, &[]), missing, "the order to make it may still come, after that to delete it");
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
    assert_eq!(
        attempts::plan(&world.state, world.now, 64, 10).places,
        [],
        "no second attempt while the first may live"
    );
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
    spec.retry.max_retries = max_retries;
    spec.retry.backoff.jitter_percent = 0;
    world.job(spec)
}

fn execute_command(world: &mut World, max_retries: u32) -> FireKey {
    let id = command_job(world, max_retries);
    match world.ok(CommandBody::JobExecute(JobExecute { id, at: NOON, node: None })) {
        Applied::FireCommitted(fire) => fire,
        other => panic!("{other:?}"),
    }
}

fn start(world: &mut World, fire: FireKey) -> AttemptReport {
    let plan = attempts::plan(&world.state, world.now, 64, 100);
    let host = plan.places.iter().find(|place| place.fire == fire).unwrap().host;
    let Applied::AttemptStarted { attempt, epoch } =
        world.ok(CommandBody::AttemptPlace(AttemptPlace { fire, host }))
    else {
        panic!("not started");
    };
    let (to, start) = attempts::start(&world.state, fire, Lease { duration_ms: 30_000 }).unwrap();
    assert_eq!((to, start.attempt, start.epoch), (host, attempt, epoch));
    let end = AttemptEnd {
        outcome: AttemptOutcome::Exited(1),
        started_at: Some(world.now),
        ended_at: world.now,
        output: Output::default(),
        result: None,
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
        assert!(attempts::plan(&world.state, world.now, 64, 9).is_empty());
        assert_eq!(attempts::next_due(&world.state, world.now), Some(UnixMillis(world.now.0 + wait_ms)));
        world.now.0 += wait_ms;
        assert_eq!(attempts::plan(&world.state, world.now, 64, 9).places[0].fire, fire);
        world.ok(CommandBody::VmObserve(novacron_core::command::VmObserve {
            host: HostId::from_u128(1),
            observations: Vec::new(),
        }));
    }
    let report = start(&mut world, fire);
    world.ok(CommandBody::AttemptEnd(Box::new(report)));
    let record = world.state.fire(fire).unwrap();
    assert_eq!((record.state, record.attempts, record.epoch), (FireState::Failed, 3, Epoch(3)));
    let job = world.state.pulse(fire.job).unwrap();
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
    let put =
        |n: i64| CommandBody::JobExecute(JobExecute { id: fire.job, at: UnixMillis(NOON.0 + n), node: None });
    for n in 1..=1000 {
        world.ok(put(n));
    }
    assert_eq!(world.state.fires().len(), 1000, "the one that had ended made room");
    assert!(world.state.attempts().is_empty(), "attempts go with their fire");
    assert_eq!(
        world.refused(put(1001)).code,
        ProblemCode::Conflict,
        "fires that have not ended do not make room"
    );
}

#[test]
fn a_cancelled_fire_waits_no_longer_or_is_killed() {
    let (mut world, _) = World::with_hosts(1);
    let waiting = execute_command(&mut world, 3);
    world.ok(CommandBody::FireCancel { fire: waiting });
    assert_eq!(world.state.fire(waiting).unwrap().state, FireState::Cancelled);
    world.refused(CommandBody::FireCancel { fire: waiting });
    let again = CommandBody::JobExecute(JobExecute { id: waiting.job, at: NOON, node: None });
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
        let executed = world.ok(CommandBody::JobExecute(JobExecute { id, at: NOON, node: None }));
        let Applied::FireCommitted(fire) = executed else { panic!("no fire") };
        start(&mut world, fire);
        places.push(world.state.fire(fire).unwrap().host.unwrap());
    }
    assert_eq!(places.iter().filter(|host| **host == places[0]).count(), 2);
}

#[test]
fn the_ledgers_time_never_runs_backwards() {
    let (mut world, _) = World::with_hosts(1);
    world.now.0 -= 60_000;
    let (vm, _) = world.vm("web");
    assert_eq!(world.state.vm(vm).unwrap().created_at, NOON);
    assert_eq!(schedule::next_due(&world.state), None);
}
