//! How each kind of node begins.

use super::motion::Motion;
use crate::{
    record::{NodeRunRecord, TaskRecord},
    workflow::RunValues,
};
use novacron_common::{
    api::NodeRunState,
    ids::{FireKey, JobId, NodeRef},
    spec::{
        JobSpec, JobTarget, RetryPolicy,
        workflow::{Approve, Condition, MapBody, NodeKind, Template, Wait, render},
    },
    units::UnixMillis,
};
use std::time::Duration;

/// Ends a try of a target where its node says nothing: as for jobs.
const TIMEOUT_DEFAULT_MS: u64 = 3_600_000;
/// Longest question of an approval, bytes.
const MESSAGE_MAX: usize = 1024;
/// Places for items in the ids of a node's tasks: more than a map has.
const ITEMS: u128 = 2048;

impl Motion<'_> {
    /// Begins a node that is ready, an item, or a further try of either.
    pub(super) fn begin(&mut self, key: NodeRef) {
        let Some(node) = self.definition(key.node) else { return };
        let (kind, timeout_ms) = (node.spec.kind.clone(), node.spec.timeout_ms);
        let (row, now) = (self.row(key), self.now());
        let deadline = match (&kind, key.item) {
            // A target's time is that of each of its attempts.
            (NodeKind::Task(_), _) | (NodeKind::Map(_), 1..) => None,
            _ => timeout_ms.map(|ms| now.plus(Duration::from_millis(ms))),
        };
        self.state.write(NodeRunRecord {
            state: NodeRunState::Running,
            tries: row.tries + 1,
            ready_at: row.ready_at.or(Some(now)),
            started_at: row.started_at.or(Some(now)),
            until: deadline,
            ..row
        });
        let begun = match (&kind, key.item) {
            (NodeKind::Map(map), 0) => self.begin_map(key, map),
            (NodeKind::Map(map), _) => match &map.each {
                MapBody::Job(job) => self.begin_job(key, *job),
                MapBody::Task(target) => self.begin_task(key, target),
            },
            (NodeKind::Job(job), _) => self.begin_job(key, *job),
            (NodeKind::Task(target), _) => self.begin_task(key, target),
            (NodeKind::Wait(wait), _) => self.begin_wait(key, wait),
            (NodeKind::Approve(approve), _) => self.begin_approve(key, approve),
            (NodeKind::Condition(condition), _) => self.decide_condition(key, condition),
        };
        if let Err(reason) = begun {
            self.fail(key, &reason, None);
        }
    }

    /// What the node may look at.
    pub(super) fn with_values<R>(
        &self,
        key: NodeRef,
        look: impl FnOnce(&RunValues<'_>) -> Result<R, String>,
    ) -> Result<R, String> {
        let run = self.state.run(self.id).ok_or("its run is gone")?;
        let node = self.definition(key.node).ok_or("its definition is gone")?;
        let row = self.state.node_run(key);
        let item = row.and_then(|row| row.item.as_deref()).map(|item| (item, key.item.saturating_sub(1)));
        look(&RunValues { state: self.state, run, node, item })
    }

    fn begin_job(&mut self, key: NodeRef, job: JobId) -> Result<(), String> {
        let fire = super::fires::for_job(self.state, job, key)?;
        self.fired(key, fire);
        Ok(())
    }

    fn begin_task(&mut self, key: NodeRef, target: &JobTarget) -> Result<(), String> {
        let target = self.with_values(key, |values| render(target, values))?;
        if target == JobTarget::Noop {
            self.succeed(key, None);
            return Ok(());
        }
        let spec = self.definition(key.node).map(|node| (node.spec.timeout_ms, node.spec.retry.clone()));
        let (timeout_ms, retry) = spec.unwrap_or((None, RetryPolicy::default()));
        let timeout_ms = timeout_ms.unwrap_or(TIMEOUT_DEFAULT_MS).min(JobSpec::TIMEOUT_MAX_MS);
        let id = task_id(key);
        self.state.write(TaskRecord { id, node: key, target, timeout_ms, retry });
        let fire = super::fires::for_task(self.state, id, key);
        self.fired(key, fire);
        Ok(())
    }

    /// Notes the fire. One that has ended at once (a job that does nothing) ends its node at once.
    fn fired(&mut self, key: NodeRef, fire: FireKey) {
        let row = self.row(key);
        self.state.write(NodeRunRecord { fire: Some(fire), ..row });
        self.hear(key, fire);
    }

    fn begin_wait(&mut self, key: NodeRef, wait: &Wait) -> Result<(), String> {
        let now = self.now();
        let until = match wait {
            Wait::For(ms) => now.plus(Duration::from_millis(*ms)),
            Wait::Until(at) => *at,
            Wait::UntilText(text) => {
                let text = self.with_values(key, |values| {
                    let template = Template::parse(text).map_err(|e| e.to_string())?;
                    template.render(values, MESSAGE_MAX)
                })?;
                let instant = chrono::DateTime::parse_from_rfc3339(&text);
                let instant = instant.map_err(|_| format!("until: {text:?} is no instant (RFC 3339)"))?;
                UnixMillis(instant.timestamp_millis())
            }
        };
        if until <= now {
            self.succeed(key, None);
        } else {
            let row = self.row(key);
            self.state.write(NodeRunRecord { state: NodeRunState::Waiting, until: Some(until), ..row });
        }
        Ok(())
    }

    fn begin_approve(&mut self, key: NodeRef, approve: &Approve) -> Result<(), String> {
        let message = self.with_values(key, |values| {
            let template = Template::parse(&approve.message).map_err(|e| e.to_string())?;
            template.render(values, MESSAGE_MAX)
        })?;
        let row = self.row(key);
        let reason = (!message.is_empty()).then_some(message);
        self.state.write(NodeRunRecord { state: NodeRunState::AwaitingApproval, reason, ..row });
        Ok(())
    }

    fn decide_condition(&mut self, key: NodeRef, condition: &Condition) -> Result<(), String> {
        let holds = self.with_values(key, |values| condition.holds(values))?;
        self.succeed(key, Some(holds.to_string()));
        Ok(())
    }
}

/// The id of a node's task: made from the run's, of which every run has its own, and from its place. Jobs' ids are
/// UUIDs of version 7, these are of version 8 (RFC 9562): they never meet.
fn task_id(key: NodeRef) -> JobId {
    const VERSION: u128 = 0xf << 76;
    const EIGHT: u128 = 0x8 << 76;
    let run = key.run.uuid().as_u128();
    let place = u128::from(key.node) * ITEMS + u128::from(key.item);
    // Within the 62 random bits at the end, so that version and variant stay.
    let low = (1u128 << 62) - 1;
    let mixed = (run & !low) | ((run & low).wrapping_add(place) & low);
    JobId::from_u128((mixed & !VERSION) | EIGHT)
}
