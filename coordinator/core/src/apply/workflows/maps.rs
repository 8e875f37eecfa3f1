//! Maps: the same for each item of a list, a few at a time.

use super::motion::{Motion, Step};
use crate::record::{MapProgress, NodeRunRecord};
use novacron_common::{
    api::{NodeRunState, RunState},
    ids::NodeRef,
    spec::workflow::{Items, MapSpec, NodeKind, Reference, WorkflowSpec},
};
use serde_json::Value;

impl Motion<'_> {
    /// Writes a row for each item, and the map's own.
    pub(super) fn begin_map(&mut self, key: NodeRef, map: &MapSpec) -> Result<(), String> {
        let items = self.items(key, map)?;
        let count = u32::try_from(items.len()).unwrap_or(u32::MAX);
        for (item, value) in (1..).zip(&items) {
            let row = NodeRunRecord::new(NodeRef { item, ..key });
            self.state.write(NodeRunRecord { item: Some(value.to_string()), ..row });
        }
        let row = self.row(key);
        let progress = MapProgress { items: count, ..MapProgress::default() };
        self.state.write(NodeRunRecord { map: Some(progress), ..row });
        self.steps.push_back(Step::Map(key.node));
        Ok(())
    }

    fn items(&self, key: NodeRef, map: &MapSpec) -> Result<Vec<Value>, String> {
        let list = match &map.items {
            Items::Listed(text) => serde_json::from_str(text).map_err(|e| e.to_string())?,
            Items::From(text) => {
                let reference = Reference::parse(text).map_err(|e| e.to_string())?;
                self.with_values(key, |values| Ok(reference.resolve(values)?.into_owned()))?
            }
        };
        match list {
            Value::Array(items) if items.len() > WorkflowSpec::ITEMS_MAX => {
                Err(format!("its list has {} items: at most {}", items.len(), WorkflowSpec::ITEMS_MAX))
            }
            Value::Array(items) if items.iter().any(|i| i.to_string().len() > WorkflowSpec::INPUT_MAX) => {
                Err(format!("an item has more than {} bytes", WorkflowSpec::INPUT_MAX))
            }
            Value::Array(items) => Ok(items),
            other => Err(format!("{} is no list", super::short(&other.to_string()))),
        }
    }

    /// Begins what may begin, and ends the map with its last item.
    pub(super) fn map_on(&mut self, node: u32) {
        let key = self.key(node);
        while let Some(item) = self.next_item(key) {
            self.begin_item(NodeRef { item, ..key });
        }
        let row = self.row(key);
        let Some(map) = row.map.filter(|map| map.open == 0 && row.state == NodeRunState::Running) else {
            return;
        };
        if self.phase() == RunState::Cancelling {
            self.end(key, NodeRunState::Cancelled, None, None);
        } else if map.failed > 0 {
            self.fail(key, &format!("{} of {} items failed", map.failed, map.items), None);
        } else if map.begun == map.items {
            self.succeed(key, None);
        }
    }

    fn next_item(&mut self, key: NodeRef) -> Option<u32> {
        let row = self.state.node_run(key).filter(|row| row.state == NodeRunState::Running)?;
        let map = row.map.filter(|map| map.begun < map.items)?;
        let NodeKind::Map(spec) = &self.definition(key.node)?.spec.kind else { return None };
        let stopped = map.failed > 0 && !spec.keep_going;
        // A map that was begun is let finish where its run only fails.
        let may = !stopped && self.phase() != RunState::Cancelling && map.open < spec.parallelism;
        (may && self.spend()).then_some(map.begun + 1)
    }

    fn begin_item(&mut self, key: NodeRef) {
        let row = self.row(NodeRef { item: 0, ..key });
        let Some(map) = row.map else { return };
        let map = Some(MapProgress { begun: map.begun + 1, open: map.open + 1, ..map });
        self.state.write(NodeRunRecord { map, ..row });
        self.begin(key);
    }

    pub(super) fn item_ended(&mut self, key: NodeRef, state: NodeRunState) {
        let row = self.row(NodeRef { item: 0, ..key });
        let Some(map) = row.map else { return };
        let failed = map.failed + u32::from(state != NodeRunState::Succeeded);
        let map = Some(MapProgress { open: map.open.saturating_sub(1), failed, ..map });
        self.state.write(NodeRunRecord { map, ..row });
        self.steps.push_back(Step::Map(key.node));
    }
}
