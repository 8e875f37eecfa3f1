//! A changed row as an event's content.

use super::{NodeOutputs, Outputs, Shapes};
use crate::{
    record::{
        AlarmRecord, FireRecord, HostRecord, JobPulse, JobRecord, MigrationRecord, NetworkRecord,
        NodeRunRecord, OverdueRecord, RunRecord, TemplateRecord, VmRecord, WorkflowRecord,
    },
    state::State,
    table::{Change, DecodeError, Row, RowKey, TableId, decode_row},
};
use novacron_common::{
    api::{
        AlarmView, EventKind, FireView, HostView, JobView, MigrationView, NetworkView, NodeRunView,
        OverdueView, RunView, TemplateView, VmView, WorkflowView,
    },
    ids::{FireKey, HostId, JobId, MigrationId, NetworkId, RunId, TemplateId, VmId, WorkflowId},
};
use serde::Serialize;
use std::fmt::Display;

/// A thing as the HTTP API shows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Object {
    /// A machine.
    Vm(Box<VmView>),
    /// A host.
    Host(Box<HostView>),
    /// A template.
    Template(Box<TemplateView>),
    /// A job.
    Job(Box<JobView>),
    /// A fire, without its outputs.
    Fire(Box<FireView>),
    /// A migration.
    Migration(Box<MigrationView>),
    /// A coordinator whose clock is off.
    Alarm(AlarmView),
    /// A job that is overdue.
    Overdue(Box<OverdueView>),
    /// A workflow, without its nodes.
    Workflow(Box<WorkflowView>),
    /// A run, without its nodes.
    Run(Box<RunView>),
    /// A node of a run, without its output.
    Node(Box<NodeRunView>),
    /// A tenant network.
    Network(Box<NetworkView>),
}

/// What changed.
#[derive(Debug, Clone, PartialEq)]
pub struct ChangedObject {
    /// What kind of thing.
    pub kind: EventKind,
    /// Its id.
    pub id: String,
    /// The thing after the change; `None` if it is gone.
    pub object: Option<Object>,
}

/// The event content of a change; `None` for rows that are not shown. Names of other things (a machine's host) are
/// looked up in `state`, the row itself is the one that was committed.
///
/// # Errors
/// [`DecodeError`] if the change is not one of [`State::take_changes`].
pub fn changed(state: &State, change: &Change) -> Result<Option<ChangedObject>, DecodeError> {
    let event = match change.table {
        TableId::Vms => {
            read::<VmRecord, VmId>(EventKind::Vm, change, |row| Object::Vm(Box::new(super::vm(state, &row))))?
        }
        TableId::Hosts => read::<HostRecord, HostId>(EventKind::Host, change, |row| {
            Object::Host(Box::new(super::host(state, &row)))
        })?,
        TableId::Templates => read::<TemplateRecord, TemplateId>(EventKind::Template, change, |row| {
            Object::Template(Box::new(super::template(&row)))
        })?,
        // Whoever writes a job writes its pulse too, and that event shows both. Only its end has none.
        TableId::Jobs if change.value.is_some() => return Ok(None),
        TableId::Jobs => read::<JobRecord, JobId>(EventKind::Job, change, |row| {
            Object::Job(Box::new(super::job(state, &row)))
        })?,
        TableId::Fires => read::<FireRecord, FireKey>(EventKind::Fire, change, |row| {
            Object::Fire(Box::new(super::fire(state, &row, Outputs::LeftOut)))
        })?,
        TableId::Migrations => read::<MigrationRecord, MigrationId>(EventKind::Migration, change, |row| {
            Object::Migration(Box::new(super::migration(state, &row)))
        })?,
        TableId::Alarms => {
            read::<AlarmRecord, u64>(EventKind::Alarm, change, |row| Object::Alarm(super::alarm(&row)))?
        }
        TableId::Overdue => read::<OverdueRecord, JobId>(EventKind::Overdue, change, |row| {
            Object::Overdue(Box::new(super::overdue(state, &row)))
        })?,
        TableId::Pulses => return pulse(state, change),
        TableId::Workflows => read::<WorkflowRecord, WorkflowId>(EventKind::Workflow, change, |row| {
            Object::Workflow(Box::new(super::workflow(state, &row, Shapes::LeftOut)))
        })?,
        TableId::Runs => read::<RunRecord, RunId>(EventKind::Run, change, |row| {
            Object::Run(Box::new(super::run(state, &row)))
        })?,
        TableId::Networks => read::<NetworkRecord, NetworkId>(EventKind::Network, change, |row| {
            Object::Network(Box::new(super::network(state, &row)))
        })?,
        TableId::NodeRuns => return node(state, change),
        TableId::WorkflowNodes
        | TableId::RunInputs
        | TableId::Tasks
        | TableId::Clock
        | TableId::Cluster
        | TableId::Coordinators
        | TableId::JoinTokens
        | TableId::ApiTokens
        | TableId::History
        | TableId::Attempts
        | TableId::Requests
        | TableId::Tickets => return Ok(None),
    };
    Ok(Some(event))
}

/// A node's event has its run's id and its own. Rows that go with their run are not told of one by one.
fn node(state: &State, change: &Change) -> Result<Option<ChangedObject>, DecodeError> {
    let Some(row) = change.value.as_deref().map(decode_row::<NodeRunRecord>).transpose()? else {
        return Ok(None);
    };
    let run = state.run(row.key.run);
    let found = run.and_then(|run| Some((run, state.definition(run, row.key.node)?)));
    Ok(found.map(|(run, node)| {
        let view = super::node_run(run, node, Some(&row), NodeOutputs::LeftOut);
        let id = format!("{}/{}", run.id, view.id);
        ChangedObject { kind: EventKind::Node, id, object: Some(Object::Node(Box::new(view))) }
    }))
}

/// A pulse is shown as its job, and does not go without it.
fn pulse(state: &State, change: &Change) -> Result<Option<ChangedObject>, DecodeError> {
    let pulse = change.value.as_deref().map(decode_row::<JobPulse>).transpose()?;
    let shown = pulse.and_then(|pulse| state.job(pulse.id).map(|job| super::job_with(state, job, &pulse)));
    Ok(shown.map(|view| ChangedObject {
        kind: EventKind::Job,
        id: view.id.to_string(),
        object: Some(Object::Job(Box::new(view))),
    }))
}

fn read<R, K>(
    kind: EventKind,
    change: &Change,
    show: impl FnOnce(R) -> Object,
) -> Result<ChangedObject, DecodeError>
where
    R: Row<Key = K>,
    K: RowKey + Display,
{
    let key = K::from_bytes(&change.key)
        .ok_or(DecodeError::Key { table: change.table, length: change.key.len() })?;
    let object = change.value.as_deref().map(decode_row::<R>).transpose()?.map(show);
    Ok(ChangedObject { kind, id: key.to_string(), object })
}
