//! What ends nodes: their fires, their time, and people.

use super::{super::Outcome, find_run, motion::Motion, short};
use crate::{
    applied::{Applied, Refusal},
    attempts::backoff,
    command::NodeDecide,
    record::NodeRunRecord,
    state::State,
};
use novacron_common::{
    api::{FireState, NodeRunState, ProblemCode, RunState},
    ids::{AttemptKey, FireKey, NodeRef},
    record::AttemptEnd,
    spec::workflow::{NodeKind, WorkflowSpec},
};
use serde_json::json;

/// Longest comment on an approval, bytes.
const COMMENT_MAX: usize = 1024;

/// A fire may have ended. If it was made for a node, that hears of it.
pub(in super::super) fn fire_changed(state: &mut State, fire: FireKey) {
    let node = state.fire(fire).filter(|fire| fire.is_final()).and_then(|fire| fire.node);
    if let Some((node, mut motion)) = node.and_then(|node| Some((node, Motion::of(state, node.run)?))) {
        motion.hear(node, fire);
        motion.go();
    }
}

/// A fire is about to be removed. If a node waits for it, it waits in vain.
pub(in super::super) fn fire_gone(state: &mut State, fire: FireKey) {
    let node = state.fire(fire).filter(|fire| !fire.is_final()).and_then(|fire| fire.node);
    if let Some((node, mut motion)) = node.and_then(|node| Some((node, Motion::of(state, node.run)?)))
        && motion.waits_for(node, fire)
    {
        motion.fail(node, "its fire was removed before it ended, or its job was", None);
        motion.go();
    }
}

impl Motion<'_> {
    fn waits_for(&self, node: NodeRef, fire: FireKey) -> bool {
        self.state.node_run(node).is_some_and(|row| row.is_active() && row.fire == Some(fire))
    }

    /// Takes notice of a fire's state; nothing happens while it has not ended, or if it is an earlier one.
    pub(super) fn hear(&mut self, key: NodeRef, fire: FireKey) {
        if !self.waits_for(key, fire) {
            return;
        }
        let Some(record) = self.state.fire(fire).cloned() else { return };
        let last = AttemptKey { fire, number: record.attempts };
        let end = self.state.attempt(last).and_then(|attempt| attempt.end.clone());
        let output = end.as_ref().and_then(|end| end.result.clone()).map(bounded);
        match record.state {
            FireState::Succeeded => self.succeed(key, output),
            FireState::Cancelled if self.phase() == RunState::Cancelling => {
                self.end(key, NodeRunState::Cancelled, None, output);
            }
            FireState::Cancelled => self.fail(key, "its fire was cancelled", output),
            FireState::Failed | FireState::Missed => self.fire_failed(key, fire, end.as_ref(), output),
            FireState::Waiting | FireState::Running | FireState::Unknown => {}
        }
    }

    /// A target's retries are those of its fire; a job is fired again.
    fn fire_failed(&mut self, key: NodeRef, fire: FireKey, end: Option<&AttemptEnd>, output: Option<String>) {
        let row = self.row(key);
        let node = self.definition(key.node).map(|node| (node.spec.kind.job().is_some(), &node.spec.retry));
        let again = node.filter(|(is_job, retry)| {
            *is_job && row.tries <= retry.max_retries && self.phase() == RunState::Running
        });
        if let Some((_, retry)) = again {
            let until = self.now().plus(backoff(&retry.backoff, fire, row.tries));
            self.state.write(NodeRunRecord { state: NodeRunState::Waiting, until: Some(until), ..row });
            return;
        }
        let how = end.map_or_else(|| "failed".to_owned(), |end| crate::views::outcome_text(&end.outcome));
        self.fail(key, &format!("{how} ({fire})"), output);
    }

    /// The end of a wait, or of a node's time.
    pub(super) fn time_is_up(&mut self, key: NodeRef) {
        let row = self.row(key);
        if !row.is_active() || row.until.is_none_or(|until| until > self.now()) {
            return;
        }
        match row.state {
            NodeRunState::Waiting if row.tries > 0 && row.fire.is_some() => self.begin(key),
            NodeRunState::Waiting => self.succeed(key, None),
            NodeRunState::AwaitingApproval => self.fail(key, "nobody approved it in time", None),
            _ => {
                self.stop_fires(key);
                self.fail(key, "it took longer than its timeout", None);
            }
        }
    }
}

/// The first part of an output that is too long: agents send no longer ones.
fn bounded(mut output: String) -> String {
    if output.len() > WorkflowSpec::OUTPUT_MAX {
        output.truncate(output.floor_char_boundary(WorkflowSpec::OUTPUT_MAX));
    }
    output
}

/// Somebody said yes or no. The same word twice is harmless.
pub(in super::super) fn decide(state: &mut State, c: &NodeDecide) -> Outcome {
    let run = find_run(state, c.run)?.clone();
    let node = state.definition(&run, c.node).ok_or_else(|| Refusal::not_found("node", c.node))?;
    let id = node.spec.id.clone();
    let NodeKind::Approve(approve) = &node.spec.kind else {
        return Err(Refusal::conflict(format!("node {id} asks nobody for approval")));
    };
    if !approve.approvers.is_empty() && !approve.approvers.contains(&c.by) {
        let text = format!("node {id} can be approved by {} only", approve.approvers.join(", "));
        return Err(Refusal::new(ProblemCode::Forbidden, text));
    }
    if c.comment.len() > COMMENT_MAX {
        return Err(Refusal::new(
            ProblemCode::InvalidRequest,
            format!("the comment has more than {COMMENT_MAX} bytes"),
        ));
    }
    let key = NodeRef { run: c.run, node: c.node, item: 0 };
    match state.node_run(key).map(|row| row.state) {
        Some(NodeRunState::AwaitingApproval) => {}
        Some(NodeRunState::Succeeded) if c.approved => return Ok(Applied::AlreadySo),
        Some(NodeRunState::Failed) if !c.approved => return Ok(Applied::AlreadySo),
        other => {
            let now = other.unwrap_or(NodeRunState::Pending).as_str();
            return Err(Refusal::conflict(format!("node {id} does not wait for approval: it is {now}")));
        }
    }
    let output = json!({ "approved": c.approved, "by": c.by, "comment": c.comment }).to_string();
    if let Some(mut motion) = Motion::of(state, c.run) {
        if c.approved {
            motion.succeed(key, Some(output));
        } else {
            let reason = format!("rejected by {}: {}", c.by, c.comment);
            motion.fail(key, &short(&reason), Some(output));
        }
        motion.go();
    }
    Ok(Applied::Done)
}
