//! A job's own rules: how many at a time, who goes first, when a try is worth another, what is late.

use crate::world::{NOON, World, command_target, job_spec, name};
use novacron_common::{
    api::{EventKind, FireState, ProblemCode},
    ids::{FireKey, HostId, JobId},
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    spec::{Concurrency, JobSpec},
    units::{Epoch, UnixMillis},
};
use novacron_core::{
    Applied, CommandBody, attempts,
    command::{AttemptPlace, AttemptSettled, JobExecute},
    record::{TickFate, TickReason},
    schedule, views,
};

fn working(job: &str) -> JobSpec {
    JobSpec { target: command_target(), ..job_spec(job, "* * * * * *") }
}

fn execute(world: &mut World, id: JobId) -> FireKey {
    match world.ok(CommandBody::JobExecute(JobExecute { id, at: world.now, node: None })) {
        Applied::FireCommitted(fire) => fire,
        other => panic!("{other:?}"),
    }
}

/// One second on, and what is due then.
fn tick(world: &mut World) -> Vec<FireKey> {
    world.now.0 += 1000;
    let due = schedule::due(&world.state, world.now, 10);
    due.into_iter()
        .flat_map(|commit| match world.ok(CommandBody::FireCommit(commit)) {
            Applied::TicksCommitted(keys) => keys,
            other => panic!("{other:?}"),
        })
        .collect()
}

fn ready(world: &World) -> Vec<FireKey> {
    attempts::plan(&world.state, world.now, 1000, 1000).places.iter().map(|place| place.fire).collect()
}

fn start(world: &mut World, fire: FireKey, host: HostId) {
    world.ok(CommandBody::AttemptPlace(AttemptPlace { fire, host }));
}

fn end(world: &mut World, fire: FireKey, outcome: AttemptOutcome) {
    let epoch = world.state.fire(fire).unwrap().epoch;
    let report = report(world, fire, epoch, outcome);
    world.ok(report);
}

/// What a host says of the attempt under way.
fn report(world: &World, fire: FireKey, epoch: Epoch, outcome: AttemptOutcome) -> CommandBody {
    let attempt = world.state.fire(fire).unwrap().attempt().unwrap();
    let end = AttemptEnd {
        outcome,
        started_at: None,
        ended_at: world.now,
        output: Output::default(),
        result: None,
    };
    CommandBody::AttemptEnd(Box::new(AttemptReport { attempt, epoch, end }))
}

#[test]
fn a_report_under_an_epoch_that_was_never_issued_or_is_over_changes_nothing() {
    let (mut world, hosts) = World::with_hosts(1);
    let id = world.job(working("work"));
    let fire = execute(&mut world, id);
    start(&mut world, fire, hosts[0]);
    let issued = world.state.fire(fire).unwrap().epoch;
    for epoch in [Epoch(issued.0 - 1), issued.next(), Epoch(u64::MAX)] {
        let (said, before) =
            (report(&world, fire, epoch, AttemptOutcome::Exited(0)), world.state.rows().collect::<Vec<_>>());
        assert_eq!(world.apply(said), Applied::AlreadySo, "{epoch}");
        assert_eq!(before, world.state.rows().collect::<Vec<_>>(), "{epoch}");
    }
    end(&mut world, fire, AttemptOutcome::Exited(0));
    assert_eq!(state_of(&world, fire), FireState::Succeeded);
}

fn state_of(world: &World, fire: FireKey) -> FireState {
    world.state.fire(fire).unwrap().state
}

#[test]
fn forbid_skips_ticks_while_a_fire_has_not_ended() {
    let (mut world, hosts) = World::with_hosts(1);
    let job = world.job(JobSpec { concurrency: Concurrency::Forbid, ..working("a") });
    let first = tick(&mut world)[0];
    start(&mut world, first, hosts[0]);
    assert_eq!((tick(&mut world), tick(&mut world)), (vec![], vec![]));
    let run = world.state.history(job).unwrap().runs[0];
    assert_eq!((run.fate, run.count), (TickFate::None(TickReason::Overlap), 2));
    let by_hand = CommandBody::JobExecute(JobExecute { id: job, at: world.now, node: None });
    assert_eq!(world.refused(by_hand).code, ProblemCode::Conflict);
    end(&mut world, first, AttemptOutcome::Exited(0));
    assert_eq!(tick(&mut world).len(), 1);
}

#[test]
fn queue_runs_one_after_the_other_and_has_an_end() {
    let (mut world, hosts) = World::with_hosts(2);
    let job = world.job(JobSpec { concurrency: Concurrency::Queue { max: 2 }, ..working("a") });
    let fires: Vec<_> = (0..4).flat_map(|_| tick(&mut world)).collect();
    assert_eq!(fires.len(), 3, "one that may run, two that wait; the fourth tick is skipped");
    assert_eq!(world.state.history(job).unwrap().runs[0].fate, TickFate::None(TickReason::QueueFull));
    for (n, fire) in fires.iter().enumerate() {
        assert_eq!(ready(&world), [*fire], "in order");
        start(&mut world, *fire, hosts[n % 2]);
        assert_eq!(ready(&world), [], "one at a time");
        end(&mut world, *fire, AttemptOutcome::Exited(0));
    }
}

#[test]
fn replace_waits_until_the_earlier_attempt_is_gone() {
    let (mut world, hosts) = World::with_hosts(1);
    world.job(JobSpec { concurrency: Concurrency::Replace, ..working("a") });
    let first = tick(&mut world)[0];
    start(&mut world, first, hosts[0]);
    let second = tick(&mut world)[0];
    assert!(attempts::is_to_be_killed(world.state.fire(first).unwrap()));
    let third = tick(&mut world)[0];
    assert_eq!(state_of(&world, second), FireState::Cancelled, "it had not begun");
    assert_eq!(ready(&world), [], "the first may still be alive");
    end(&mut world, first, AttemptOutcome::Killed);
    assert_eq!((state_of(&world, first), ready(&world)), (FireState::Cancelled, vec![third]));
}

#[test]
fn the_highest_priority_goes_first_and_a_host_takes_so_many_at_a_time() {
    let (mut world, hosts) = World::with_hosts(2);
    let jobs: Vec<_> = [1, 9, 5]
        .map(|priority| world.job(JobSpec { priority, ..working(&format!("p{priority}")) }))
        .to_vec();
    for job in jobs.iter().chain(&jobs).chain(&jobs) {
        execute(&mut world, *job);
        world.now.0 += 1;
    }
    let plan = attempts::plan(&world.state, world.now, 2, 100);
    let order: Vec<_> = plan.places.iter().map(|place| place.fire.job).collect();
    assert_eq!((order, plan.short), (vec![jobs[1], jobs[1], jobs[1], jobs[2]], true));
    let on = |host: HostId| plan.places.iter().filter(|place| place.host == host).count();
    assert_eq!((on(hosts[0]), on(hosts[1])), (2, 2));
    for place in plan.places {
        world.ok(CommandBody::AttemptPlace(place));
    }
    let full = attempts::plan(&world.state, world.now, 2, 100);
    assert!(full.is_empty() && full.short);
}

#[test]
fn jitter_delays_the_start_and_not_the_commit() {
    let (mut world, _) = World::with_hosts(1);
    world.job(JobSpec { jitter_ms: 60_000, ..working("a") });
    let fires: Vec<_> = (0..20).flat_map(|_| tick(&mut world)).collect();
    assert_eq!(fires.len(), 20);
    for fire in fires {
        let record = world.state.fire(fire).unwrap();
        let delay = attempts::jitter(fire, 60_000);
        assert_eq!(record.not_before, fire.scheduled_at.plus(delay).max(record.committed_at));
    }
    assert!(ready(&world).len() < 20);
}

#[test]
fn a_try_on_another_host_where_the_job_asks_for_it() {
    let (mut world, hosts) = World::with_hosts(2);
    let mut spec = working("a");
    spec.retry.max_retries = 3;
    spec.retry.other_host = true;
    let job = world.job(spec);
    let fire = execute(&mut world, job);
    for host in [hosts[0], hosts[1], hosts[0]] {
        let plan = attempts::plan(&world.state, world.now, 9, 9);
        assert_eq!(plan.places, [AttemptPlace { fire, host }]);
        start(&mut world, fire, host);
        end(&mut world, fire, AttemptOutcome::Exited(1));
        world.now.0 += 400_000;
        world.job(job_spec(&format!("clock-{}", world.now.0), "@daily"));
    }
    world.down(hosts[1]);
    assert_eq!(ready(&world), [fire], "better the same host than none");
}

#[test]
fn a_full_host_uses_up_no_try_and_another_is_asked_next() {
    let (mut world, hosts) = World::with_hosts(2);
    let full = || AttemptOutcome::Declined { reason: "full".into() };
    let mut spec = JobSpec { start_deadline_ms: Some(3_600_000), ..working("a") };
    spec.retry.max_retries = 1;
    world.job(spec);
    let fire = tick(&mut world)[0];
    for host in [hosts[0], hosts[1], hosts[0], hosts[1]] {
        let plan = attempts::plan(&world.state, world.now, 9, 9);
        assert_eq!(plan.places, [AttemptPlace { fire, host }]);
        start(&mut world, fire, host);
        end(&mut world, fire, full());
        assert_eq!(world.state.attempts().len(), 1, "of several in a row one is kept");
        assert!(attempts::next_alarm(&world.state).is_some(), "it has not started yet");
        // The clock of the ledger goes on with commands.
        world.now.0 += 15_000;
        world.job(job_spec(&format!("clock-{}", world.now.0), "@daily"));
    }
    start(&mut world, fire, hosts[0]);
    end(&mut world, fire, AttemptOutcome::Exited(1));
    assert_eq!((state_of(&world, fire), attempts::next_alarm(&world.state)), (FireState::Waiting, None));
    world.now.0 += 400_000;
    world.job(job_spec("clock", "@daily"));
    start(&mut world, fire, hosts[0]);
    end(&mut world, fire, full());
    assert_eq!(state_of(&world, fire), FireState::Waiting, "the second try has not been made yet");
    world.now.0 += 15_000;
    world.job(job_spec("clock-2", "@daily"));
    start(&mut world, fire, hosts[1]);
    end(&mut world, fire, AttemptOutcome::Exited(1));
    assert_eq!(state_of(&world, fire), FireState::Failed);
    let record = world.state.fire(fire).unwrap();
    assert_eq!((record.attempts, record.tries(), world.state.attempts().len()), (7, 2, 4));
    world.assert_reloads();
}

#[test]
fn a_fire_that_waits_for_room_is_cancelled_at_once() {
    let (mut world, hosts) = World::with_hosts(1);
    let job = world.job(working("a"));
    let fire = execute(&mut world, job);
    start(&mut world, fire, hosts[0]);
    end(&mut world, fire, AttemptOutcome::Declined { reason: "full".into() });
    world.ok(CommandBody::FireCancel { fire });
    assert_eq!((state_of(&world, fire), ready(&world)), (FireState::Cancelled, vec![]));
}

#[test]
fn a_fire_that_no_host_takes_in_time_is_missed_and_says_so() {
    let (mut world, _) = World::with_hosts(1);
    let spec = JobSpec { start_deadline_ms: Some(3000), expected_by_ms: Some(60_000), ..working("a") };
    let job = world.job(spec);
    let fire = tick(&mut world)[0];
    let by = UnixMillis(fire.scheduled_at.0 + 3000);
    assert_eq!(attempts::next_alarm(&world.state), Some(by));
    assert_eq!(world.apply(CommandBody::FireAlarm { fire }), Applied::AlreadySo, "too early");
    world.now = by;
    assert_eq!(attempts::alarms(&world.state, by, 9), [fire]);
    world.ok(CommandBody::FireAlarm { fire });
    assert_eq!((state_of(&world, fire), ready(&world)), (FireState::Missed, vec![]));
    let pulse = world.state.pulse(job).unwrap();
    assert_eq!(
        (pulse.missed, pulse.overdue),
        (1, 1),
        "it will not succeed any more: that is an alarm at once"
    );
}

#[test]
fn what_has_not_succeeded_when_it_was_expected_raises_an_alarm_until_one_succeeds() {
    let (mut world, hosts) = World::with_hosts(1);
    let job = world.job(JobSpec { expected_by_ms: Some(2500), ..working("a") });
    let late = tick(&mut world)[0];
    start(&mut world, late, hosts[0]);
    world.now.0 += 2500;
    for fire in attempts::alarms(&world.state, world.now, 9) {
        world.ok(CommandBody::FireAlarm { fire });
    }
    assert!(world.state.fire(late).unwrap().overdue);
    assert_eq!(world.state.overdue(job).unwrap().since, late.scheduled_at);
    assert_eq!(attempts::alarms(&world.state, world.now, 9), [], "once is enough");
    end(&mut world, late, AttemptOutcome::Exited(0));
    assert_eq!((world.state.pulse(job).unwrap().overdue, world.state.overdue(job)), (1, None));
}

/// The overdue events among what changed since the last call: the instant that each was raised for and the number,
/// `None` once it is over.
fn alarms_told(world: &mut World, job: JobId) -> Vec<Option<(UnixMillis, u64)>> {
    let changes = world.state.take_changes();
    let events = changes.iter().filter_map(|change| views::changed(&world.state, change).unwrap());
    let alarms = events.filter(|event| event.kind == EventKind::Overdue).map(|event| {
        assert_eq!(event.id, job.to_string());
        event.object.map(|object| match object {
            views::Object::Overdue(alarm) => (alarm.since, alarm.count),
            other => panic!("{other:?}"),
        })
    });
    alarms.collect()
}

#[test]
fn an_overdue_alarm_is_an_event_of_its_own_when_it_begins_grows_and_ends() {
    let (mut world, hosts) = World::with_hosts(1);
    let spec = JobSpec { expected_by_ms: Some(2500), concurrency: Concurrency::Forbid, ..working("a") };
    let job = world.job(spec);
    let late = tick(&mut world)[0];
    start(&mut world, late, hosts[0]);
    assert_eq!(alarms_told(&mut world, job), []);
    world.now.0 += 2500;
    world.ok(CommandBody::FireAlarm { fire: late });
    assert_eq!(alarms_told(&mut world, job), [Some((late.scheduled_at, 1))]);
    // Ticks that the job's rules skip will not succeed either.
    let skipped = tick(&mut world);
    let (since, count) = alarms_told(&mut world, job)[0].unwrap();
    assert_eq!((skipped, since), (vec![], late.scheduled_at));
    assert!(count > 1, "{count}");
    assert_eq!(world.state.overdue(job).unwrap().latest, world.state.pulse(job).unwrap().last_tick.unwrap());
    end(&mut world, late, AttemptOutcome::Exited(0));
    assert_eq!(alarms_told(&mut world, job), [None]);
    let next = tick(&mut world)[0];
    start(&mut world, next, hosts[0]);
    end(&mut world, next, AttemptOutcome::Exited(0));
    assert_eq!(alarms_told(&mut world, job), [], "what goes well is no news");
}

#[test]
fn the_alarm_of_a_job_goes_with_it() {
    let (mut world, _) = World::with_hosts(1);
    let job = world.job(JobSpec { expected_by_ms: Some(1000), ..working("a") });
    let late = tick(&mut world)[0];
    world.now.0 += 1000;
    world.ok(CommandBody::FireAlarm { fire: late });
    assert_eq!(alarms_told(&mut world, job), [Some((late.scheduled_at, 1))]);
    world.ok(CommandBody::JobRemove { id: job });
    assert_eq!((alarms_told(&mut world, job), world.state.overdue(job)), (vec![None], None));
}

#[test]
fn a_deleted_job_goes_with_its_last_attempt() {
    let (mut world, hosts) = World::with_hosts(1);
    let job = world.job(working("a"));
    let (runs, waits) = (execute(&mut world, job), execute(&mut world, job));
    start(&mut world, runs, hosts[0]);
    world.ok(CommandBody::JobRemove { id: job });
    assert!(attempts::is_to_be_killed(world.state.fire(runs).unwrap()));
    assert_eq!(state_of(&world, waits), FireState::Cancelled);
    assert!(world.state.index().job_named(&name("a")).is_some(), "its name is taken until then");
    assert_eq!(world.apply(CommandBody::JobRemove { id: job }), Applied::AlreadySo);
    let again = CommandBody::JobExecute(JobExecute { id: job, at: NOON, node: None });
    assert_eq!(world.refused(again).code, ProblemCode::Conflict);
    assert_eq!(tick(&mut world), [], "no more fires come of it");
    end(&mut world, runs, AttemptOutcome::Killed);
    assert_eq!((world.state.job(job), world.state.fires().len(), world.state.attempts().len()), (None, 0, 0));
    assert_eq!((world.state.pulse(job), world.state.history(job)), (None, None));
    world.assert_reloads();
}

#[test]
fn nothing_is_retried_while_a_host_is_out_of_sight_until_it_is_fenced() {
    let (mut world, hosts) = World::with_hosts(2);
    let mut spec = working("a");
    spec.retry.max_retries = 1;
    let job = world.job(spec);
    let fire = execute(&mut world, job);
    start(&mut world, fire, hosts[0]);
    let fence = CommandBody::HostFence { host: hosts[0] };
    assert_eq!(world.refused(fence.clone()).code, ProblemCode::Conflict, "it is up");
    let lost_at = world.now;
    world.down(hosts[0]);
    let record = world.state.fire(fire).unwrap();
    assert_eq!((record.state, record.unknown_since), (FireState::Unknown, Some(lost_at)));
    world.now.0 += 3_600_000;
    assert_eq!(ready(&world), [], "it may still run there");
    world.ok(fence);
    let attempt = world.state.attempts().iter().next().unwrap().key;
    assert_eq!(world.state.index().fires().orphans().collect::<Vec<_>>(), [(hosts[0], attempt)]);
    world.now.0 += 10_000;
    let plan = attempts::plan(&world.state, world.now.plus(std::time::Duration::from_secs(9)), 9, 9);
    assert_eq!(plan.places, [AttemptPlace { fire, host: hosts[1] }]);
    world.ok(CommandBody::AttemptSettled(AttemptSettled { attempt }));
    assert_eq!(world.state.index().fires().orphans().count(), 0);
}

#[test]
fn a_host_that_comes_back_goes_on_with_what_it_runs() {
    let (mut world, hosts) = World::with_hosts(1);
    let job = world.job(working("a"));
    let fire = execute(&mut world, job);
    start(&mut world, fire, hosts[0]);
    world.down(hosts[0]);
    world.up(hosts[0], "a");
    let record = world.state.fire(fire).unwrap();
    assert_eq!((record.state, record.unknown_since, record.attempts), (FireState::Running, None, 1));
}
