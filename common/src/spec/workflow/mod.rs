//! A workflow as the ledger keeps it: nodes, edges without cycles, and when it runs by itself.

mod condition;
mod graph;
mod node;
mod reference;
mod template;
mod texts;

pub use condition::{BadCondition, Condition};
pub use graph::{Ancestors, Edge, Graph, show_cycle};
pub use node::{Approve, Items, MapBody, MapSpec, NodeId, NodeKind, NodeSpec, NodeType, OnFailure, Wait};
pub use reference::{BadReference, Reference, Source, Values};
pub use template::{BadTemplate, Template};
pub use texts::{render, squeeze, texts};

use super::{Concurrency, Dst, Misfire, Name, Schedule, TimeZone};
use serde::{Deserialize, Serialize};

/// A workflow. Built by [`crate::api::WorkflowCreate::check`], which checks all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowSpec {
    /// What concerns it as a whole.
    pub head: WorkflowHead,
    /// Its nodes.
    pub nodes: Vec<NodeSpec>,
    /// Who follows whom. No cycles, no pair twice.
    pub edges: Vec<Edge>,
}

/// What concerns a workflow as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkflowHead {
    /// Unique in the cluster.
    pub name: Name,
    /// For people.
    pub description: String,
    /// Whether it may run at all.
    pub enabled: bool,
    /// When it runs by itself; `None`: only on request.
    pub trigger: Option<Trigger>,
    /// What becomes of a run while another of the same workflow has not ended.
    pub concurrency: Concurrency,
    /// Most nodes of one run that work at the same time.
    pub max_parallel: u32,
    /// Most ended runs that are kept.
    pub runs_kept: u32,
}

/// When a workflow runs by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trigger {
    /// When it is due.
    pub schedule: Schedule,
    /// Whose wall clock the schedule means.
    pub timezone: TimeZone,
    /// What is done where that clock jumps.
    pub dst: Dst,
    /// What becomes of ticks that nobody committed in time.
    pub misfire: Misfire,
}

impl WorkflowSpec {
    /// Most nodes: each is a row of the ledger, and a run has a row for each again.
    pub const NODES_MAX: usize = 5_000;
    /// Most edges.
    pub const EDGES_MAX: usize = 20_000;
    /// Longest description, bytes.
    pub const DESCRIPTION_MAX: usize = 4096;
    /// Most items of a map.
    pub const ITEMS_MAX: usize = 1_000;
    /// Most items of one map at once.
    pub const PARALLELISM_MAX: u32 = 100;
    /// Most nodes of one run at once.
    pub const MAX_PARALLEL_MAX: u32 = 1_000;
    /// Most ended runs that are kept of one workflow.
    pub const RUNS_KEPT_MAX: u32 = 1_000;
    /// Longest output of a node, bytes.
    pub const OUTPUT_MAX: usize = 16 * 1024;
    /// Longest input of a run as JSON, bytes.
    pub const INPUT_MAX: usize = 32 * 1024;

    /// Its shape.
    pub fn graph(&self) -> Graph {
        Graph::new(self.nodes.len(), &self.edges)
    }
}
