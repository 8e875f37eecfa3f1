//! Nodes and edges as JSON.

use crate::{
    api::{Period, RetryBody},
    spec::workflow::{Edge, NodeSpec, NodeType, OnFailure},
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// What a node's failure means for its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFailureBody {
    /// The run fails (the default): what runs is let finish, nothing else is begun.
    #[default]
    Fail,
    /// The nodes behind it go on.
    Continue,
    /// The run fails, and the node named by `compensation` is run before it ends.
    Compensate,
}

/// A node. `config` depends on `type`:
///
/// | `type` | `config` |
/// |---|---|
/// | `job` | `{"jobId": "job-… or name"}` |
/// | `command`, `vm_command`, `vm`, `http` | as a job's `target`, without its `type`; texts may hold `{{ nodes.a.output.x }}` |
/// | `noop`, `record` | none |
/// | `wait` | `{"duration": "5m"}` or `{"until": "2027-01-01T00:00:00Z"}` |
/// | `approve` | `{"message": "…", "approvers": ["token name"]}`, both optional |
/// | `condition` | `{"if": "nodes.a.output.count > 3"}`; edges behind it may have `"when": false` |
/// | `map` | `{"items": [1, 2] or "nodes.a.output.files", "each": {"type": "command", "config": {…}}, "parallelism": 8, "on_item_failure": "fail" or "continue"}` |
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NodeBody {
    /// Unique in the workflow: letters, digits, `-` and `_`.
    pub id: String,
    /// For people (default: the id).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What it is.
    #[serde(rename = "type")]
    pub node_type: NodeType,
    /// What it does; see above.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    #[schema(value_type = Object)]
    pub config: Value,
    /// Ends each try of a target, and the whole node of the other types (default: a target's one hour, else none).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// Tries after the first (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retries: Option<u32>,
    /// Tries after the first, in detail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryBody>,
    /// What its failure means for the run (default `fail`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailureBody>,
    /// With `on_failure: compensate`: the node that undoes it. No edge leads to or from that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<String>,
}

/// An edge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct EdgeBody {
    /// The earlier node's id.
    pub from: String,
    /// The later node's id.
    pub to: String,
    /// Behind a condition: which outcome leads this way (default `true`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<bool>,
}

impl NodeBody {
    /// A node as it was asked for; `nodes` are all of the workflow's, to name the compensation.
    pub fn new(node: &NodeSpec, nodes: &[NodeSpec]) -> Self {
        let (on_failure, compensation) = match node.on_failure {
            OnFailure::Fail => (OnFailureBody::Fail, None),
            OnFailure::Continue => (OnFailureBody::Continue, None),
            OnFailure::Compensate(n) => {
                (OnFailureBody::Compensate, nodes.get(n as usize).map(|n| n.id.to_string()))
            }
        };
        Self {
            id: node.id.to_string(),
            name: Some(node.name.clone()),
            node_type: node.kind.node_type(),
            config: super::config::show(&node.kind),
            timeout: node.timeout_ms.map(Period::Millis),
            max_retries: None,
            retry: Some((&node.retry).into()),
            on_failure: Some(on_failure),
            compensation,
        }
    }
}

impl EdgeBody {
    /// An edge between these nodes; `None` if they are not there.
    pub fn new(edge: Edge, nodes: &[NodeSpec]) -> Option<Self> {
        let id = |n: u32| nodes.get(n as usize).map(|node| node.id.to_string());
        Some(Self { from: id(edge.from)?, to: id(edge.to)?, when: (!edge.when).then_some(false) })
    }
}
