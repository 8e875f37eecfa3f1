//! Workflows as they are defined: a row for the whole, and one for each node of each version that is still in use.

use super::{
    super::{Outcome, fits},
    find,
};
use crate::{
    applied::{Applied, Refusal},
    command::{NextTick, WorkflowPut, WorkflowUpdate},
    index::definition_of,
    record::{Next, NodeKey, NodeRecord, RunRecord, WorkflowRecord},
    state::State,
};
use novacron_common::{
    api::ProblemCode,
    ids::WorkflowId,
    spec::{
        Fault,
        workflow::{
            Edge, Items, MapBody, MapSpec, NodeId, NodeKind, NodeSpec, OnFailure, Reference, Template, Wait,
            WorkflowHead, WorkflowSpec, texts,
        },
    },
};
use std::collections::BTreeMap;

pub(in super::super) fn put(state: &mut State, c: WorkflowPut) -> Outcome {
    if let Some(old) = state.workflow(c.id) {
        return match old.head == c.spec.head {
            true => Ok(Applied::WorkflowStored(c.id)),
            false => Err(Refusal::conflict(format!("there is another workflow {}", c.id))),
        };
    }
    check_head(state, c.id, &c.spec.head, c.next_at)?;
    let nodes = node_records(state, c.id, 1, c.spec.nodes, &c.spec.edges)?;
    let record = WorkflowRecord {
        id: c.id,
        next_at: c.next_at.filter(|_| c.spec.head.enabled),
        head: c.spec.head,
        version: 1,
        nodes: count(&nodes),
        revision: 1,
        last_tick: None,
        runs: 0,
        succeeded: 0,
        failed: 0,
        cancelled: 0,
        skipped: 0,
        last_skip: None,
        removed: false,
        created_at: state.now(),
    };
    fits(&record, "description")?;
    nodes.into_iter().for_each(|node| state.write(node));
    state.write(record);
    Ok(Applied::WorkflowStored(c.id))
}

fn count(nodes: &[NodeRecord]) -> u32 {
    u32::try_from(nodes.len()).unwrap_or(u32::MAX)
}

fn check_head(state: &State, id: WorkflowId, head: &WorkflowHead, next_at: NextTick) -> Result<(), Refusal> {
    if state.index().workflow_named(&head.name).is_some_and(|other| other != id) {
        return Err(Refusal::name_taken("workflow", &head.name));
    }
    match &head.trigger {
        Some(trigger) if head.enabled && next_at.is_none() => {
            let fault = Fault::new("schedule", format!("{} never comes", trigger.schedule));
            Err(Refusal::new(ProblemCode::InvalidRequest, "the schedule never fires").details(vec![fault]))
        }
        _ => Ok(()),
    }
}

/// The rows of the nodes, all of them checked before the first is written.
fn node_records(
    state: &State,
    workflow: WorkflowId,
    version: u32,
    nodes: Vec<NodeSpec>,
    edges: &[Edge],
) -> Result<Vec<NodeRecord>, Refusal> {
    if nodes.len() > WorkflowSpec::NODES_MAX || edges.len() > WorkflowSpec::EDGES_MAX {
        return Err(Refusal::new(ProblemCode::TooLarge, "the workflow has too many nodes or edges"));
    }
    jobs_exist(state, &nodes)?;
    let numbers: BTreeMap<NodeId, u32> = (0..).zip(&nodes).map(|(n, node)| (node.id.clone(), n)).collect();
    let mut records: Vec<NodeRecord> = (0..)
        .zip(nodes)
        .map(|(node, spec)| NodeRecord {
            key: NodeKey { workflow, version, node },
            refers_to: refers_to(&spec.kind, &numbers),
            spec,
            after: Vec::new(),
            before: 0,
            undoes: false,
        })
        .collect();
    connect(&mut records, edges);
    for record in &records {
        fits(record, &format!("nodes[{}].config", record.key.node))?;
    }
    Ok(records)
}

fn connect(records: &mut [NodeRecord], edges: &[Edge]) {
    for edge in edges {
        let both = (edge.from as usize) < records.len() && (edge.to as usize) < records.len();
        let (true, Some(from)) = (both, records.get_mut(edge.from as usize)) else { continue };
        from.after.push(Next { node: edge.to, when: edge.when });
        if let Some(to) = records.get_mut(edge.to as usize) {
            to.before += 1;
        }
    }
    let undoing: Vec<u32> = records
        .iter()
        .filter_map(|record| match record.spec.on_failure {
            OnFailure::Compensate(node) => Some(node),
            OnFailure::Fail | OnFailure::Continue => None,
        })
        .collect();
    for node in undoing {
        if let Some(record) = records.get_mut(node as usize) {
            record.undoes = true;
        }
    }
}

fn jobs_exist(state: &State, nodes: &[NodeSpec]) -> Result<(), Refusal> {
    let unknown = nodes.iter().enumerate().filter_map(|(n, node)| {
        let job = node.kind.job().filter(|job| state.job(*job).is_none())?;
        Some(Fault::new(format!("nodes[{n}].config.jobId"), format!("there is no job {job}")))
    });
    let unknown: Vec<Fault> = unknown.take(20).collect();
    if unknown.is_empty() {
        return Ok(());
    }
    let refusal = Refusal::new(ProblemCode::InvalidRequest, "the workflow has jobs that do not exist");
    Err(refusal.fix("make the jobs first").details(unknown))
}

/// The places of the nodes that a node refers to, so that a run never has to search for one.
fn refers_to(kind: &NodeKind, numbers: &BTreeMap<NodeId, u32>) -> Vec<(NodeId, u32)> {
    let mut found = BTreeMap::new();
    let mut note = |reference: &Reference| {
        if let Some((id, number)) = reference.node().and_then(|id| numbers.get_key_value(id)) {
            found.insert(id.clone(), *number);
        }
    };
    let mut read = |text: &str| {
        if let Ok(template) = Template::parse(text) {
            template.references().for_each(&mut note);
        }
    };
    match kind {
        NodeKind::Task(target) | NodeKind::Map(MapSpec { each: MapBody::Task(target), .. }) => {
            texts(&mut target.clone()).into_iter().for_each(|text| read(text));
        }
        NodeKind::Wait(Wait::UntilText(text)) => read(text),
        NodeKind::Approve(approve) => read(&approve.message),
        NodeKind::Condition(condition) => condition.references().into_iter().for_each(&mut note),
        NodeKind::Job(_) | NodeKind::Wait(_) | NodeKind::Map(_) => {}
    }
    if let NodeKind::Map(MapSpec { items: Items::From(text), .. }) = kind
        && let Some((id, number)) = Reference::parse(text).ok().and_then(|r| numbers.get_key_value(r.node()?))
    {
        found.insert(id.clone(), *number);
    }
    found.into_iter().collect()
}

pub(in super::super) fn update(state: &mut State, c: WorkflowUpdate) -> Outcome {
    let old = find(state, c.id)?.clone();
    if old.revision != c.revision {
        return Err(
            Refusal::conflict("the workflow was changed in the meantime").fix("read it again, and repeat")
        );
    }
    check_head(state, c.id, &c.head, c.next_at)?;
    let version = old.version + u32::from(c.shape.is_some());
    let nodes =
        c.shape.map(|shape| node_records(state, c.id, version, shape.nodes, &shape.edges)).transpose()?;
    let record = WorkflowRecord {
        next_at: c.next_at.filter(|_| c.head.enabled),
        head: c.head,
        version,
        nodes: nodes.as_deref().map_or(old.nodes, count),
        revision: old.revision + 1,
        ..old
    };
    fits(&record, "description")?;
    nodes.into_iter().flatten().for_each(|node| state.write(node));
    state.write(record);
    if version != old.version {
        forget_version(state, c.id, old.version);
    }
    Ok(Applied::WorkflowStored(c.id))
}

/// Removes a version that is neither the present one nor that of any run.
pub(super) fn forget_version(state: &mut State, workflow: WorkflowId, version: u32) {
    let present = state.workflow(workflow).is_some_and(|w| w.version == version && !w.removed);
    if present || state.index().workflows().runs_with(workflow, version) > 0 {
        return;
    }
    let nodes = state.workflow_nodes().range(definition_of(workflow, version));
    let keys: Vec<NodeKey> = nodes.map(|node| node.key).collect();
    for key in keys {
        state.erase::<NodeRecord>(&key);
    }
}

/// The workflow is gone from view at once; its runs are forgotten bit by bit, and its rows with the last of them.
pub(in super::super) fn remove(state: &mut State, id: WorkflowId) -> Outcome {
    let old = find(state, id)?.clone();
    if state.index().workflows().open(id).next().is_some() {
        return Err(Refusal::conflict("runs of the workflow have not ended").fix("cancel them first"));
    }
    let runs: Vec<RunRecord> =
        state.index().workflows().runs(id, None).filter_map(|run| state.run(run).cloned()).collect();
    for run in runs {
        state.write(RunRecord { forgotten: true, ..run });
    }
    state.write(WorkflowRecord { removed: true, next_at: None, ..old });
    finish_removal(state, id);
    Ok(Applied::Done)
}

/// Removes the last rows of a removed workflow once it has no runs on record.
pub(super) fn finish_removal(state: &mut State, id: WorkflowId) {
    let done = state.workflow(id).filter(|w| w.removed).map(|w| w.version);
    let Some(version) = done.filter(|_| !state.index().workflows().has_runs(id)) else { return };
    forget_version(state, id, version);
    state.erase::<WorkflowRecord>(&id);
}
