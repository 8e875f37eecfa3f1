//! Which nodes are run again when a run is retried.

use crate::{
    record::{NodeRecord, RunRecord},
    state::State,
};
use novacron_common::{api::NodeRunState, ids::NodeRef, spec::workflow::OnFailure};
use std::collections::BTreeSet;

/// The nodes that begin anew: `from` or, without it, each that did not end well; and everything behind those. The
/// others keep what they have. A node that failed is always among them, except where the run was to go on without it.
pub fn again(state: &State, run: &RunRecord, definition: &[NodeRecord], from: Option<u32>) -> BTreeSet<u32> {
    let unfinished = |node: &&NodeRecord| {
        let key = NodeRef { run: run.id, node: node.key.node, item: 0 };
        match state.node_run(key).map(|row| row.state) {
            Some(NodeRunState::Succeeded) => false,
            Some(NodeRunState::Failed) => from.is_some() || node.spec.on_failure != OnFailure::Continue,
            // Skipped because no branch led there: it keeps that, unless what is before it is run again.
            Some(NodeRunState::Skipped) => node.undoes || !resolved(state, key, node.before),
            _ => true,
        }
    };
    let mut open: Vec<u32> = from.into_iter().collect();
    open.extend(definition.iter().filter(unfinished).map(|node| node.key.node));
    let mut found: BTreeSet<u32> = BTreeSet::new();
    while let Some(node) = open.pop() {
        if found.insert(node)
            && let Some(record) = definition.get(node as usize)
        {
            open.extend(record.after.iter().map(|next| next.node));
        }
    }
    // What undid others undoes them again if they fail again.
    found.extend(definition.iter().filter(|node| node.undoes).map(|node| node.key.node));
    found
}

fn resolved(state: &State, key: NodeRef, before: u32) -> bool {
    before > 0 && state.node_run(key).is_some_and(|row| row.resolved >= before && !row.live)
}
