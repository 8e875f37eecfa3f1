//! Workflows, their runs, and the nodes of each. A node has a row of its own in the definition and in every run, so
//! that a step forward writes small rows however large the workflow is.

use novacron_common::{
    api::{NodeRunState, RunCause, RunState},
    ids::{FireKey, JobId, NodeRef, RunId, WorkflowId},
    spec::{
        JobTarget, RetryPolicy,
        workflow::{NodeId, NodeSpec, WorkflowHead},
    },
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// A tick that made no run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSkip {
    /// Which.
    pub at: UnixMillis,
    /// Why.
    pub reason: String,
}

/// One workflow, without its nodes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowRecord {
    /// Its id.
    pub id: WorkflowId,
    /// What concerns it as a whole.
    pub head: WorkflowHead,
    /// Of its nodes and edges; raised by each change of them.
    pub version: u32,
    /// How many nodes it has.
    pub nodes: u32,
    /// Raised by each change of anything; a tick that was computed from an older one is refused.
    pub revision: u64,
    /// When it is due next; computed by the proposer.
    pub next_at: Option<UnixMillis>,
    /// The last tick that was dealt with.
    pub last_tick: Option<UnixMillis>,
    /// Runs so far.
    pub runs: u64,
    /// Runs that ended well.
    pub succeeded: u64,
    /// Runs that did not.
    pub failed: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
    /// Ticks that made no run.
    pub skipped: u64,
    /// The latest of them.
    pub last_skip: Option<RunSkip>,
    /// Whether it was removed: its runs are being forgotten, then it goes itself.
    pub removed: bool,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// One node of one version of a workflow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeKey {
    /// Of which workflow.
    pub workflow: WorkflowId,
    /// Of which version of it.
    pub version: u32,
    /// Its place.
    pub node: u32,
}

/// A node that comes right behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// Which.
    pub node: u32,
    /// Behind a condition: which outcome leads there.
    pub when: bool,
}

/// A node of a definition. Never changes: a change of a workflow makes new rows under a new version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// Which.
    pub key: NodeKey,
    /// What it is.
    pub spec: NodeSpec,
    /// The nodes right behind it.
    pub after: Vec<Next>,
    /// How many are right before it.
    pub before: u32,
    /// Whether it undoes another: then it runs on that one's failure only.
    pub undoes: bool,
    /// The places of the nodes that it refers to.
    pub refers_to: Vec<(NodeId, u32)>,
}

/// One run. Written when it begins, fails, is cancelled and ends, and not by each step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// Its id.
    pub id: RunId,
    /// Of which workflow.
    pub workflow: WorkflowId,
    /// The version that it began with, and keeps to.
    pub version: u32,
    /// How many nodes that has.
    pub nodes: u32,
    /// Most nodes at work at once.
    pub max_parallel: u32,
    /// Why it exists.
    pub cause: RunCause,
    /// The tick that it stands for, or when it was asked for.
    pub scheduled_at: UnixMillis,
    /// How it is.
    pub state: RunState,
    /// What went wrong first.
    pub reason: Option<String>,
    /// How often it was retried.
    pub retries: u32,
    /// When it began (again).
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// By when it has ended in any case, once it is cancelled.
    pub cancel_by: Option<UnixMillis>,
    /// Whether its rows are being removed.
    pub forgotten: bool,
}

/// What a run was started with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunInputRecord {
    /// Which run.
    pub run: RunId,
    /// JSON.
    pub input: String,
}

/// How far a map is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapProgress {
    /// How many items there are.
    pub items: u32,
    /// How many have begun.
    pub begun: u32,
    /// How many are at work.
    pub open: u32,
    /// How many failed.
    pub failed: u32,
}

/// A node of a run, or (with [`NodeRef::item`] from 1 on) an item of its map. There is none for a node that no other
/// has led to yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRunRecord {
    /// Which.
    pub key: NodeRef,
    /// How it is.
    pub state: NodeRunState,
    /// Edges to it whose beginning has ended.
    pub resolved: u32,
    /// Whether any of them leads here.
    pub live: bool,
    /// Fires made for it, or times it began.
    pub tries: u32,
    /// The latest fire.
    pub fire: Option<FireKey>,
    /// When everything before it had ended.
    pub ready_at: Option<UnixMillis>,
    /// When it began.
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// The end of its wait, or of its time.
    pub until: Option<UnixMillis>,
    /// What went wrong, or what an approval asks.
    pub reason: Option<String>,
    /// What it left behind.
    pub output: Option<String>,
    /// The item, as JSON.
    pub item: Option<String>,
    /// How far its map is.
    pub map: Option<MapProgress>,
}

impl NodeRunRecord {
    /// A node that nothing has led to yet.
    pub const fn new(key: NodeRef) -> Self {
        Self {
            key,
            state: NodeRunState::Pending,
            resolved: 0,
            live: false,
            tries: 0,
            fire: None,
            ready_at: None,
            started_at: None,
            ended_at: None,
            until: None,
            reason: None,
            output: None,
            item: None,
            map: None,
        }
    }

    /// Whether it is at work or waits for time or a person.
    pub const fn is_active(&self) -> bool {
        matches!(self.state, NodeRunState::Running | NodeRunState::Waiting | NodeRunState::AwaitingApproval)
    }
}

/// What a node that is no job does, with its values: the definition of its fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The job part of its fires' keys.
    pub id: JobId,
    /// For which node.
    pub node: NodeRef,
    /// What is done.
    pub target: JobTarget,
    /// Ends an attempt, milliseconds.
    pub timeout_ms: u64,
    /// Tries after the first.
    pub retry: RetryPolicy,
}
