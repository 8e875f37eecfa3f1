//! A workflow as it is shown.

use super::{EdgeBody, NodeBody, WorkflowCreate};
use crate::{
    api::{ConcurrencyBody, MisfireBody},
    ids::WorkflowId,
    spec::Dst,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A workflow. Lists and events leave `nodes` and `edges` out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WorkflowView {
    /// Its id.
    pub id: WorkflowId,
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// Whether it may run.
    pub enabled: bool,
    /// Raised by each change of nodes or edges.
    pub version: u32,
    /// How many nodes it has.
    pub node_count: u32,
    /// Its nodes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nodes: Option<Vec<NodeBody>>,
    /// Its edges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub edges: Option<Vec<EdgeBody>>,
    /// Its cron expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<String>,
    /// The schedule's zone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timezone: Option<String>,
    /// What is done where that zone's clock jumps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dst: Option<Dst>,
    /// What becomes of missed ticks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub misfire: Option<MisfireBody>,
    /// What becomes of runs that overlap.
    pub concurrency: ConcurrencyBody,
    /// Most nodes of one run at once.
    pub max_parallel: u32,
    /// Ended runs that are kept.
    pub runs_kept: u32,
    /// When it runs next by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run_at: Option<UnixMillis>,
    /// Runs so far.
    pub runs: u64,
    /// Runs that ended well.
    pub succeeded: u64,
    /// Runs that did not.
    pub failed: u64,
    /// Runs that were cancelled.
    pub cancelled: u64,
    /// Ticks for which there is no run, so far.
    pub skipped: u64,
    /// Why there is none for the latest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_skip: Option<String>,
    /// Runs that have not ended.
    pub open_runs: u32,
    /// When it was made.
    pub created_at: UnixMillis,
}

impl WorkflowView {
    /// The body that would make this workflow again; `None` without its nodes.
    pub fn as_create(&self) -> Option<WorkflowCreate> {
        Some(WorkflowCreate {
            name: self.name.clone(),
            description: Some(self.description.clone()),
            nodes: self.nodes.clone()?,
            edges: self.edges.clone()?,
            enabled: Some(self.enabled),
            schedule: self.schedule.clone(),
            timezone: self.timezone.clone(),
            dst: self.dst,
            misfire: self.misfire.clone(),
            concurrency: Some(self.concurrency),
            max_parallel: Some(self.max_parallel),
            runs_kept: Some(self.runs_kept),
        })
    }
}
