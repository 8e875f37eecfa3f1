//! The fires of nodes. Attempts, epochs, leases and retries are the same as for any other fire.

use super::super::fires;
use crate::{applied::Applied, command::JobExecute, record::FireRecord, state::State};
use novacron_common::ids::{FireCause, FireKey, JobId, NodeRef};

/// A manual fire of a job, for a node.
///
/// # Errors
/// Why the job does not fire.
pub(super) fn for_job(state: &mut State, job: JobId, node: NodeRef) -> Result<FireKey, String> {
    let at = state.now();
    match fires::execute(state, &JobExecute { id: job, at, node: Some(node) }) {
        Ok(Applied::FireCommitted(key)) => Ok(key),
        Ok(_) => Err("its job did not fire".to_owned()),
        Err(refusal) => Err(refusal.cause),
    }
}

/// A fire of a node's task.
pub(super) fn for_task(state: &mut State, task: JobId, node: NodeRef) -> FireKey {
    let now = state.now();
    let mut key = FireKey { job: task, scheduled_at: now, cause: FireCause::Node };
    while state.fire(key).is_some() {
        key.scheduled_at.0 = key.scheduled_at.0.saturating_add(1);
    }
    state.write(FireRecord { node: Some(node), ..FireRecord::new(key, now) });
    key
}

/// A fire that waits ends at once, one that runs is to be killed. One that has ended stays as it is.
pub(super) fn stop(state: &mut State, fire: FireKey) {
    fires::end_early(state, fire);
}
