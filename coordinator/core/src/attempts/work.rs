//! What a fire is to do: the definition of its job, or of the workflow's task that it was made for.

use crate::{record::TaskRecord, state::State};
use novacron_common::{
    ids::{FireCause, FireKey},
    spec::{JobSpec, JobTarget, OnLeaseLost, RetryPolicy},
};

/// What an attempt at a fire is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work<'a> {
    /// What is done.
    pub target: &'a JobTarget,
    /// Ends an attempt, milliseconds.
    pub timeout_ms: u64,
    /// Tries after the first.
    pub retry: &'a RetryPolicy,
    /// 0 to 9; the higher goes first.
    pub priority: u8,
    /// What an attempt does that is cut off.
    pub on_lease_lost: OnLeaseLost,
    /// Variables beside those that every attempt gets.
    pub env: Vec<(String, String)>,
}

impl<'a> Work<'a> {
    /// The work of a job.
    pub const fn of_job(spec: &'a JobSpec) -> Self {
        Self {
            target: &spec.target,
            timeout_ms: spec.timeout_ms,
            retry: &spec.retry,
            priority: spec.priority,
            on_lease_lost: spec.on_lease_lost,
            env: Vec::new(),
        }
    }

    /// The work of a workflow's node that is no job.
    pub fn of_task(task: &'a TaskRecord) -> Self {
        Self {
            target: &task.target,
            timeout_ms: task.timeout_ms,
            retry: &task.retry,
            priority: Self::TASK_PRIORITY,
            on_lease_lost: OnLeaseLost::Keep,
            env: vec![("NOVACRON_RUN_ID".to_owned(), task.node.run.to_string())],
        }
    }

    /// As a job's where it says nothing.
    const TASK_PRIORITY: u8 = 5;
}

/// What a fire is to do; `None` if whatever it was made for is gone.
pub fn work_of(state: &State, fire: FireKey) -> Option<Work<'_>> {
    match fire.cause {
        FireCause::Schedule | FireCause::Manual => state.job(fire.job).map(|job| Work::of_job(&job.spec)),
        FireCause::Node => state.task(fire.job).map(Work::of_task),
    }
}
