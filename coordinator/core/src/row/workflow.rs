//! The tables of workflows and runs.

use crate::{
    index::{Indices, Named},
    record::{NodeKey, NodeRecord, NodeRunRecord, RunInputRecord, RunRecord, TaskRecord, WorkflowRecord},
    table::{Row, TableId},
};
use novacron_common::ids::{JobId, NodeRef, RunId, WorkflowId};

impl Row for WorkflowRecord {
    type Key = WorkflowId;
    const TABLE: TableId = TableId::Workflows;
    fn key(&self) -> WorkflowId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        if !self.removed {
            index.name(Named::Workflow(self.id), &self.head.name);
        }
        index.workflows.add_workflow(self);
    }
    fn leave(&self, index: &mut Indices) {
        if !self.removed {
            index.unname(Named::Workflow(self.id), &self.head.name);
        }
        index.workflows.drop_workflow(self);
    }
}

impl Row for NodeRecord {
    type Key = NodeKey;
    const TABLE: TableId = TableId::WorkflowNodes;
    fn key(&self) -> NodeKey {
        self.key
    }
}

impl Row for RunRecord {
    type Key = RunId;
    const TABLE: TableId = TableId::Runs;
    fn key(&self) -> RunId {
        self.id
    }
    fn enter(&self, index: &mut Indices) {
        index.workflows.add_run(self);
    }
    fn leave(&self, index: &mut Indices) {
        index.workflows.drop_run(self);
    }
}

impl Row for RunInputRecord {
    type Key = RunId;
    const TABLE: TableId = TableId::RunInputs;
    fn key(&self) -> RunId {
        self.run
    }
}

impl Row for NodeRunRecord {
    type Key = NodeRef;
    const TABLE: TableId = TableId::NodeRuns;
    fn key(&self) -> NodeRef {
        self.key
    }
    fn enter(&self, index: &mut Indices) {
        index.workflows.add_node(self);
    }
    fn leave(&self, index: &mut Indices) {
        index.workflows.drop_node(self);
    }
}

impl Row for TaskRecord {
    type Key = JobId;
    const TABLE: TableId = TableId::Tasks;
    fn key(&self) -> JobId {
        self.id
    }
}
