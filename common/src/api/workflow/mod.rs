//! Workflows over HTTP.

mod body;
mod config;
mod graph;
mod node;
mod run;
mod view;

#[cfg(test)]
mod tests;

pub use body::{WorkflowCreate, WorkflowUpdate};
pub use node::{EdgeBody, NodeBody, OnFailureBody};
pub use run::{
    CriticalPath, Decision, NodeCounts, NodeRunState, NodeRunView, RunAccepted, RunCause, RunDetail,
    RunRequest, RunRetryRequest, RunState, RunView, StepView,
};
pub use view::WorkflowView;
