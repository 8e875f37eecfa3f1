//! What becomes of ticks that nobody was there to commit, of those in a pause, and of the record of old ones.

use crate::world::{NOON, World, command_target, job_spec};
use novacron_common::{
    api::{FireState, TickState},
    ids::JobId,
    spec::{JobSpec, Misfire, MisfirePolicy},
    units::UnixMillis,
};
use novacron_core::{
    Applied, CommandBody,
    command::JobUpdate,
    record::{HistoryRecord, TickFate, TickReason},
    schedule, views,
};

const MINUTE: i64 = 60_000;

fn minutely(policy: MisfirePolicy, max: u32, window_ms: Option<u64>) -> JobSpec {
    JobSpec { misfire: Misfire { policy, max, window_ms }, ..job_spec("tick", "* * * * *") }
}

/// Commits what is due, as the scheduler does; minutes from the first tick.
fn run_due(world: &mut World, first: UnixMillis) -> Vec<i64> {
    let mut fired = Vec::new();
    for commit in schedule::due(&world.state, world.now, 100) {
        match world.ok(CommandBody::FireCommit(commit)) {
            Applied::TicksCommitted(keys) => fired.extend(keys.iter().map(|key| key.scheduled_at)),
            other => panic!("{other:?}"),
        }
    }
    fired.iter().map(|at: &UnixMillis| (at.0 - first.0) / MINUTE).collect()
}

/// A job that was not looked at for ten minutes and a bit: 11 ticks are due, the last two of them hardly late.
fn after_an_outage(spec: JobSpec) -> (World, JobId, Vec<i64>) {
    let (mut world, _) = World::with_hosts(1);
    let job = world.job(spec);
    let first = world.state.pulse(job).unwrap().next_at.unwrap();
    world.now = UnixMillis(first.0 + 10 * MINUTE + 1000);
    let fired = run_due(&mut world, first);
    assert!(world.state.pulse(job).unwrap().next_at > Some(world.now), "nothing is due any more");
    (world, job, fired)
}

#[test]
fn each_misfire_policy_fires_and_records_what_it_says() {
    use MisfirePolicy::{All, Last, None as Never};
    use TickReason::{Misfire as Policy, StartDeadline, Superseded, TooOld};
    let deadline = |spec: JobSpec, ms| JobSpec { start_deadline_ms: Some(ms), ..spec };
    let minutes = |n: u64| Some(n * 60_000);
    let table = [
        (minutely(Never, 1, None), vec![10], Some((9, Policy))),
        (minutely(Last, 1, None), vec![10], Some((9, Superseded))),
        (minutely(All, 100, None), (0..=10).collect(), None),
        (minutely(All, 3, None), vec![7, 8, 9, 10], Some((6, Superseded))),
        (minutely(All, 100, minutes(5)), (6..=10).collect(), Some((5, TooOld))),
        (deadline(minutely(All, 100, None), 3 * 60_000), vec![8, 9, 10], Some((7, StartDeadline))),
        (deadline(minutely(Last, 1, None), 500), vec![], Some((10, StartDeadline))),
    ];
    for (spec, expected, skipped) in table {
        let shown = format!("{:?} {:?}", spec.misfire, spec.start_deadline_ms);
        let (world, job, fired) = after_an_outage(spec);
        assert_eq!(fired, expected, "{shown}");
        let run = world.state.history(job).map(|history| history.runs.as_slice());
        let expected = skipped.map(|(last, reason)| (last + 1, TickFate::None(reason)));
        let found = run.map(|runs| {
            assert_eq!(runs.len(), 1);
            (runs[0].count, runs[0].fate)
        });
        assert_eq!(found, expected, "{shown}");
        let pulse = world.state.pulse(job).unwrap();
        assert_eq!(pulse.fires + pulse.missed, 11, "every tick is accounted for: {shown}");
    }
}

#[test]
fn a_month_of_seconds_is_not_walked_through() {
    let (mut world, _) = World::with_hosts(1);
    let misfire = Misfire { policy: MisfirePolicy::All, max: 500, window_ms: None };
    let job = world.job(JobSpec { misfire, ..job_spec("tick", "* * * * * *") });
    world.now.0 += 30 * 24 * 3_600_000;
    let commit = schedule::due(&world.state, world.now, 9).remove(0);
    assert_eq!(commit.fire.len(), 561, "the last minute, and 500 before it");
    assert!(commit.fire.is_sorted() && commit.until == world.now);
    world.ok(CommandBody::FireCommit(commit));
    assert_eq!(world.state.pulse(job).unwrap().missed, schedule::SKIPS_COUNTED_MAX, "a lower bound");
}

fn switch(world: &mut World, job: JobId, enabled: bool) {
    let (record, pulse) = (world.state.job(job).unwrap(), world.state.pulse(job).unwrap());
    let spec = JobSpec { enabled, ..record.spec.clone() };
    let update = JobUpdate::new(record, pulse, spec, world.now);
    world.ok(CommandBody::JobUpdate(Box::new(update)));
}

#[test]
fn ticks_of_a_pause_are_on_record_as_skipped() {
    let (mut world, _) = World::with_hosts(1);
    let job = world.job(job_spec("tick", "* * * * *"));
    let first = world.state.pulse(job).unwrap().next_at.unwrap();
    // The first tick is due, and not committed yet, when the job is paused.
    world.now = UnixMillis(first.0 + 1000);
    switch(&mut world, job, false);
    assert_eq!(schedule::next_due(&world.state), None);
    world.now.0 += 5 * MINUTE;
    switch(&mut world, job, true);
    let pulse = *world.state.pulse(job).unwrap();
    assert_eq!((pulse.skipped, pulse.missed, pulse.fires), (6, 0, 0));
    assert_eq!(pulse.next_at, Some(UnixMillis(first.0 + 6 * MINUTE)));
    let shown = views::ledger(&world.state, job, 10);
    assert_eq!((shown.ticks[0].tick, shown.ticks[0].count), (TickState::Skipped, 6));
    assert_eq!(shown.ticks[0].reason.as_deref(), Some("the job was paused"));
    world.now.0 += MINUTE;
    assert_eq!(run_due(&mut world, first), [6]);
    world.assert_reloads();
}

#[test]
fn the_ledger_tells_every_tick_newest_first() {
    let (mut world, job, _) = after_an_outage(minutely(MisfirePolicy::Last, 1, None));
    world.now.0 += MINUTE;
    run_due(&mut world, NOON);
    let shown = views::ledger(&world.state, job, 100);
    let ticks: Vec<_> = shown.ticks.iter().map(|t| (t.tick, t.count, t.fire)).collect();
    let done = Some(FireState::Succeeded);
    assert_eq!(
        ticks,
        [(TickState::Fired, 1, done), (TickState::Fired, 1, done), (TickState::Missed, 10, None)]
    );
    assert_eq!(shown.ticks[1].late_ms, 1000);
    assert!(shown.ticks[2].reason.as_ref().unwrap().contains("no coordinator was there"));
    assert!(!shown.more);
    let cut = views::ledger(&world.state, job, 1);
    assert_eq!((cut.ticks.len(), cut.more), (1, true));
}

/// Bytes that the ledger would store.
fn stored(world: &World) -> usize {
    world.state.rows().map(|(_, key, value)| key.len() + value.len()).sum()
}

/// The most memory that this process has ever held, KiB (`VmHWM` of proc(5)).
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What a scheduler makes ready half a second ahead, and what has become of the jobs when it is proposed.
#[test]
fn ticks_made_ready_before_their_instant_fire_unless_their_jobs_have_changed() {
    let (mut world, _) = World::with_hosts(1);
    let [kept, paused, removed] =
        ["kept", "paused", "removed"].map(|job| world.job(job_spec(job, "* * * * *")));
    let instant = schedule::next_due(&world.state).unwrap();
    world.now = UnixMillis(instant.0 - 500);
    let (mut ready, place) = schedule::due_behind(&world.state, instant, None, 2);
    assert_eq!(ready.iter().map(|tick| tick.job).collect::<Vec<_>>(), [kept, paused]);
    let (rest, place) = schedule::due_behind(&world.state, instant, place, 2);
    assert_eq!(rest.iter().map(|tick| tick.job).collect::<Vec<_>>(), [removed]);
    assert_eq!(schedule::due_behind(&world.state, instant, place, 2), (vec![], None));
    assert_eq!(schedule::due(&world.state, world.now, 9), [], "nothing is due yet");
    ready.extend(rest);
    switch(&mut world, paused, false);
    let late = world.job(job_spec("late", "* * * * *"));
    world.ok(CommandBody::JobRemove { id: removed });
    world.now = instant;
    let outcomes: Vec<_> = ready.into_iter().map(|tick| world.apply(CommandBody::FireCommit(tick))).collect();
    assert!(
        matches!(&outcomes[..], [Applied::TicksCommitted(fires), Applied::Refused(_), Applied::Refused(_)]
            if fires.len() == 1 && fires[0].job == kept && fires[0].scheduled_at == instant),
        "{outcomes:?}"
    );
    let left = schedule::due(&world.state, world.now, 9);
    assert_eq!(left.iter().map(|tick| tick.job).collect::<Vec<_>>(), [late]);
    assert_eq!(world.state.pulse(paused).unwrap().fires, 0);
}

/// Ten million with NOVACRON_SOAK=1, fewer without: what is kept does not depend on how many there were.
#[test]
fn what_is_kept_of_a_job_stays_the_same_size_for_ever() {
    let fires: u32 = if std::env::var_os("NOVACRON_SOAK").is_some() { 10_000_000 } else { 50_000 };
    let (mut world, _) = World::with_hosts(1);
    let mut spec = job_spec("tick", "* * * * * *");
    spec.retention.fires = 50;
    let job = world.job(spec);
    let mut peak = 0;
    for n in 1..=fires {
        // Every 97th second nobody is there for two minutes, so that runs are broken up again and again.
        world.now.0 += if n % 97 == 0 { 120_000 } else { 1000 };
        for commit in schedule::due(&world.state, world.now, 10) {
            world.ok(CommandBody::FireCommit(commit));
        }
        world.state.take_changes();
        if n == fires / 2 {
            peak = stored(&world);
        }
        if n == fires / 10 || n == fires {
            println!(
                "after {n} fires: {} bytes stored, at most {} KiB in memory",
                stored(&world),
                peak_kib()
            );
        }
    }
    assert!(stored(&world) <= peak + 64, "{} bytes at half time, {} at the end", peak, stored(&world));
    let history = world.state.history(job).unwrap();
    assert_eq!(history.runs.len(), HistoryRecord::RUNS_MAX);
    let pulse = world.state.pulse(job).unwrap();
    let kept = u64::from(world.state.index().fires().kept_of(job));
    let fired = |fate| matches!(fate, TickFate::Succeeded);
    let runs: u64 = history.runs.iter().filter(|run| fired(run.fate)).map(|run| run.count).sum();
    let missed: u64 = history.runs.iter().filter(|run| !fired(run.fate)).map(|run| run.count).sum();
    assert_eq!(history.older.succeeded + runs + kept, pulse.fires, "every fire is counted once");
    assert_eq!(history.older.missed + missed, pulse.missed, "every missed tick is counted once");
}

#[test]
fn fires_go_with_their_age_too() {
    let (mut world, _) = World::with_hosts(1);
    let mut spec = job_spec("tick", "0 * * * *");
    spec.retention.age_ms = 24 * 3_600_000;
    spec.target = command_target();
    let job = world.job(spec);
    world.now = world.state.pulse(job).unwrap().next_at.unwrap();
    run_due(&mut world, NOON);
    let waits = world.state.index().fires().live_of(job).next().unwrap();
    world.now.0 += 3 * 24 * 3_600_000;
    run_due(&mut world, NOON);
    assert!(world.state.fire(waits).is_some(), "a fire that has not ended stays");
    world.ok(CommandBody::FireCancel { fire: waits });
    world.now.0 += 25 * 3_600_000;
    run_due(&mut world, NOON);
    assert!(world.state.fire(waits).is_none());
    assert!(views::ledger(&world.state, job, 10).ticks.iter().any(|t| t.fire == Some(FireState::Cancelled)));
}
