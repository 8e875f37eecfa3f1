//! What a node of a workflow is and does.

use super::condition::Condition;
use crate::{
    ids::JobId,
    spec::{BadName, JobTarget, Name, RetryPolicy},
    units::UnixMillis,
};
use serde::{Deserialize, Deserializer, Serialize};
use std::{fmt, str::FromStr};

/// What a node is called in edges and references: 1 to 63 letters, digits, `-` and `_`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct NodeId(String);

impl NodeId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = BadName;
    fn from_str(text: &str) -> Result<Self, BadName> {
        // A dot would be read as the beginning of a path in a reference.
        if text.contains('.') {
            return Err(BadName::Character('.'));
        }
        text.parse::<Name>().map(|name| Self(name.to_string()))
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for NodeId {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(serde::de::Error::custom)
    }
}

/// One node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSpec {
    /// Unique in its workflow.
    pub id: NodeId,
    /// For people.
    pub name: String,
    /// What it does.
    pub kind: NodeKind,
    /// Ends each try; for an approval, a map or a job the whole node. Milliseconds; `None`: a target's default, and
    /// for the others no limit.
    pub timeout_ms: Option<u64>,
    /// Tries after the first.
    pub retry: RetryPolicy,
    /// What its failure means for the run.
    pub on_failure: OnFailure,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum NodeKind {
    /// Fires a job, and ends as its fire does.
    Job(JobId),
    /// What a job could do, without a job. Its texts may be templates.
    Task(JobTarget),
    /// Lets time pass.
    Wait(Wait),
    /// Somebody has to say yes.
    Approve(Approve),
    /// Chooses between the edges behind it.
    Condition(Condition),
    /// The same for each item of a list.
    Map(MapSpec),
}

/// How long a node waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// So long, milliseconds.
    For(u64),
    /// Until then; at once if it has passed.
    Until(UnixMillis),
    /// Until the instant (RFC 3339) that this template gives.
    UntilText(String),
}

/// Who has to agree, and to what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approve {
    /// What they are asked. May be a template.
    pub message: String,
    /// Names of the API tokens whose word counts; every one that may change things if empty.
    pub approvers: Vec<String>,
}

/// The same for each item of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MapSpec {
    /// The list.
    pub items: Items,
    /// What is done for each; `{{ item }}` and `{{ item_index }}` stand for the item.
    pub each: MapBody,
    /// Most items at once.
    pub parallelism: u32,
    /// Whether the other items are still begun once one has failed. The map fails in any case.
    pub keep_going: bool,
}

/// A map's list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Items {
    /// These, as a JSON text.
    Listed(String),
    /// What this reference gives.
    From(String),
}

/// What a map does for an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MapBody {
    /// Fires a job.
    Job(JobId),
    /// What a job could do.
    Task(JobTarget),
}

/// What a node's failure means for its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnFailure {
    /// The run fails: what runs is let finish, nothing else is begun.
    #[default]
    Fail,
    /// The nodes behind it go on as if it had succeeded.
    Continue,
    /// As [`OnFailure::Fail`], but this node is run first.
    Compensate(u32),
}

/// A [`NodeKind`] without its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NodeType {
    /// Fires a job.
    Job,
    /// Runs a command on a host.
    Command,
    /// Runs a command inside a machine.
    VmCommand,
    /// Does something to a machine.
    Vm,
    /// Calls somebody over HTTP.
    Http,
    /// Does nothing: a place where branches meet.
    Noop,
    /// Leaves a line in an agent's record file.
    Record,
    /// Lets time pass.
    Wait,
    /// Asks a person.
    Approve,
    /// Chooses a branch.
    Condition,
    /// Does the same for each item of a list.
    Map,
}

impl NodeKind {
    /// Which kind.
    pub const fn node_type(&self) -> NodeType {
        match self {
            Self::Job(_) => NodeType::Job,
            Self::Task(target) => target_type(target),
            Self::Wait(_) => NodeType::Wait,
            Self::Approve(_) => NodeType::Approve,
            Self::Condition(_) => NodeType::Condition,
            Self::Map(_) => NodeType::Map,
        }
    }

    /// The jobs that it fires.
    pub const fn job(&self) -> Option<JobId> {
        match self {
            Self::Job(job) | Self::Map(MapSpec { each: MapBody::Job(job), .. }) => Some(*job),
            _ => None,
        }
    }
}

const fn target_type(target: &JobTarget) -> NodeType {
    match target {
        JobTarget::Noop => NodeType::Noop,
        JobTarget::Record => NodeType::Record,
        JobTarget::Command(_) => NodeType::Command,
        JobTarget::VmCommand(_) => NodeType::VmCommand,
        JobTarget::Vm(_) => NodeType::Vm,
        JobTarget::Http(_) => NodeType::Http,
    }
}
