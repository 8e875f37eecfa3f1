//! No tick is lost without a trace and none fires twice: over outages, clocks set back, leaders that propose from an
//! old view, edits at the same time, and nights on which the wall clock jumps.

use crate::world::{World, job_spec};
use novacron_common::{
    ids::JobId,
    spec::{Dst, Fold, Gap, JobSpec, Misfire, MisfirePolicy},
    units::UnixMillis,
};
use novacron_core::{
    Applied, CommandBody,
    command::JobUpdate,
    schedule::{due, next_after},
};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// What happens to the scheduler.
#[derive(Debug, Clone)]
enum Event {
    /// Seconds go by, and nobody looks at what is due.
    Pass(i64),
    /// The clock of whoever leads is set back by so many seconds, or another with such a clock leads.
    SetBack(i64),
    /// What is due is committed, until nothing is.
    Commit,
    /// What is due is computed, and held back: the proposal of a leader that is about to lose its place.
    HoldDue,
    /// An edit that leaves the ticks as they are is computed, and held back.
    HoldEdit,
    /// All that was held back is proposed.
    Release,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (1..90i64).prop_map(Event::Pass),
        2 => (60..7200i64).prop_map(Event::Pass),
        1 => (7200..40_000i64).prop_map(Event::Pass),
        1 => (1..5000i64).prop_map(Event::SetBack),
        5 => Just(Event::Commit),
        2 => Just(Event::HoldDue),
        1 => Just(Event::HoldEdit),
        2 => Just(Event::Release),
    ]
}

fn dst() -> impl Strategy<Value = Dst> {
    let gap = prop_oneof![Just(Gap::Skip), Just(Gap::RunAtGapEnd), Just(Gap::RunBefore)];
    let fold = prop_oneof![Just(Fold::First), Just(Fold::Second), Just(Fold::Both)];
    (gap, fold).prop_map(|(gap, fold)| Dst { gap, fold })
}

fn misfire() -> impl Strategy<Value = Misfire> {
    let policy = prop_oneof![Just(MisfirePolicy::None), Just(MisfirePolicy::Last), Just(MisfirePolicy::All)];
    let window = prop_oneof![3 => Just(None), 1 => (10_000..10_000_000u64).prop_map(Some)];
    (policy, 1..20u32, window).prop_map(|(policy, max, window_ms)| Misfire { policy, max, window_ms })
}

const LINES: [&str; 6] =
    ["*/30 * * * * *", "* * * * *", "*/7 * * * *", "*/20 1-3 * * *", "30 2 * * *", "@every 45s"];

fn job() -> impl Strategy<Value = JobSpec> {
    let deadline = prop_oneof![3 => Just(None), 1 => (5_000..5_000_000u64).prop_map(Some)];
    let line = prop::sample::select(LINES.as_slice());
    (line, dst(), misfire(), deadline).prop_map(|(line, dst, misfire, start_deadline_ms)| {
        let timezone = "Europe/Berlin".parse().unwrap();
        JobSpec { timezone, dst, misfire, start_deadline_ms, ..job_spec("tick", line) }
    })
}

/// The evenings before the two jumps of 2026, and an ordinary one.
const EVENINGS: [i64; 3] = [1_774_731_600_000, 1_792_875_600_000, 1_790_000_000_000];

struct Run {
    world: World,
    job: JobId,
    held: Vec<CommandBody>,
    fired: BTreeSet<UnixMillis>,
}

impl Run {
    fn new(spec: JobSpec, start: UnixMillis) -> Self {
        let (mut world, _) = World::with_hosts(1);
        world.now = start;
        let job = world.job(spec);
        Self { world, job, held: Vec::new(), fired: BTreeSet::new() }
    }

    fn take(&mut self, event: &Event) {
        match event {
            Event::Pass(seconds) => self.world.now.0 += seconds * 1000,
            Event::SetBack(seconds) => self.world.now.0 -= seconds * 1000,
            Event::Commit => self.commit_all(),
            Event::HoldDue => self.held.extend(self.due()),
            Event::HoldEdit => {
                let state = &self.world.state;
                let (job, pulse) = (state.job(self.job).unwrap(), state.pulse(self.job).unwrap());
                let edit = JobUpdate::new(job, pulse, job.spec.clone(), self.world.now);
                self.held.push(CommandBody::JobUpdate(Box::new(edit)));
            }
            Event::Release => {
                for body in std::mem::take(&mut self.held) {
                    self.propose(body);
                }
            }
        }
    }

    fn due(&self) -> Vec<CommandBody> {
        due(&self.world.state, self.world.now, 100).into_iter().map(CommandBody::FireCommit).collect()
    }

    fn commit_all(&mut self) {
        // Every round deals with up to a thousand ticks: more rounds than these are a scheduler that goes in circles.
        for _ in 0..50 {
            let due = self.due();
            if due.is_empty() {
                return;
            }
            due.into_iter().for_each(|body| self.propose(body));
        }
        panic!("there is always something due: {:?}", self.due());
    }

    fn propose(&mut self, body: CommandBody) {
        if let Applied::TicksCommitted(keys) = self.world.apply(body) {
            for key in keys {
                assert!(self.fired.insert(key.scheduled_at), "fired twice: {key}");
            }
        }
    }

    /// Ticks later than `start`, up to `end`.
    fn ticks(&self, start: UnixMillis, end: UnixMillis) -> BTreeSet<UnixMillis> {
        let spec = &self.world.state.job(self.job).unwrap().spec;
        let next = |at: UnixMillis| next_after(&spec.schedule, spec.timezone, spec.dst, at);
        std::iter::successors(next(start), |at| next(*at)).take_while(|at| *at <= end).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_tick_fires_once_or_is_counted(
        spec in job(),
        evening in prop::sample::select(EVENINGS.as_slice()),
        events in prop::collection::vec(event(), 1..60),
    ) {
        let start = UnixMillis(evening);
        let mut run = Run::new(spec, start);
        let mut latest = start;
        for event in &events {
            run.take(event);
            latest = latest.max(run.world.now);
        }
        // In the end all clocks agree, and somebody leads.
        run.world.now = latest;
        run.take(&Event::Release);
        run.commit_all();
        let pulse = *run.world.state.pulse(run.job).unwrap();
        let ticks = run.ticks(start, latest);
        prop_assert!(run.fired.is_subset(&ticks), "fired off schedule: {:?}", run.fired.difference(&ticks).next());
        prop_assert_eq!(pulse.fires, run.fired.len() as u64);
        prop_assert_eq!(pulse.last_tick.max(Some(start)), ticks.last().copied().or(Some(start)));
        let accounted = pulse.fires + pulse.missed + pulse.skipped;
        prop_assert_eq!(accounted, ticks.len() as u64, "{:?} of {:?}", pulse, ticks.len());
    }
}
