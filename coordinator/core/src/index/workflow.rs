//! What is derived from the rows of workflows and runs: who is at work, whose time comes, and how far each run is.

use crate::record::{NodeKey, NodeRunRecord, RunRecord, WorkflowRecord};
use novacron_common::{
    api::{NodeRunState, RunState},
    ids::{NodeRef, RunId, WorkflowId},
    units::UnixMillis,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// How many nodes of a run are in each state; only those that have a row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts([u32; 9]);

impl Counts {
    /// How many are in a state.
    pub const fn of(&self, state: NodeRunState) -> u32 {
        self.0[state as usize]
    }

    /// How many are at work or wait for time or a person.
    pub const fn active(&self) -> u32 {
        self.of(NodeRunState::Running)
            + self.of(NodeRunState::Waiting)
            + self.of(NodeRunState::AwaitingApproval)
    }

    /// How many are at work: those that count towards a run's parallelism.
    pub const fn working(&self) -> u32 {
        self.of(NodeRunState::Running)
    }
}

/// Everything derived for workflows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkflowIndex {
    due: BTreeSet<(UnixMillis, WorkflowId)>,
    open: BTreeSet<(WorkflowId, RunId)>,
    queued: BTreeSet<(WorkflowId, RunId)>,
    ended: BTreeSet<(WorkflowId, RunId)>,
    forgotten: BTreeSet<RunId>,
    versions: BTreeMap<(WorkflowId, u32), u32>,
    all: BTreeSet<(WorkflowId, RunId)>,
    cancel_by: BTreeSet<(UnixMillis, RunId)>,
    timers: BTreeSet<(UnixMillis, NodeRef)>,
    ready: BTreeSet<NodeRef>,
    active: BTreeSet<NodeRef>,
    counts: BTreeMap<RunId, Counts>,
}

const RUN_FIRST: RunId = RunId::from_u128(0);
const RUN_LAST: RunId = RunId::from_u128(u128::MAX);

/// The keys of all rows of a run, in every table that is keyed by node.
pub(crate) const fn nodes_of(run: RunId) -> std::ops::RangeInclusive<NodeRef> {
    NodeRef { run, node: 0, item: 0 }..=NodeRef { run, node: u32::MAX, item: u32::MAX }
}

fn runs_in(set: &BTreeSet<(WorkflowId, RunId)>, of: WorkflowId) -> impl DoubleEndedIterator<Item = RunId> {
    set.range((of, RUN_FIRST)..=(of, RUN_LAST)).map(|(_, run)| *run)
}

impl WorkflowIndex {
    /// Workflows by their next tick, the earliest first.
    pub fn due(&self) -> impl Iterator<Item = (UnixMillis, WorkflowId)> {
        self.due.iter().copied()
    }

    /// Runs of a workflow that have not ended, the oldest first.
    pub fn open(&self, of: WorkflowId) -> impl DoubleEndedIterator<Item = RunId> {
        runs_in(&self.open, of)
    }

    /// Runs of a workflow that wait for an earlier one.
    pub fn queued(&self, of: WorkflowId) -> impl DoubleEndedIterator<Item = RunId> {
        runs_in(&self.queued, of)
    }

    /// The workflows that have queued runs.
    pub fn queueing(&self) -> impl Iterator<Item = WorkflowId> {
        let mut next = self.queued.first().map(|(workflow, _)| *workflow);
        std::iter::from_fn(move || {
            let workflow = next?;
            let behind = (Bound::Excluded((workflow, RUN_LAST)), Bound::Unbounded);
            next = self.queued.range(behind).next().map(|(workflow, _)| *workflow);
            Some(workflow)
        })
    }

    /// Runs of a workflow that have ended, the oldest first.
    pub fn ended(&self, of: WorkflowId) -> impl DoubleEndedIterator<Item = RunId> {
        runs_in(&self.ended, of)
    }

    /// Runs of a workflow that are not being forgotten, those before `before` if given, the oldest first.
    pub fn runs(&self, of: WorkflowId, before: Option<RunId>) -> impl DoubleEndedIterator<Item = RunId> {
        let end = before.map_or(Bound::Included((of, RUN_LAST)), |run| Bound::Excluded((of, run)));
        self.all.range((Bound::Included((of, RUN_FIRST)), end)).map(|(_, run)| *run)
    }

    /// How many have ended.
    pub fn ended_count(&self, of: WorkflowId) -> usize {
        self.ended(of).count()
    }

    /// Runs whose rows are to be removed.
    pub fn forgotten(&self) -> impl Iterator<Item = RunId> {
        self.forgotten.iter().copied()
    }

    /// How many runs keep to a version.
    pub fn runs_with(&self, workflow: WorkflowId, version: u32) -> u32 {
        self.versions.get(&(workflow, version)).copied().unwrap_or(0)
    }

    /// Whether any run of a workflow is on record, also one that is being forgotten.
    pub fn has_runs(&self, workflow: WorkflowId) -> bool {
        self.versions.range((workflow, 0)..=(workflow, u32::MAX)).next().is_some()
    }

    /// When cancelled runs have to have ended, the earliest first.
    pub fn cancel_by(&self) -> impl Iterator<Item = (UnixMillis, RunId)> {
        self.cancel_by.iter().copied()
    }

    /// When nodes' waits and times end, the earliest first.
    pub fn timers(&self) -> impl Iterator<Item = (UnixMillis, NodeRef)> {
        self.timers.iter().copied()
    }

    /// Nodes of a run that may begin.
    pub fn ready(&self, run: RunId) -> impl Iterator<Item = NodeRef> {
        self.ready.range(nodes_of(run)).copied()
    }

    /// The runs that have nodes that may begin.
    pub fn ready_runs(&self) -> impl Iterator<Item = RunId> {
        let mut next = self.ready.first().map(|key| key.run);
        std::iter::from_fn(move || {
            let run = next?;
            let behind = (Bound::Excluded(*nodes_of(run).end()), Bound::Unbounded);
            next = self.ready.range(behind).next().map(|key| key.run);
            Some(run)
        })
    }

    /// Nodes and items of a run that are at work, or wait for time or a person.
    pub fn active(&self, run: RunId) -> impl Iterator<Item = NodeRef> {
        self.active.range(nodes_of(run)).copied()
    }

    /// How many nodes of a run are in each state.
    pub fn counts(&self, run: RunId) -> Counts {
        self.counts.get(&run).copied().unwrap_or_default()
    }

    pub(crate) fn add_workflow(&mut self, workflow: &WorkflowRecord) {
        self.due.extend(workflow.next_at.map(|at| (at, workflow.id)));
    }

    pub(crate) fn drop_workflow(&mut self, workflow: &WorkflowRecord) {
        if let Some(at) = workflow.next_at {
            self.due.remove(&(at, workflow.id));
        }
    }

    pub(crate) fn add_run(&mut self, run: &RunRecord) {
        let pair = (run.workflow, run.id);
        *self.versions.entry((run.workflow, run.version)).or_default() += 1;
        self.cancel_by.extend(run.cancel_by.map(|at| (at, run.id)));
        if run.forgotten {
            self.forgotten.insert(run.id);
            return;
        }
        self.all.insert(pair);
        if run.state.is_final() { &mut self.ended } else { &mut self.open }.insert(pair);
        if run.state == RunState::Queued {
            self.queued.insert(pair);
        }
    }

    pub(crate) fn drop_run(&mut self, run: &RunRecord) {
        let (pair, version) = ((run.workflow, run.id), (run.workflow, run.version));
        if let Some(count) = self.versions.get_mut(&version) {
            *count -= 1;
            if *count == 0 {
                self.versions.remove(&version);
            }
        }
        if let Some(at) = run.cancel_by {
            self.cancel_by.remove(&(at, run.id));
        }
        self.forgotten.remove(&run.id);
        for set in [&mut self.all, &mut self.ended, &mut self.open, &mut self.queued] {
            set.remove(&pair);
        }
    }

    pub(crate) fn add_node(&mut self, node: &NodeRunRecord) {
        if node.key.item == 0 {
            self.counts.entry(node.key.run).or_default().0[node.state as usize] += 1;
        }
        if node.is_active() {
            self.active.insert(node.key);
            self.timers.extend(node.until.map(|at| (at, node.key)));
        }
        if node.state == NodeRunState::Ready {
            self.ready.insert(node.key);
        }
    }

    pub(crate) fn drop_node(&mut self, node: &NodeRunRecord) {
        if node.key.item == 0
            && let Some(counts) = self.counts.get_mut(&node.key.run)
        {
            counts.0[node.state as usize] -= 1;
            if *counts == Counts::default() {
                self.counts.remove(&node.key.run);
            }
        }
        if node.is_active() {
            self.active.remove(&node.key);
            if let Some(at) = node.until {
                self.timers.remove(&(at, node.key));
            }
        }
        if node.state == NodeRunState::Ready {
            self.ready.remove(&node.key);
        }
    }
}

/// The keys of all nodes of a version.
pub(crate) const fn definition_of(workflow: WorkflowId, version: u32) -> std::ops::RangeInclusive<NodeKey> {
    NodeKey { workflow, version, node: 0 }..=NodeKey { workflow, version, node: u32::MAX }
}
