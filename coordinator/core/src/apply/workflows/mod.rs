//! Workflows and their runs. What a step means is decided in [`crate::workflow`]; here it is written.

mod definitions;
mod ends;
mod fires;
mod maps;
mod motion;
mod runs;
mod starts;
mod stop;

pub(super) use definitions::{put, remove, update};
pub(super) use ends::{decide, fire_changed, fire_gone};
pub(super) use runs::{advance, cancel, forget, retry, start, tick};

use crate::{
    applied::Refusal,
    record::{RunRecord, WorkflowRecord},
    state::State,
};
use novacron_common::ids::{RunId, WorkflowId};

/// Longest reason that is kept of a node or a run, in characters.
const REASON_MAX: usize = 512;

fn short(text: &str) -> String {
    text.chars().take(REASON_MAX).collect()
}

fn find(state: &State, id: WorkflowId) -> Result<&WorkflowRecord, Refusal> {
    let found = state.workflow(id).filter(|workflow| !workflow.removed);
    found.ok_or_else(|| Refusal::not_found("workflow", id))
}

fn find_run(state: &State, id: RunId) -> Result<&RunRecord, Refusal> {
    let found = state.run(id).filter(|run| !run.forgotten);
    found.ok_or_else(|| Refusal::not_found("run", id))
}
