//! Commands about migrations.

use crate::{forecast::Measures, placement::Placement};
use novacron_common::{
    ids::{GangId, HostId, MigrationId, VmId},
    record::{MoveLimits, SideState},
    units::Epoch,
};
use serde::{Deserialize, Serialize};

/// See [`super::CommandBody::MigrationAsk`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationAsk {
    /// The new migration's id. The same request again is answered as the first time.
    pub id: MigrationId,
    /// What moves.
    pub vm: VmId,
    /// To where.
    pub target: HostId,
    /// Whether the guest runs while it moves.
    pub live: bool,
    /// What it has to keep to.
    pub limits: MoveLimits,
    /// The machines with which it moves, in turn.
    pub gang: Option<GangId>,
    /// 256 random bits for the ticket.
    pub secret: [u8; 32],
    /// Why the target was chosen, if the placement chose it.
    pub placement: Option<Placement>,
    /// What was measured for it lately, for its forecast.
    pub measures: Measures,
}

/// Leaves the secret out.
impl std::fmt::Debug for MigrationAsk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MigrationAsk({} {} →{} live {})", self.id, self.vm, self.target, self.live)
    }
}

/// See [`super::CommandBody::MigrationObserve`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationObserve {
    /// Which.
    pub id: MigrationId,
    /// Who says it; must be the side that it speaks of.
    pub host: HostId,
    /// What that side sees.
    pub side: SideState,
    /// [`crate::record::MigrationRecord::step`] as it was *before* the side was asked; `None` for what an agent
    /// says unasked. Only an answer to a question of the present step may say "unknown".
    pub asked_at_step: Option<u64>,
}

/// See [`super::CommandBody::MigrationDenied`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationDenied {
    /// Which.
    pub id: MigrationId,
    /// The step in which the agent was asked.
    pub step: u64,
    /// The agent's reason.
    pub reason: String,
}

/// See [`super::CommandBody::Handover`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    /// Which migration.
    pub migration: MigrationId,
    /// Which machine.
    pub vm: VmId,
    /// To whom.
    pub to: HostId,
    /// The epoch that it is now at.
    pub expect_epoch: Epoch,
}
