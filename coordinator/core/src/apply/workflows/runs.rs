//! Runs: begun by the schedule or on request, cancelled, retried and forgotten.

use super::{
    super::{Outcome, fits},
    definitions::{finish_removal, forget_version},
    find, find_run,
    motion::Motion,
};
use crate::{
    applied::{Applied, Refusal},
    command::{RunAdvance, RunRetry, RunStart, RunTick},
    index::nodes_of,
    record::{NodeRecord, NodeRunRecord, RunInputRecord, RunRecord, RunSkip, TaskRecord, WorkflowRecord},
    state::State,
    workflow::{Definition, again, leads_on},
};
use novacron_common::{
    api::{NodeRunState, ProblemCode, RunCause, RunState},
    ids::{JobId, NodeRef, RunId},
    spec::{Concurrency, Fault, workflow::WorkflowSpec},
    units::UnixMillis,
};
use std::time::Duration;

/// How long a cancelled run waits for what it killed to be seen to end.
pub const CANCEL_GRACE: Duration = Duration::from_secs(30);
/// Most rows of a run that one command removes.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// What a new run meets.
enum Admission {
    Begin,
    Queue,
    No(String),
}

fn admission(state: &State, workflow: &WorkflowRecord) -> Admission {
    let index = state.index().workflows();
    let busy = index.open(workflow.id).next().is_some();
    match workflow.head.concurrency {
        Concurrency::Forbid if busy => Admission::No("another run has not ended".into()),
        Concurrency::Queue { max } if index.queued(workflow.id).count() >= max as usize => {
            Admission::No(format!("{max} runs wait already"))
        }
        Concurrency::Queue { .. } | Concurrency::Replace if busy => Admission::Queue,
        _ => Admission::Begin,
    }
}

pub(in super::super) fn start(state: &mut State, c: RunStart) -> Outcome {
    if state.run(c.id).is_some_and(|run| run.workflow == c.workflow) {
        return Ok(Applied::RunStarted(c.id));
    }
    let workflow = find(state, c.workflow)?.clone();
    if state.run(c.id).is_some() {
        return Err(Refusal::conflict(format!("there is another run {}", c.id)));
    }
    if !workflow.head.enabled {
        return Err(Refusal::conflict("the workflow is disabled").fix("enable it first"));
    }
    if c.input.len() > WorkflowSpec::INPUT_MAX {
        let fault = Fault::new("input", format!("has more than {} bytes", WorkflowSpec::INPUT_MAX));
        return Err(Refusal::new(ProblemCode::TooLarge, "the input is too long").details(vec![fault]));
    }
    let admission = admission(state, &workflow);
    if let Admission::No(reason) = admission {
        return Err(Refusal::conflict(reason).fix("wait for it, or cancel it"));
    }
    let input = RunInputRecord { run: c.id, input: c.input };
    fits(&input, "input")?;
    if !input.input.is_empty() {
        state.write(input);
    }
    let at = state.now();
    Ok(open(state, workflow, c.id, (RunCause::Manual, at), &admission))
}

pub(in super::super) fn tick(state: &mut State, c: &RunTick) -> Outcome {
    let old = find(state, c.workflow)?;
    if old.revision != c.revision || !old.head.enabled {
        return Err(Refusal::conflict("the workflow was changed since this tick was computed"));
    }
    let mut workflow = old.clone();
    let later = c.next_at.filter(|next| *next > c.scheduled_at);
    if workflow.last_tick.is_some_and(|last| last >= c.scheduled_at) {
        if workflow.next_at == Some(c.scheduled_at) {
            state.write(WorkflowRecord { next_at: later, ..workflow });
        }
        return Ok(Applied::AlreadySo);
    }
    if state.run(c.run).is_some() {
        return Err(Refusal::conflict(format!("there is another run {}", c.run)));
    }
    workflow.last_tick = Some(c.scheduled_at);
    workflow.next_at = later;
    if c.passed_over > 0 {
        skip(&mut workflow, c.scheduled_at, c.passed_over, "missed: no coordinator was there in time");
    }
    let admission = admission(state, &workflow);
    let reason = match &admission {
        _ if c.missed => "missed: no coordinator was there in time",
        Admission::No(reason) => reason,
        Admission::Begin | Admission::Queue => {
            return Ok(open(state, workflow, c.run, (RunCause::Schedule, c.scheduled_at), &admission));
        }
    };
    skip(&mut workflow, c.scheduled_at, 1, reason);
    state.write(workflow);
    Ok(Applied::Done)
}

fn skip(workflow: &mut WorkflowRecord, at: UnixMillis, count: u64, reason: &str) {
    workflow.skipped = workflow.skipped.saturating_add(count);
    workflow.last_skip = Some(RunSkip { at, reason: reason.to_owned() });
}

fn open(
    state: &mut State,
    workflow: WorkflowRecord,
    id: RunId,
    (cause, scheduled_at): (RunCause, UnixMillis),
    admission: &Admission,
) -> Applied {
    let replaced: Vec<RunId> = match workflow.head.concurrency {
        Concurrency::Replace => state.index().workflows().open(workflow.id).collect(),
        _ => Vec::new(),
    };
    state.write(RunRecord {
        id,
        workflow: workflow.id,
        version: workflow.version,
        nodes: workflow.nodes,
        max_parallel: workflow.head.max_parallel,
        cause,
        scheduled_at,
        state: RunState::Queued,
        reason: None,
        retries: 0,
        started_at: None,
        ended_at: None,
        cancel_by: None,
        forgotten: false,
    });
    state.write(WorkflowRecord { runs: workflow.runs + 1, ..workflow });
    for run in replaced {
        cancel_run(state, run, "a later run replaces it");
    }
    if matches!(admission, Admission::Begin) {
        begin(state, id);
    }
    Applied::RunStarted(id)
}

/// Lets a queued run begin: with the nodes that nothing comes before.
fn begin(state: &mut State, id: RunId) {
    let Some(run) = state.run(id).filter(|run| run.state == RunState::Queued) else { return };
    let nodes = Definition::nodes(state, run.workflow, run.version);
    let first: Vec<u32> =
        nodes.filter(|node| node.before == 0 && !node.undoes).map(|node| node.key.node).collect();
    let Some(mut motion) = Motion::of(state, id) else { return };
    let now = motion.now();
    motion.change(|run| {
        run.state = RunState::Running;
        run.started_at = Some(now);
    });
    for node in first {
        make_ready(&mut motion, node);
    }
    motion.go();
}

fn make_ready(motion: &mut Motion<'_>, node: u32) {
    let row = NodeRunRecord::new(motion.key(node));
    let ready_at = Some(motion.now());
    motion.state.write(NodeRunRecord { state: NodeRunState::Ready, live: true, ready_at, ..row });
}

/// What no event triggers: see [`crate::workflow::due`].
pub(in super::super) fn advance(state: &mut State, c: &RunAdvance) -> Outcome {
    let run = find_run(state, c.run)?;
    if run.state == RunState::Queued {
        let first = state.index().workflows().open(run.workflow).next();
        if first == Some(c.run) {
            begin(state, c.run);
        }
        return Ok(Applied::Done);
    }
    let Some(mut motion) = Motion::of(state, c.run) else { return Ok(Applied::AlreadySo) };
    for (node, item) in &c.timers {
        motion.time_is_up(NodeRef { run: c.run, node: *node, item: *item });
    }
    let now = motion.now();
    if motion.state.run(c.run).and_then(|run| run.cancel_by).is_some_and(|by| by <= now) {
        motion.abandon();
    }
    motion.go();
    Ok(Applied::Done)
}

pub(in super::super) fn cancel(state: &mut State, id: RunId) -> Outcome {
    let run = find_run(state, id)?;
    match run.state {
        RunState::Cancelling | RunState::Cancelled => Ok(Applied::AlreadySo),
        RunState::Succeeded | RunState::Failed => Err(Refusal::conflict("the run has ended")),
        RunState::Queued | RunState::Running | RunState::Failing => {
            cancel_run(state, id, "cancelled");
            Ok(Applied::Done)
        }
    }
}

fn cancel_run(state: &mut State, id: RunId, reason: &str) {
    let Some(mut motion) = Motion::of(state, id) else { return };
    if motion.phase() == RunState::Cancelling {
        return;
    }
    let by = motion.now().plus(CANCEL_GRACE);
    motion.change(|run| {
        run.state = RunState::Cancelling;
        run.cancel_by = Some(by);
        run.reason.get_or_insert_with(|| reason.to_owned());
    });
    motion.cancel_all();
    motion.go();
}

/// Runs a part of an ended run again; the rest keeps its outputs.
pub(in super::super) fn retry(state: &mut State, c: &RunRetry) -> Outcome {
    let run = find_run(state, c.run)?.clone();
    let workflow = find(state, run.workflow)?.clone();
    if !run.state.is_final() {
        return Err(Refusal::conflict("the run has not ended").fix("cancel it first"));
    }
    if c.from.is_some_and(|node| node >= run.nodes) {
        return Err(Refusal::not_found("node", c.from.unwrap_or_default()));
    }
    if let Admission::No(reason) = admission(state, &workflow) {
        return Err(Refusal::conflict(reason).fix("wait for it, or cancel it"));
    }
    let definition: Vec<NodeRecord> = Definition::nodes(state, run.workflow, run.version).cloned().collect();
    let again = again(state, &run, &definition, c.from);
    if again.iter().all(|node| definition.get(*node as usize).is_none_or(|node| node.undoes)) {
        return Err(Refusal::conflict("every node ended well").fix("name the node to run again from"));
    }
    for node in &again {
        erase_node(state, NodeRef { run: run.id, node: *node, item: 0 });
    }
    let (id, now) = (run.id, state.now());
    state.write(RunRecord {
        state: RunState::Running,
        reason: None,
        retries: run.retries + 1,
        started_at: Some(now),
        ended_at: None,
        cancel_by: None,
        ..run
    });
    let Some(mut motion) = Motion::of(state, id) else { return Ok(Applied::AlreadySo) };
    restore_edges(&mut motion, &definition, &again);
    for node in definition.iter().filter(|node| node.before == 0 && !node.undoes) {
        if again.contains(&node.key.node) {
            make_ready(&mut motion, node.key.node);
        }
    }
    motion.go();
    Ok(Applied::RunStarted(id))
}

/// The edges from what stays to what is run again are resolved as they were.
fn restore_edges(
    motion: &mut Motion<'_>,
    definition: &[NodeRecord],
    again: &std::collections::BTreeSet<u32>,
) {
    for node in definition.iter().filter(|node| !again.contains(&node.key.node)) {
        let Some(row) = motion.state.node_run(motion.key(node.key.node)) else { continue };
        let leads = |when| leads_on(&node.spec.kind, node.spec.on_failure, row, when);
        let edges: Vec<(u32, bool)> =
            node.after.iter().filter_map(|next| Some((next.node, leads(next.when)?))).collect();
        for (next, live) in edges.into_iter().filter(|(next, _)| again.contains(next)) {
            motion.resolve(next, live);
        }
    }
}

/// A node's row with those of its items, their tasks and fires.
fn erase_node(state: &mut State, key: NodeRef) {
    let last = NodeRef { item: u32::MAX, ..key };
    let rows: Vec<NodeRunRecord> = state.node_runs().range(key..=last).cloned().collect();
    for row in rows {
        erase_row(state, &row);
    }
}

fn erase_row(state: &mut State, row: &NodeRunRecord) {
    // A job's fires are the job's to keep.
    if let Some(task) = row.fire.map(|fire| fire.job).filter(|id| state.task(*id).is_some()) {
        erase_task(state, task);
    }
    state.erase::<NodeRunRecord>(&row.key);
}

fn erase_task(state: &mut State, task: JobId) {
    let fires: Vec<_> = state.fires().range(crate::fire_index::fires_of(task)).map(|fire| fire.key).collect();
    for fire in fires {
        super::super::jobs::erase_fire(state, fire);
    }
    state.erase::<TaskRecord>(&task);
}

/// Removes a part of a forgotten run's rows; with the last of them the run itself.
pub(in super::super) fn forget(state: &mut State, id: RunId) -> Outcome {
    let run = state.run(id).ok_or_else(|| Refusal::not_found("run", id))?.clone();
    if !run.forgotten {
        return Err(Refusal::conflict("the run is not to be forgotten"));
    }
    let rows: Vec<NodeRunRecord> =
        state.node_runs().range(nodes_of(id)).take(FORGOTTEN_AT_ONCE).cloned().collect();
    for row in &rows {
        erase_row(state, row);
    }
    if rows.len() < FORGOTTEN_AT_ONCE {
        state.erase::<RunInputRecord>(&id);
        state.erase::<RunRecord>(&id);
        forget_version(state, run.workflow, run.version);
        finish_removal(state, run.workflow);
    }
    Ok(Applied::Done)
}
