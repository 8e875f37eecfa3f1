//! What a leader proposes for workflows: ticks, and steps that no event triggers.

use crate::{
    command::{NextTick, RunAdvance, RunTick, Shape, WorkflowPut, WorkflowUpdate},
    record::{NodeKey, WorkflowRecord},
    schedule::{Lateness, choose, next_after},
    state::State,
};
use novacron_common::{
    api::RunState,
    ids::{RunId, WorkflowId},
    spec::workflow::{Trigger, WorkflowHead, WorkflowSpec},
    units::UnixMillis,
};
use std::collections::BTreeMap;

/// The ticks to commit now, at most `limit`, the earliest first. `new_id` makes the runs' ids.
pub fn due_ticks(
    state: &State,
    now: UnixMillis,
    limit: usize,
    mut new_id: impl FnMut() -> RunId,
) -> Vec<RunTick> {
    let due = state.index().workflows().due().take_while(|(at, _)| *at <= now).take(limit);
    due.filter_map(|(_, id)| tick(state.workflow(id)?, now, new_id())).collect()
}

fn tick(workflow: &WorkflowRecord, now: UnixMillis, run: RunId) -> Option<RunTick> {
    let first = workflow.next_at.filter(|at| *at <= now)?;
    let trigger = workflow.head.trigger.as_ref()?;
    let (scheduled_at, missed, passed_over) = first_of(trigger, first, now);
    Some(RunTick {
        workflow: workflow.id,
        run,
        scheduled_at,
        revision: workflow.revision,
        next_at: next(trigger, scheduled_at),
        missed,
        passed_over,
    })
}

/// The tick to deal with, whether it is missed, and how many before it are passed over. Which of them make a run is
/// chosen as for jobs, and dealt with one by one: a tick that was chosen is chosen again when its turn comes.
fn first_of(trigger: &Trigger, first: UnixMillis, now: UnixMillis) -> (UnixMillis, bool, u64) {
    let late = Lateness { misfire: trigger.misfire, start_deadline_ms: None };
    let choice = choose(late, first, now, |after| next(trigger, after));
    let skipped = choice.skip.map_or(0, |skip| skip.count);
    match choice.fire.first() {
        Some(at) => (*at, false, skipped),
        // The last of those that are passed over is the tick itself.
        None => (choice.skip.map_or(first, |skip| skip.until), true, skipped.saturating_sub(1)),
    }
}

fn next(trigger: &Trigger, after: UnixMillis) -> NextTick {
    next_after(&trigger.schedule, trigger.timezone, trigger.dst, after)
}

fn first_tick(head: &WorkflowHead, now: UnixMillis) -> NextTick {
    head.trigger.as_ref().filter(|_| head.enabled).and_then(|trigger| next(trigger, now))
}

/// The steps that are due, at most `limit` runs: waits and times that are over, cancelled runs that have to end,
/// nodes and runs that had to wait for others.
pub fn due(state: &State, now: UnixMillis, limit: usize) -> Vec<RunAdvance> {
    let index = state.index().workflows();
    let mut runs: BTreeMap<RunId, Vec<(u32, u32)>> = BTreeMap::new();
    for (_, key) in index.timers().take_while(|(at, _)| *at <= now).take(limit) {
        runs.entry(key.run).or_default().push((key.node, key.item));
    }
    for (_, run) in index.cancel_by().take_while(|(at, _)| *at <= now).take(limit) {
        runs.entry(run).or_default();
    }
    let begins = |run: &RunId| {
        let room = |max: u32| index.counts(*run).working() < max;
        state.run(*run).is_some_and(|r| room(r.max_parallel))
    };
    for run in index.ready_runs().filter(begins).take(limit) {
        runs.entry(run).or_default();
    }
    let next_queued = |id: WorkflowId| {
        let first = index.open(id).next()?;
        // The oldest open run is queued: nothing is in its way.
        state.run(first).filter(|run| run.state == RunState::Queued).map(|run| run.id)
    };
    for run in index.queueing().filter_map(next_queued).take(limit) {
        runs.entry(run).or_default();
    }
    runs.into_iter().take(limit).map(|(run, timers)| RunAdvance { run, timers }).collect()
}

/// When something is due next; what is due because others made room is not among it, as a commit tells of that.
pub fn next_due(state: &State) -> Option<UnixMillis> {
    let index = state.index().workflows();
    let tick = index.due().next().map(|(at, _)| at);
    let timer = index.timers().next().map(|(at, _)| at);
    let cancel = index.cancel_by().next().map(|(at, _)| at);
    [tick, timer, cancel].into_iter().flatten().min()
}

impl WorkflowPut {
    /// The command for a new workflow, with its first tick after `now` (the proposer's clock).
    pub fn new(id: WorkflowId, spec: WorkflowSpec, now: UnixMillis) -> Self {
        let next_at = first_tick(&spec.head, now);
        Self { id, spec, next_at }
    }
}

impl WorkflowUpdate {
    /// The command that gives a workflow a new definition. A change that leaves the ticks as they are leaves a due
    /// tick due; else they begin anew after `now`.
    pub fn new(old: &WorkflowRecord, spec: WorkflowSpec, changes_shape: bool, now: UnixMillis) -> Self {
        let same = (&old.head.trigger, old.head.enabled) == (&spec.head.trigger, spec.head.enabled);
        let next_at = if same { old.next_at } else { first_tick(&spec.head, now) };
        let shape = changes_shape.then_some(Shape { nodes: spec.nodes, edges: spec.edges });
        Self { id: old.id, head: spec.head, shape, revision: old.revision, next_at }
    }
}

impl NodeKey {
    /// A node of the version that a run keeps to.
    pub const fn of(run: &crate::record::RunRecord, node: u32) -> Self {
        Self { workflow: run.workflow, version: run.version, node }
    }
}
