//! Workflows and runs, as shown.

use crate::{
    record::{NodeRecord, NodeRunRecord, RunRecord, WorkflowRecord},
    state::State,
    workflow::{Definition, critical_path, read_output, shown},
};
use novacron_common::{
    api::{EdgeBody, NodeBody, NodeCounts, NodeRunState, NodeRunView, RunDetail, RunView, WorkflowView},
    ids::NodeRef,
    spec::workflow::{Edge, NodeSpec, WorkflowSpec},
};
use serde_json::{Value, json};

/// Whether a workflow is shown with its nodes and edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shapes {
    /// For one workflow.
    Shown,
    /// For lists and events: there may be thousands.
    LeftOut,
}

/// The definition of the present version, as it was asked for.
pub fn workflow_spec(state: &State, workflow: &WorkflowRecord) -> WorkflowSpec {
    let (nodes, edges) = shape(state, workflow, workflow.version);
    WorkflowSpec { head: workflow.head.clone(), nodes, edges }
}

fn shape(state: &State, workflow: &WorkflowRecord, version: u32) -> (Vec<NodeSpec>, Vec<Edge>) {
    let mut edges = Vec::new();
    let nodes = Definition::nodes(state, workflow.id, version).map(|node| {
        let from = node.key.node;
        edges.extend(node.after.iter().map(|next| Edge { from, to: next.node, when: next.when }));
        node.spec.clone()
    });
    (nodes.collect(), edges)
}

/// The view of a workflow.
pub fn workflow(state: &State, workflow: &WorkflowRecord, shapes: Shapes) -> WorkflowView {
    let head = &workflow.head;
    let trigger = head.trigger.as_ref();
    let shape = (shapes == Shapes::Shown).then(|| shape(state, workflow, workflow.version));
    let nodes =
        shape.as_ref().map(|(nodes, _)| nodes.iter().map(|node| NodeBody::new(node, nodes)).collect());
    let edges = shape.as_ref().map(|(nodes, edges)| edge_bodies(nodes, edges));
    WorkflowView {
        id: workflow.id,
        name: head.name.to_string(),
        description: head.description.clone(),
        enabled: head.enabled,
        version: workflow.version,
        node_count: workflow.nodes,
        nodes,
        edges,
        schedule: trigger.map(|t| t.schedule.to_string()),
        timezone: trigger.map(|t| t.timezone.to_string()),
        dst: trigger.map(|t| t.dst),
        misfire: trigger.map(|t| t.misfire.into()),
        concurrency: head.concurrency.into(),
        max_parallel: head.max_parallel,
        runs_kept: head.runs_kept,
        next_run_at: workflow.next_at,
        runs: workflow.runs,
        succeeded: workflow.succeeded,
        failed: workflow.failed,
        cancelled: workflow.cancelled,
        skipped: workflow.skipped,
        last_skip: workflow.last_skip.as_ref().map(|skip| format!("{}: {}", skip.at, skip.reason)),
        open_runs: u32::try_from(state.index().workflows().open(workflow.id).count()).unwrap_or(u32::MAX),
        created_at: workflow.created_at,
    }
}

fn edge_bodies(nodes: &[NodeSpec], edges: &[Edge]) -> Vec<EdgeBody> {
    edges.iter().filter_map(|edge| EdgeBody::new(*edge, nodes)).collect()
}

/// The view of a run, without its nodes.
pub fn run(state: &State, run: &RunRecord) -> RunView {
    RunView {
        id: run.id,
        workflow: run.workflow,
        version: run.version,
        cause: run.cause,
        scheduled_at: run.scheduled_at,
        state: run.state,
        reason: run.reason.clone(),
        nodes: counts(state, run),
        retries: run.retries,
        started_at: run.started_at,
        ended_at: run.ended_at,
    }
}

fn counts(state: &State, run: &RunRecord) -> NodeCounts {
    let counts = state.index().workflows().counts(run.id);
    let of = |state| counts.of(state);
    let (succeeded, failed) = (of(NodeRunState::Succeeded), of(NodeRunState::Failed));
    let (skipped, cancelled) = (of(NodeRunState::Skipped), of(NodeRunState::Cancelled));
    let active = counts.active();
    let rest = run.nodes.saturating_sub(succeeded + failed + skipped + cancelled + active);
    let (pending, passed_over) = if run.state.is_final() { (0, rest) } else { (rest, 0) };
    NodeCounts {
        total: run.nodes,
        pending,
        active,
        succeeded,
        failed,
        skipped: skipped + passed_over,
        cancelled,
    }
}

/// The view of a run with its nodes, its edges and what its length is made of.
pub fn run_detail(state: &State, record: &RunRecord) -> RunDetail {
    let row = |node: u32| state.node_run(NodeRef { run: record.id, node, item: 0 });
    let nodes = Definition::nodes(state, record.workflow, record.version);
    let node_runs =
        nodes.map(|node| node_run(record, node, row(node.key.node), NodeOutputs::LeftOut)).collect();
    let shape = state.workflow(record.workflow).map(|workflow| shape(state, workflow, record.version));
    RunDetail {
        run: run(state, record),
        input: state.run_input(record.id).map_or_else(|| json!({}), |row| read_output(&row.input)),
        node_runs,
        edges: shape.map(|(nodes, edges)| edge_bodies(&nodes, &edges)).unwrap_or_default(),
        critical_path: critical_path(state, record),
    }
}

/// Whether a node is shown with what it left behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeOutputs {
    /// For one node.
    Shown,
    /// For lists and events: outputs are up to 16 KiB each.
    LeftOut,
}

/// The view of a node of a run, or of an item of its map.
pub fn node_run(
    run: &RunRecord,
    node: &NodeRecord,
    row: Option<&NodeRunRecord>,
    outputs: NodeOutputs,
) -> NodeRunView {
    let output = row.and_then(|row| row.output.as_ref());
    let value = output.filter(|_| outputs == NodeOutputs::Shown).map(|text| read_output(text));
    NodeRunView {
        id: node.spec.id.to_string(),
        name: node.spec.name.clone(),
        node_type: node.spec.kind.node_type(),
        state: shown(run, row),
        item: row.map(|row| row.key.item).filter(|item| *item > 0).map(|item| item - 1),
        reason: row.and_then(|row| row.reason.clone()),
        tries: row.map_or(0, |row| row.tries),
        fire: row.and_then(|row| row.fire).map(|fire| fire.to_string()),
        ready_at: row.and_then(|row| row.ready_at),
        started_at: row.and_then(|row| row.started_at),
        ended_at: row.and_then(|row| row.ended_at),
        until: row.and_then(|row| row.until),
        output: value.filter(|value| *value != Value::Null),
        output_bytes: output.map_or(0, |text| text.len() as u64),
        items: row.and_then(|row| row.map).map(|map| map.items),
    }
}

/// The items of a map, in their order, with what they left behind.
pub fn items(state: &State, run: &RunRecord, node: &NodeRecord) -> Vec<NodeRunView> {
    let first = NodeRef { run: run.id, node: node.key.node, item: 1 };
    let last = NodeRef { item: u32::MAX, ..first };
    let rows = state.node_runs().range(first..=last);
    rows.map(|row| node_run(run, node, Some(row), NodeOutputs::Shown)).collect()
}
