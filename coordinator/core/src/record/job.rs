//! Jobs, their fires and the tries at them.
//!
//! A job is two rows: what was asked for, which rarely changes, and its pulse, which changes with each tick and is
//! small, so that ten thousand ticks in one second are not ten thousand definitions written anew.

use super::{TickReason, VerbWatch};
use novacron_common::{
    api::FireState,
    ids::{AttemptKey, FireKey, HostId, JobId, NodeRef},
    record::AttemptEnd,
    spec::JobSpec,
    units::{Epoch, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// Consecutive ticks for which there is no fire, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The first.
    pub from: UnixMillis,
    /// The last.
    pub until: UnixMillis,
    /// How many; a lower bound once it reaches [`crate::schedule::SKIPS_COUNTED_MAX`].
    pub count: u64,
    /// Why.
    pub reason: TickReason,
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// Raised by each change of `spec`; a tick that was computed from an older one is refused.
    pub revision: u64,
    /// Since when it is paused.
    pub paused_at: Option<UnixMillis>,
    /// It was deleted, and goes as soon as its last attempt has ended.
    pub deleting: bool,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// What changes with each tick of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPulse {
    /// Whose.
    pub id: JobId,
    /// When it is due next; computed by the proposer, so that replicas with other time zone data agree.
    /// `None` while it is paused, or if its schedule has no more ticks.
    pub next_at: Option<UnixMillis>,
    /// The last scheduled instant that was dealt with: ticks up to it are done with.
    pub last_tick: Option<UnixMillis>,
    /// When it last fired, for whatever cause (the scheduled instant).
    pub last_fire_at: Option<UnixMillis>,
    /// Fires committed so far.
    pub fires: u64,
    /// Fires that ended well.
    pub succeeded: u64,
    /// Fires that did not.
    pub failed: u64,
    /// Ticks without a fire because of the job's own rules (concurrency, pause).
    pub skipped: u64,
    /// Ticks that nobody was there to fire or start in time.
    pub missed: u64,
    /// Fires and ticks that had not succeeded when they were expected to.
    pub overdue: u64,
}

impl JobPulse {
    /// That of a new job.
    pub const fn new(id: JobId, next_at: Option<UnixMillis>) -> Self {
        Self {
            id,
            next_at,
            last_tick: None,
            last_fire_at: None,
            fires: 0,
            succeeded: 0,
            failed: 0,
            skipped: 0,
            missed: 0,
            overdue: 0,
        }
    }
}

/// The alarm of a job whose fires or ticks have not succeeded when they were expected to. There while it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OverdueRecord {
    /// The job, the key.
    pub job: JobId,
    /// The instant that it was raised for.
    pub since: UnixMillis,
    /// The latest instant that it was raised for.
    pub latest: UnixMillis,
    /// Fires and ticks that it was raised for.
    pub count: u64,
}

/// One committed fire. Its key is (job, scheduled instant, cause): a tick cannot be committed twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FireRecord {
    /// Which.
    pub key: FireKey,
    /// When it was committed.
    pub committed_at: UnixMillis,
    /// How it is.
    pub state: FireState,
    /// The right to run it; raised by each attempt.
    pub epoch: Epoch,
    /// Attempts started so far.
    pub attempts: u32,
    /// No attempt is placed before this instant (jitter, back-off).
    pub not_before: UnixMillis,
    /// Where the attempt under way runs; `None` for what the coordinators do themselves.
    pub host: Option<HostId>,
    /// Where the last attempt ran that was given to a host.
    pub last_host: Option<HostId>,
    /// Whether somebody asked to end it.
    pub cancel_requested: bool,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// The node of a workflow's run that it was made for.
    pub node: Option<NodeRef>,
    /// 0 to 9, as its job was when it was committed; the higher goes first.
    pub priority: u8,
    /// It waits for another fire of its job to end.
    pub queued: bool,
    /// Missed if its first attempt has not started by then.
    pub start_by: Option<UnixMillis>,
    /// Overdue if it has not succeeded by then.
    pub expected_at: Option<UnixMillis>,
    /// Whether it was found overdue.
    pub overdue: bool,
    /// Since when nothing is known of its attempt.
    pub unknown_since: Option<UnixMillis>,
    /// Of its attempts, those that their host could not take.
    pub declined: u32,
}

impl FireRecord {
    /// One that waits for its first attempt.
    pub const fn new(key: FireKey, committed_at: UnixMillis) -> Self {
        Self {
            key,
            committed_at,
            state: FireState::Waiting,
            epoch: Epoch(0),
            attempts: 0,
            not_before: committed_at,
            host: None,
            last_host: None,
            cancel_requested: false,
            ended_at: None,
            node: None,
            priority: JobSpec::PRIORITY_DEFAULT,
            queued: false,
            start_by: None,
            expected_at: None,
            overdue: false,
            unknown_since: None,
            declined: 0,
        }
    }

    /// Attempts that count as tries: those that their host took.
    pub const fn tries(&self) -> u32 {
        self.attempts.saturating_sub(self.declined)
    }

    /// Whether nothing more will happen.
    pub const fn is_final(&self) -> bool {
        match self.state {
            FireState::Waiting | FireState::Running | FireState::Unknown => false,
            FireState::Succeeded | FireState::Failed | FireState::Cancelled | FireState::Missed => true,
        }
    }

    /// Whether an attempt is, or may be, alive.
    pub const fn is_under_way(&self) -> bool {
        matches!(self.state, FireState::Running | FireState::Unknown)
    }

    /// The attempt under way.
    pub const fn attempt(&self) -> Option<AttemptKey> {
        match self.is_under_way() {
            true => Some(AttemptKey { fire: self.key, number: self.attempts }),
            false => None,
        }
    }

    /// The next instant at which its deadlines are to be looked at.
    pub fn alarm_at(&self) -> Option<UnixMillis> {
        let start_by = self.start_by.filter(|_| self.state == FireState::Waiting && self.tries() == 0);
        let expected_at = self.expected_at.filter(|_| !self.overdue && !self.is_final());
        [start_by, expected_at].into_iter().flatten().min()
    }
}

/// One try at a fire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which.
    pub key: AttemptKey,
    /// The epoch under which it may run.
    pub epoch: Epoch,
    /// Where; `None` for what the coordinators do themselves.
    pub host: Option<HostId>,
    /// When it was given to that host.
    pub placed_at: UnixMillis,
    /// How it ended.
    pub end: Option<AttemptEnd>,
    /// What tells the end of something done to a machine.
    pub verb: Option<VerbWatch>,
    /// Declared over while its host was out of sight: to be killed there as soon as that is back.
    pub orphaned: bool,
}
