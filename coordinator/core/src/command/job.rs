//! Commands about jobs, fires and attempts.

use crate::record::Skip;
use novacron_common::{
    ids::{FireKey, HostId, JobId},
    spec::JobSpec,
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};

/// The next tick of a schedule as the proposer computed it. It travels in the command because replicas with
/// different time zone data would compute different ones.
pub type NextTick = Option<UnixMillis>;

/// See [`super::CommandBody::JobPut`]. Build it with [`JobPut::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobPut {
    /// The new job's id.
    pub id: JobId,
    /// What is asked for.
    pub spec: JobSpec,
    /// The first tick after now.
    pub next_at: NextTick,
}

/// See [`super::CommandBody::JobUpdate`]. Build it with [`JobUpdate::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobUpdate {
    /// Which.
    pub id: JobId,
    /// The whole definition after the update.
    pub spec: JobSpec,
    /// The revision that the update was made from; refused if another came first.
    pub revision: u64,
    /// The first tick after now.
    pub next_at: NextTick,
}

/// See [`super::CommandBody::JobExecute`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExecute {
    /// Which.
    pub id: JobId,
    /// The fire's instant; moved on by milliseconds where another manual fire has it already.
    pub at: UnixMillis,
}

/// See [`super::CommandBody::FireCommit`]. Made by [`crate::schedule::due`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FireCommit {
    /// Which job.
    pub job: JobId,
    /// The tick.
    pub scheduled_at: UnixMillis,
    /// The job's revision that the tick was computed from; refused if it changed.
    pub revision: u64,
    /// The tick after this one.
    pub next_at: NextTick,
    /// Ticks before this one that are passed over.
    pub skip: Option<Skip>,
}

/// See [`super::CommandBody::AttemptPlace`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptPlace {
    /// Which fire.
    pub fire: FireKey,
    /// Where.
    pub host: HostId,
}
