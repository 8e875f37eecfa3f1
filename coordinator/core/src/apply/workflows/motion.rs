//! One run set in motion: a node ends, the nodes behind it begin or are passed over, and so on until nothing moves.
//! No recursion, and a bound on what one command begins.

use super::short;
use crate::{
    record::{NodeRecord, NodeRunRecord, RunRecord, WorkflowRecord},
    state::State,
    workflow::{Join, join, leads_on},
};
use novacron_common::{
    api::{NodeRunState, RunState},
    ids::{NodeRef, RunId, WorkflowId},
    spec::workflow::OnFailure,
    units::UnixMillis,
};
use std::collections::VecDeque;

/// Most nodes and items that one command begins; the leader asks for the others.
const BEGUN_MAX: u32 = 1_000;

/// What is still to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// A node has ended: the edges behind it.
    Ended(u32),
    /// An item has ended, or a map has begun: its further items.
    Map(u32),
}

/// A run under way. Everything is read from and written to the ledger at once: what a step does may come back to the
/// same run (a fire that ends), and then finds it as it is.
pub(super) struct Motion<'s> {
    pub state: &'s mut State,
    pub id: RunId,
    pub steps: VecDeque<Step>,
    budget: u32,
}

impl<'s> Motion<'s> {
    /// `None` if there is no such run, or if it has ended.
    pub fn of(state: &'s mut State, run: RunId) -> Option<Self> {
        state.run(run).filter(|run| !run.state.is_final() && !run.forgotten)?;
        Some(Self { state, id: run, steps: VecDeque::new(), budget: BEGUN_MAX })
    }

    pub fn now(&self) -> UnixMillis {
        self.state.now()
    }

    pub const fn key(&self, node: u32) -> NodeRef {
        NodeRef { run: self.id, node, item: 0 }
    }

    pub fn row(&self, key: NodeRef) -> NodeRunRecord {
        self.state.node_run(key).cloned().unwrap_or_else(|| NodeRunRecord::new(key))
    }

    pub fn definition(&self, node: u32) -> Option<&NodeRecord> {
        self.state.definition(self.state.run(self.id)?, node)
    }

    /// How the run is.
    pub fn phase(&self) -> RunState {
        self.state.run(self.id).map_or(RunState::Cancelled, |run| run.state)
    }

    /// Changes the run's own record.
    pub fn change(&mut self, change: impl FnOnce(&mut RunRecord)) {
        if let Some(mut run) = self.state.run(self.id).cloned() {
            change(&mut run);
            self.state.write(run);
        }
    }

    /// Whether one more thing may begin in this command.
    pub const fn spend(&mut self) -> bool {
        let left = self.budget > 0;
        self.budget = self.budget.saturating_sub(1);
        left
    }

    /// Goes on until nothing moves, and writes how the run is then.
    pub fn go(mut self) {
        loop {
            match self.steps.pop_front() {
                Some(Step::Ended(node)) => self.pass_on(node),
                Some(Step::Map(node)) => self.map_on(node),
                None => match self.next_ready() {
                    Some(key) => self.begin(key),
                    None => break,
                },
            }
        }
        self.settle();
    }

    fn next_ready(&mut self) -> Option<NodeRef> {
        let index = self.state.index().workflows();
        let counts = index.counts(self.id);
        let max_parallel = self.state.run(self.id).map_or(0, |run| run.max_parallel);
        if counts.of(NodeRunState::Ready) == 0 || counts.working() >= max_parallel {
            return None;
        }
        let key = index.ready(self.id).next()?;
        self.spend().then_some(key)
    }

    /// Resolves the edges behind a node that has ended. A run that fails or is cancelled goes no further.
    fn pass_on(&mut self, node: u32) {
        if self.phase() != RunState::Running {
            return;
        }
        let Some(ended) = self.state.node_run(self.key(node)) else { return };
        let Some(definition) = self.definition(node) else { return };
        let leads = |when| leads_on(&definition.spec.kind, definition.spec.on_failure, ended, when);
        let edges: Vec<(u32, bool)> =
            definition.after.iter().filter_map(|next| Some((next.node, leads(next.when)?))).collect();
        for (next, live) in edges {
            self.resolve(next, live);
        }
    }

    pub fn resolve(&mut self, node: u32, live: bool) {
        let Some(before) = self.definition(node).map(|definition| definition.before) else { return };
        let mut row = self.row(self.key(node));
        match join(&mut row, before, live) {
            Join::Open => {}
            Join::Begin => {
                row.state = NodeRunState::Ready;
                row.ready_at = Some(self.now());
            }
            Join::Skip => {
                row.state = NodeRunState::Skipped;
                row.ended_at = Some(self.now());
                self.steps.push_back(Step::Ended(node));
            }
        }
        self.state.write(row);
    }

    /// A node or an item ended well.
    pub fn succeed(&mut self, key: NodeRef, output: Option<String>) {
        self.end(key, NodeRunState::Succeeded, None, output);
    }

    /// A node or an item failed.
    pub fn fail(&mut self, key: NodeRef, reason: &str, output: Option<String>) {
        self.end(key, NodeRunState::Failed, Some(short(reason)), output);
        if key.item > 0 {
            return;
        }
        let Some((on_failure, undoes, id)) =
            self.definition(key.node).map(|d| (d.spec.on_failure, d.undoes, d.spec.id.to_string()))
        else {
            return;
        };
        match on_failure {
            OnFailure::Continue if !undoes => {}
            OnFailure::Continue | OnFailure::Fail => self.give_up(&format!("node {id}: {reason}")),
            OnFailure::Compensate(other) => {
                self.give_up(&format!("node {id}: {reason}"));
                self.undo(other);
            }
        }
    }

    /// What undoes a node runs even though the run fails, and once however many nodes it undoes.
    fn undo(&mut self, node: u32) {
        let row = self.row(self.key(node));
        if self.phase() == RunState::Failing && row.state == NodeRunState::Pending {
            let ready_at = Some(self.now());
            self.state.write(NodeRunRecord { state: NodeRunState::Ready, ready_at, ..row });
        }
    }

    /// Writes an end, and notes what follows from it.
    pub fn end(&mut self, key: NodeRef, state: NodeRunState, reason: Option<String>, output: Option<String>) {
        let (row, now) = (self.row(key), self.now());
        if row.state.is_final() {
            return;
        }
        self.state.write(NodeRunRecord { state, reason, output, ended_at: Some(now), until: None, ..row });
        if key.item == 0 {
            self.steps.push_back(Step::Ended(key.node));
        } else {
            self.item_ended(key, state);
        }
    }

    /// Where nothing is at work and nothing may begin, nothing will: the run has ended.
    fn settle(&mut self) {
        let counts = self.state.index().workflows().counts(self.id);
        if counts.active() + counts.of(NodeRunState::Ready) > 0 {
            return;
        }
        let state = match self.phase() {
            RunState::Running => RunState::Succeeded,
            RunState::Failing => RunState::Failed,
            RunState::Cancelling => RunState::Cancelled,
            RunState::Queued | RunState::Succeeded | RunState::Failed | RunState::Cancelled => return,
        };
        let ended_at = Some(self.now());
        self.change(|run| {
            (run.state, run.ended_at, run.cancel_by) = (state, ended_at, None);
        });
        if let Some(workflow) = self.state.run(self.id).map(|run| run.workflow) {
            count_end(self.state, workflow, state);
            forget_oldest(self.state, workflow);
        }
    }
}

fn count_end(state: &mut State, workflow: WorkflowId, ended: RunState) {
    let Some(workflow) = state.workflow(workflow).cloned() else { return };
    state.write(WorkflowRecord {
        succeeded: workflow.succeeded + u64::from(ended == RunState::Succeeded),
        failed: workflow.failed + u64::from(ended == RunState::Failed),
        cancelled: workflow.cancelled + u64::from(ended == RunState::Cancelled),
        ..workflow
    });
}

/// Keeps the record of a workflow's runs bounded: the one that just ended makes the oldest go.
fn forget_oldest(state: &mut State, workflow: WorkflowId) {
    let Some(kept) = state.workflow(workflow).map(|w| w.head.runs_kept as usize) else { return };
    let index = state.index().workflows();
    let over = index.ended_count(workflow).saturating_sub(kept);
    let oldest: Vec<RunRecord> =
        index.ended(workflow).take(over).filter_map(|id| state.run(id).cloned()).collect();
    for run in oldest {
        state.write(RunRecord { forgotten: true, ..run });
    }
}
