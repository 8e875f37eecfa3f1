//! A machine as the ledger keeps it: what was asked for, who may run it, and what was seen of it.

use crate::placement::Placement;
use novacron_common::{
    api::VmDesired,
    ids::{HostId, MigrationId, VmId},
    planted::{self, Mistake},
    record::{VmObservation, VmState},
    spec::{StopTerms, VmSpec},
    units::{Epoch, Generation, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// The last word of a host on a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// Who said it.
    pub host: HostId,
    /// What it said.
    pub observation: VmObservation,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// Its id.
    pub id: VmId,
    /// What was asked for.
    pub spec: VmSpec,
    /// What is wanted of it.
    pub desired: VmDesired,
    /// How it is stopped, by the last request.
    pub stop: StopTerms,
    /// The one host that may run it. `None` only after its host was removed by force.
    pub placed_on: Option<HostId>,
    /// The right to run it; raised whenever that right changes hands.
    pub epoch: Epoch,
    /// The last wish; raised with each change of what its host is to do.
    pub generation: Generation,
    /// What is seen of it; `Unknown` while its host is not heard from.
    pub state: VmState,
    /// The last observation that was taken.
    pub observed: Option<Observed>,
    /// Requests to restart so far.
    pub restart_requests: u64,
    /// The highest of them that a host reported as carried out. Kept here because a new host does not know.
    pub restarts_done: u64,
    /// The migration that is under way.
    pub migration: Option<MigrationId>,
    /// Whether it is to be stopped for that migration although `desired` says running (`live: false`).
    pub hold_stopped: bool,
    /// Why it was placed where it is.
    pub placement: Option<Placement>,
    /// When it was made.
    pub created_at: UnixMillis,
}

impl VmRecord {
    /// Something else is wanted of it from now on: what was seen before says nothing of that.
    #[must_use]
    pub fn wished_anew(self) -> Self {
        Self { generation: self.generation.next(), ..self }
    }

    /// Whether its host had heard the last wish when it spoke last.
    pub fn is_heard(&self) -> bool {
        let heard = |seen: &Observed| seen.observation.generation >= self.generation;
        self.observed.as_ref().is_some_and(|seen| heard(seen) || planted::is(Mistake::OldReportTaken))
    }
}
