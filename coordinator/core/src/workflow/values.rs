//! The values that templates and conditions of a run speak of.

use crate::{
    record::{NodeKey, NodeRecord, NodeRunRecord, RunRecord},
    state::State,
};
use novacron_common::{
    api::NodeRunState,
    ids::NodeRef,
    spec::workflow::{NodeId, Source, Values},
};
use serde_json::{Value, json};
use std::borrow::Cow;

/// What a node of a run may look at.
pub(crate) struct RunValues<'s> {
    pub state: &'s State,
    pub run: &'s RunRecord,
    pub node: &'s NodeRecord,
    /// The item that is worked on: its JSON, and its place from 0 on.
    pub item: Option<(&'s str, u32)>,
}

/// An output as a value: JSON where it is some, else a text.
pub(crate) fn read_output(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}

impl RunValues<'_> {
    fn row(&self, id: &NodeId) -> Result<&NodeRunRecord, String> {
        let number = self.node.refers_to.iter().find(|(known, _)| known == id).map(|(_, number)| *number);
        let node = number.ok_or_else(|| format!("there is no node {id}"))?;
        let key = NodeRef { run: self.run.id, node, item: 0 };
        self.state.node_run(key).ok_or_else(|| "the node did not run".to_owned())
    }

    fn output(&self, id: &NodeId) -> Result<Value, String> {
        let row = self.row(id)?;
        if let Some(map) = row.map {
            let items = (1..=map.items).map(|item| self.state.node_run(NodeRef { item, ..row.key }));
            let output =
                |item: Option<&NodeRunRecord>| item.and_then(|i| i.output.as_deref()).map(read_output);
            return Ok(items.map(|item| output(item).unwrap_or(Value::Null)).collect());
        }
        match (&row.output, row.state) {
            (Some(output), _) => Ok(read_output(output)),
            (None, NodeRunState::Succeeded) => Ok(Value::Null),
            (None, state) => Err(format!("the node has no output: it is {}", state.as_str())),
        }
    }
}

impl Values for RunValues<'_> {
    fn value(&self, source: &Source) -> Result<Cow<'_, Value>, String> {
        let item = || self.item.ok_or_else(|| "only a map's each has an item".to_owned());
        let value = match source {
            Source::Output(id) => self.output(id)?,
            Source::Status(id) => json!(self.row(id)?.state.as_str()),
            Source::Input => {
                self.state.run_input(self.run.id).map_or_else(|| json!({}), |r| read_output(&r.input))
            }
            Source::RunId => json!(self.run.id.to_string()),
            Source::ScheduledAt => json!(self.run.scheduled_at.rfc3339()),
            Source::WorkflowName => {
                let workflow = self.state.workflow(self.run.workflow);
                json!(workflow.map(|w| w.head.name.as_str()).unwrap_or_default())
            }
            Source::Item => read_output(item()?.0),
            Source::ItemIndex => json!(item()?.1),
        };
        Ok(Cow::Owned(value))
    }
}

impl State {
    /// The definition of a node of a run.
    pub fn definition(&self, run: &RunRecord, node: u32) -> Option<&NodeRecord> {
        self.workflow_node(NodeKey::of(run, node))
    }
}
