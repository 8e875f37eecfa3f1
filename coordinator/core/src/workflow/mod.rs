//! Workflows: the pure decisions. What a step forward writes is in `apply/workflows`; what it means is decided here.
//!
//! A run is a set of small rows, one a node. When a node ends, each edge behind it is *resolved*: it leads on, or it
//! does not (the node was skipped, or a condition came out the other way). A node whose edges are all resolved begins
//! if at least one of them leads to it, and is skipped else. That is the whole rule: see [`join`].

mod again;
mod due;
mod path;
mod values;

pub use again::again;
pub use due::{due, due_ticks, next_due};
pub use path::{Definition, critical_path};
pub(crate) use values::{RunValues, read_output};

use crate::record::{NodeRunRecord, RunRecord};
use novacron_common::{
    api::NodeRunState,
    spec::workflow::{NodeKind, OnFailure},
};

/// What becomes of a node once another edge to it is resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Join {
    /// Others are still open.
    Open,
    /// It may begin.
    Begin,
    /// No edge leads to it.
    Skip,
}

/// Resolves one edge to a node with `before` edges to it.
pub const fn join(node: &mut NodeRunRecord, before: u32, live: bool) -> Join {
    node.resolved += 1;
    node.live |= live;
    match (node.resolved >= before, node.live) {
        (false, _) => Join::Open,
        (true, true) => Join::Begin,
        (true, false) => Join::Skip,
    }
}

/// Whether an edge behind a node that has ended leads on; `None` while it cannot be said, or never will be.
pub fn leads_on(kind: &NodeKind, on_failure: OnFailure, ended: &NodeRunRecord, when: bool) -> Option<bool> {
    match ended.state {
        NodeRunState::Succeeded if matches!(kind, NodeKind::Condition(_)) => {
            Some(ended.output.as_deref() == Some(if when { "true" } else { "false" }))
        }
        NodeRunState::Succeeded => Some(true),
        NodeRunState::Failed if on_failure == OnFailure::Continue => Some(true),
        NodeRunState::Skipped => Some(false),
        _ => None,
    }
}

/// The state of a node as it is shown: where its run has ended, a node that never began was passed over.
pub fn shown(run: &RunRecord, node: Option<&NodeRunRecord>) -> NodeRunState {
    match node.map_or(NodeRunState::Pending, |node| node.state) {
        NodeRunState::Pending | NodeRunState::Ready if run.state.is_final() => NodeRunState::Skipped,
        state => state,
    }
}
