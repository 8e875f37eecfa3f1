//! What the ledger keeps of a machine.

use novacron_common::{
    ids::{MigrationId, VmId},
    record::VmAssignment,
    units::Epoch,
};
use serde::{Deserialize, Serialize};

/// A machine that this host holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// What is wanted.
    pub assignment: VmAssignment,
    /// The last restart request that was carried out.
    pub restarted: u64,
    /// Whether it ran since it was last wanted to run: a guest that powers itself off is not started again
    /// unless its restart policy says so.
    pub ran: bool,
    /// The migration that has it in hand; until it ends the machine's task keeps its hands off.
    pub lent: Option<MigrationId>,
}

/// A shelf's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Entry {
    /// It is here.
    Held(VmRecord),
    /// It was here. The epoch stays, so that an old assignment never brings it back.
    Left {
        /// The epoch under which it went, or was deleted.
        epoch: Epoch,
    },
}

impl Entry {
    /// The highest epoch that this host has seen.
    pub fn epoch(&self) -> Epoch {
        match self {
            Self::Held(record) => record.assignment.epoch,
            Self::Left { epoch } => *epoch,
        }
    }
}

impl VmRecord {
    /// A machine that was just assigned.
    pub fn new(assignment: VmAssignment) -> Self {
        Self { assignment, restarted: 0, ran: false, lent: None }
    }
}

/// Where a machine's entry stands on its shelf.
pub(super) fn ledger_key(vm: VmId) -> [u8; 16] {
    vm.uuid().as_u128().to_be_bytes()
}

/// Whose entry stands at `key`; `None` where no machine's would.
pub(super) fn vm_of_key(key: &[u8]) -> Option<VmId> {
    Some(VmId::from_u128(u128::from_be_bytes(key.try_into().ok()?)))
}
