//! What the length of a run is made of.

use crate::{
    index::definition_of,
    record::{NodeRecord, NodeRunRecord, RunRecord},
    state::State,
};
use novacron_common::{
    api::{CriticalPath, StepView},
    ids::{NodeRef, WorkflowId},
    units::UnixMillis,
};

/// The nodes of one version of a workflow.
pub struct Definition;

impl Definition {
    /// In the order of their places.
    pub fn nodes(state: &State, workflow: WorkflowId, version: u32) -> impl Iterator<Item = &NodeRecord> {
        state.workflow_nodes().range(definition_of(workflow, version))
    }
}

/// From the node that ended last back to the one before it that ended last, and so on. Of a run that was retried, the
/// last try. Costs what nodes and edges there are.
pub fn critical_path(state: &State, run: &RunRecord) -> CriticalPath {
    let nodes: Vec<&NodeRecord> = Definition::nodes(state, run.workflow, run.version).collect();
    let rows: Vec<Option<&NodeRunRecord>> = nodes
        .iter()
        .map(|node| state.node_run(NodeRef { run: run.id, node: node.key.node, item: 0 }))
        .map(|row| {
            row.filter(|row| {
                row.started_at >= run.started_at && row.started_at.is_some() && row.ended_at.is_some()
            })
        })
        .collect();
    let end = |node: u32| rows.get(node as usize).copied().flatten().and_then(|row| row.ended_at);
    let mut slowest: Vec<Option<u32>> = vec![None; nodes.len()];
    for node in &nodes {
        let Some(ended) = end(node.key.node) else { continue };
        for next in &node.after {
            let Some(best) = slowest.get_mut(next.node as usize) else { continue };
            if best.and_then(end).is_none_or(|other| other < ended) {
                *best = Some(node.key.node);
            }
        }
    }
    let mut at = nodes.iter().map(|n| n.key.node).filter(|n| end(*n).is_some()).max_by_key(|n| end(*n));
    let mut steps = Vec::new();
    while let Some(node) = at {
        steps.extend(step(nodes.get(node as usize).copied(), rows.get(node as usize).copied().flatten()));
        at = slowest.get(node as usize).copied().flatten();
    }
    steps.reverse();
    let last = rows.iter().flatten().filter_map(|row| row.ended_at).max();
    summary(steps, run.started_at, run.ended_at.or(last))
}

fn step(node: Option<&NodeRecord>, row: Option<&NodeRunRecord>) -> Option<StepView> {
    let (node, row) = node.zip(row)?;
    let (started, ended) = row.started_at.zip(row.ended_at)?;
    Some(StepView {
        id: node.spec.id.to_string(),
        queued_ms: millis(row.ready_at.unwrap_or(started), started),
        work_ms: millis(started, ended),
    })
}

fn summary(steps: Vec<StepView>, began: Option<UnixMillis>, ended: Option<UnixMillis>) -> CriticalPath {
    let work_ms = steps.iter().map(|step| step.work_ms).sum();
    let total_ms = began.zip(ended).map_or(0, |(began, ended)| millis(began, ended));
    CriticalPath { steps, work_ms, total_ms, overhead_ms: total_ms.saturating_sub(work_ms) }
}

fn millis(from: UnixMillis, to: UnixMillis) -> u64 {
    u64::try_from(to.since(from).as_millis()).unwrap_or(u64::MAX)
}
