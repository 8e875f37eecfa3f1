//! Jobs, their fires and the tries at them.

use novacron_common::{
    api::FireState,
    ids::{AttemptKey, FireKey, HostId, JobId, NodeRef},
    record::AttemptEnd,
    spec::JobSpec,
    units::{Epoch, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// Ticks that were passed over, and why there is no fire for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The first tick that was passed over.
    pub from: UnixMillis,
    /// The tick that was fired in place of them.
    pub until: UnixMillis,
    /// How many; a lower bound once it reaches [`crate::schedule::SKIPS_COUNTED_MAX`].
    pub count: u64,
}

/// One job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRecord {
    /// Its id.
    pub id: JobId,
    /// What was asked for.
    pub spec: JobSpec,
    /// Raised by each change of `spec`; a tick that was computed from an older one is refused.
    pub revision: u64,
    /// When it is due next; computed by the proposer, so that replicas with other time zone data agree.
    /// `None` while it is disabled, or if its schedule has no more ticks.
    pub next_at: Option<UnixMillis>,
    /// The last scheduled instant that was committed: ticks up to it are done with.
    pub last_tick: Option<UnixMillis>,
    /// When it last fired, for whatever cause (the scheduled instant).
    pub last_fire_at: Option<UnixMillis>,
    /// Fires committed so far.
    pub fires: u64,
    /// Fires that ended well.
    pub succeeded: u64,
    /// Fires that did not.
    pub failed: u64,
    /// Ticks passed over so far because nobody was there to commit them in time.
    pub skipped: u64,
    /// The last time that ticks were passed over.
    pub last_skip: Option<Skip>,
    /// Fires dropped from the record before they had ended, because newer ones needed the room.
    pub dropped: u64,
    /// When it was made.
    pub created_at: UnixMillis,
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
    /// No attempt is placed before this instant (back-off).
    pub not_before: UnixMillis,
    /// Where the attempt under way runs.
    pub host: Option<HostId>,
    /// Whether somebody asked to end it.
    pub cancel_requested: bool,
    /// When it ended.
    pub ended_at: Option<UnixMillis>,
    /// The node of a workflow's run that it was made for.
    pub node: Option<NodeRef>,
}

impl FireRecord {
    /// Whether nothing more will happen.
    pub const fn is_final(&self) -> bool {
        match self.state {
            FireState::Waiting | FireState::Running | FireState::Unknown => false,
            FireState::Succeeded | FireState::Failed | FireState::Cancelled | FireState::Missed => true,
        }
    }

    /// The attempt under way.
    pub fn attempt(&self) -> Option<AttemptKey> {
        self.host.map(|_| AttemptKey { fire: self.key, number: self.attempts })
    }
}

/// One try at a fire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// Which.
    pub key: AttemptKey,
    /// The epoch under which it may run.
    pub epoch: Epoch,
    /// Where.
    pub host: HostId,
    /// When it was given to that host.
    pub placed_at: UnixMillis,
    /// How it ended.
    pub end: Option<AttemptEnd>,
}
