//! How a run is stopped: because a node failed, or because somebody cancelled it.

use super::{motion::Motion, short};
use crate::record::NodeRunRecord;
use novacron_common::{
    api::{NodeRunState, RunState},
    ids::NodeRef,
};

impl Motion<'_> {
    /// A node failed: what is at work is let finish, nothing else begins.
    pub(super) fn give_up(&mut self, reason: &str) {
        if self.phase() != RunState::Running {
            return;
        }
        self.change(|run| {
            run.state = RunState::Failing;
            run.reason = Some(short(reason));
        });
        self.drop_ready();
        let waiting: Vec<NodeRef> = self.state.index().workflows().active(self.id).collect();
        for key in waiting {
            match self.row(key).state {
                // It would have been tried again.
                NodeRunState::Waiting if self.row(key).fire.is_some() => {
                    self.end(
                        key,
                        NodeRunState::Failed,
                        Some("not tried again: the run has failed".into()),
                        None,
                    );
                }
                NodeRunState::Waiting | NodeRunState::AwaitingApproval => {
                    self.end(key, NodeRunState::Skipped, Some("the run has failed".into()), None);
                }
                _ => {}
            }
        }
    }

    fn drop_ready(&mut self) {
        let now = self.now();
        let ready: Vec<NodeRef> = self.state.index().workflows().ready(self.id).collect();
        for key in ready {
            let row = self.row(key);
            self.state.write(NodeRunRecord { state: NodeRunState::Skipped, ended_at: Some(now), ..row });
        }
    }

    /// Somebody cancelled it: what waits ends at once, what is at work is killed.
    pub(super) fn cancel_all(&mut self) {
        self.drop_ready();
        let active: Vec<NodeRef> = self.state.index().workflows().active(self.id).collect();
        for key in active {
            let row = self.row(key);
            match (row.state, row.map) {
                (NodeRunState::Running, Some(_)) => self.steps.push_back(super::motion::Step::Map(key.node)),
                (NodeRunState::Running, None) => self.stop_fire(&row),
                _ => self.end(key, NodeRunState::Cancelled, None, None),
            }
        }
    }

    /// Ends whatever is still at work, whether it was seen to end or not.
    pub(super) fn abandon(&mut self) {
        let active: Vec<NodeRef> = self.state.index().workflows().active(self.id).collect();
        // Items first: a map ends with its last item.
        for key in active.into_iter().rev() {
            let reason = "it was not seen to end: its host may still be running it".to_owned();
            self.end(key, NodeRunState::Cancelled, Some(reason), None);
        }
    }

    /// Stops the fire of a node, or those of its items; the items end with it.
    pub(super) fn stop_fires(&mut self, key: NodeRef) {
        if self.row(key).map.is_none() {
            return self.stop_fire(&self.row(key));
        }
        let items = self.state.index().workflows().active(self.id);
        let items: Vec<NodeRef> = items.filter(|item| item.node == key.node && item.item > 0).collect();
        for item in items {
            let row = self.row(item);
            self.stop_fire(&row);
            self.end(item, NodeRunState::Cancelled, Some("its map took too long".into()), None);
        }
    }

    /// A fire that waits ends at once, one that runs is killed and reports later.
    fn stop_fire(&mut self, row: &NodeRunRecord) {
        let Some(fire) = row.fire else { return };
        super::fires::stop(self.state, fire);
        self.hear(row.key, fire);
    }
}
