//! Commands about jobs, fires and attempts.

use super::{MigrationAsk, VmDesire, VmRestart};
use crate::record::Skip;
use novacron_common::{
    ids::{AttemptKey, FireKey, HostId, JobId, NodeRef},
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
    /// Ticks that fell into a pause which ends with this update.
    pub skip: Option<Skip>,
}

/// See [`super::CommandBody::JobExecute`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobExecute {
    /// Which.
    pub id: JobId,
    /// The fire's instant; moved on by milliseconds where another manual fire has it already.
    pub at: UnixMillis,
    /// The node of a workflow's run that asks, if one does.
    pub node: Option<NodeRef>,
}

/// See [`super::CommandBody::FireCommit`]. Made by [`crate::schedule::due`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FireCommit {
    /// Which job.
    pub job: JobId,
    /// The ticks to fire, in order.
    pub fire: Vec<UnixMillis>,
    /// The last tick that this deals with; those up to it are done with.
    pub until: UnixMillis,
    /// The job's revision that the ticks were computed from; refused if it changed.
    pub revision: u64,
    /// The tick after them.
    pub next_at: NextTick,
    /// Ticks before them that are passed over.
    pub skip: Option<Skip>,
}

/// See [`super::CommandBody::VerbBegin`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerbBegin {
    /// Which fire.
    pub fire: FireKey,
    /// What is done, with everything looked up.
    pub step: VerbStep,
}

/// Something done to a machine, with everything looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerbStep {
    /// Run or stop it.
    Desire(VmDesire),
    /// Stop it and run it again.
    Restart(VmRestart),
    /// Move it.
    Migrate(MigrationAsk),
    /// It cannot be done, for this reason.
    Impossible(String),
}

/// See [`super::CommandBody::AttemptSettled`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptSettled {
    /// Which.
    pub attempt: AttemptKey,
}

/// See [`super::CommandBody::AttemptPlace`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptPlace {
    /// Which fire.
    pub fire: FireKey,
    /// Where.
    pub host: HostId,
}
