//! Commands about workflows and runs.

use super::NextTick;
use novacron_common::{
    ids::{RunId, WorkflowId},
    spec::workflow::{Edge, NodeSpec, WorkflowHead, WorkflowSpec},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// See [`super::CommandBody::WorkflowPut`]. Build it with [`WorkflowPut::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowPut {
    /// The new workflow's id.
    pub id: WorkflowId,
    /// What is asked for.
    pub spec: WorkflowSpec,
    /// The first tick after now.
    pub next_at: NextTick,
}

/// A workflow's nodes and edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shape {
    /// The nodes.
    pub nodes: Vec<NodeSpec>,
    /// The edges.
    pub edges: Vec<Edge>,
}

/// See [`super::CommandBody::WorkflowUpdate`]. Build it with [`WorkflowUpdate::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowUpdate {
    /// Which.
    pub id: WorkflowId,
    /// Everything but nodes and edges after the update.
    pub head: WorkflowHead,
    /// Nodes and edges after the update; `None` if they stay.
    pub shape: Option<Shape>,
    /// The revision that the update was made from; refused if another came first.
    pub revision: u64,
    /// The first tick after now.
    pub next_at: NextTick,
}

/// See [`super::CommandBody::RunStart`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// The new run's id. The same request again is answered as the first time.
    pub id: RunId,
    /// Of what.
    pub workflow: WorkflowId,
    /// JSON; nothing if empty.
    pub input: String,
}

/// See [`super::CommandBody::RunTick`]. Made by [`crate::workflow::due_ticks`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunTick {
    /// Which workflow.
    pub workflow: WorkflowId,
    /// The id of the run that it makes.
    pub run: RunId,
    /// The tick.
    pub scheduled_at: UnixMillis,
    /// The workflow's revision that the tick was computed from.
    pub revision: u64,
    /// The tick after this one.
    pub next_at: NextTick,
    /// Whether the tick was missed: it is dealt with, and makes no run.
    pub missed: bool,
    /// Ticks before this one that are passed over; a lower bound once there are many.
    pub passed_over: u64,
}

/// See [`super::CommandBody::RunRetry`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRetry {
    /// Which run.
    pub run: RunId,
    /// From this node on; `None`: what did not succeed.
    pub from: Option<u32>,
}

/// See [`super::CommandBody::NodeDecide`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeDecide {
    /// Which run.
    pub run: RunId,
    /// Which node.
    pub node: u32,
    /// Whether it may go on.
    pub approved: bool,
    /// Who says so: an API token's name.
    pub by: String,
    /// Why.
    pub comment: String,
}

/// See [`super::CommandBody::RunAdvance`]. Made by [`crate::workflow::due`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunAdvance {
    /// Which run.
    pub run: RunId,
    /// Nodes and items whose time has come.
    pub timers: Vec<(u32, u32)>,
}
