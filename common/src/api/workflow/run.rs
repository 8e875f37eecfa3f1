//! Runs of workflows and their nodes.

use crate::{
    ids::{RunId, WorkflowId},
    spec::workflow::NodeType,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// `POST /api/v1/workflows/{id}/execute`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRequest {
    /// What `run.input` stands for: any JSON of at most 32 KiB (default `{}`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub input: Option<Value>,
}

/// `202` of `execute`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunAccepted {
    /// The run.
    pub run: RunId,
}

/// `POST …/runs/{run}/retry`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RunRetryRequest {
    /// This node and those behind it are run again (default: what did not succeed, and what is behind that). Nodes
    /// that stay keep their outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

/// `POST …/nodes/{node}/approve` and `…/reject`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Decision {
    /// Why, at most 1024 bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunState {
    /// It waits for an earlier run of the same workflow.
    Queued,
    /// Nodes are at work.
    Running,
    /// A node failed: what runs is let finish, what undoes is run.
    Failing,
    /// Somebody cancelled it: what runs is being killed.
    Cancelling,
    /// Every node ended well, or was passed over.
    Succeeded,
    /// A node failed.
    Failed,
    /// It was cancelled.
    Cancelled,
}

impl RunState {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }
}

/// Where a node of a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeRunState {
    /// Nodes before it have not ended.
    Pending,
    /// It may begin, and does so when fewer others are at work.
    Ready,
    /// It is at work.
    Running,
    /// It waits for its time, or for its next try.
    Waiting,
    /// It waits for somebody to approve.
    AwaitingApproval,
    /// It ended well.
    Succeeded,
    /// It did not.
    Failed,
    /// No branch led to it, or its run ended before.
    Skipped,
    /// Its run was cancelled while it was at work.
    Cancelled,
}

impl NodeRunState {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped | Self::Cancelled)
    }

    /// As it is written in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::AwaitingApproval => "awaiting_approval",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Why a run exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RunCause {
    /// The schedule was due.
    Schedule,
    /// Somebody asked for it.
    Manual,
}

/// How many nodes of a run are where; items of maps are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeCounts {
    /// All of them.
    pub total: u32,
    /// Not begun.
    pub pending: u32,
    /// At work, or waiting for time, a try or a person.
    pub active: u32,
    /// Ended well.
    pub succeeded: u32,
    /// Failed.
    pub failed: u32,
    /// Passed over.
    pub skipped: u32,
    /// Cancelled.
    pub cancelled: u32,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunView {
    /// Its id.
    pub id: RunId,
    /// Of what.
    pub workflow: WorkflowId,
    /// The version of the definition that it keeps to.
    pub version: u32,
    /// Why it exists.
    pub cause: RunCause,
    /// The tick that it stands for, or when it was asked for.
    pub scheduled_at: UnixMillis,
    /// How it is.
    pub state: RunState,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Its nodes by state.
    pub nodes: NodeCounts,
    /// How often it was retried.
    pub retries: u32,
    /// When it began (again).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
}

/// A node of a run, or an item of its map.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NodeRunView {
    /// The node's id.
    pub id: String,
    /// For people.
    pub name: String,
    /// What it is.
    #[serde(rename = "type")]
    pub node_type: NodeType,
    /// How it is.
    pub state: NodeRunState,
    /// Which item of a map, the first is 0; absent for the node itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// What went wrong, or what is asked of whoever approves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Tries begun by the workflow; a target's own retries are its fire's attempts.
    pub tries: u32,
    /// Its latest fire: `GET /api/v1/jobs/{job}/fires/{fire}` for a job's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fire: Option<String>,
    /// When everything before it had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<UnixMillis>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<UnixMillis>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<UnixMillis>,
    /// Until when it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<UnixMillis>,
    /// What it left behind; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub output: Option<Value>,
    /// Bytes of its output.
    pub output_bytes: u64,
    /// Of a map: how many items there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
}

/// A node on the critical path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StepView {
    /// The node's id.
    pub id: String,
    /// How long it waited after everything before it had ended, milliseconds.
    pub queued_ms: u64,
    /// How long it was at work, milliseconds.
    pub work_ms: u64,
}

/// The chain of nodes that the run's length is made of: from the node that ended last back to the one before it that
/// ended last, and so on. Shortening any other node would not have shortened the run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CriticalPath {
    /// Its nodes, the first first.
    pub steps: Vec<StepView>,
    /// Their work, milliseconds.
    pub work_ms: u64,
    /// From the run's beginning to its end (or the latest end so far), milliseconds.
    pub total_ms: u64,
    /// What of `total_ms` is not `work_ms`.
    pub overhead_ms: u64,
}

/// `GET …/runs/{run}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RunDetail {
    /// The run.
    #[serde(flatten)]
    pub run: RunView,
    /// What it was started with.
    #[schema(value_type = Object)]
    pub input: Value,
    /// Its nodes in the order of the definition, without outputs.
    pub node_runs: Vec<NodeRunView>,
    /// The edges of its definition.
    pub edges: Vec<super::EdgeBody>,
    /// What its length is made of.
    pub critical_path: CriticalPath,
}
