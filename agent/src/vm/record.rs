//! What the ledger keeps of a machine.

use novacron_common::{
    ids::{MigrationId, VmId},
    record::VmAssignment,
    spec::Sha256Digest,
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
    /// Whether it ran since it was last ordered to run: a guest that powers itself off is not started again
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

    /// The same, in nobody's hands.
    pub(super) fn given_back(self) -> Self {
        match self {
            Self::Held(record) => Self::Held(VmRecord { lent: None, ..record }),
            left @ Self::Left { .. } => left,
        }
    }
}

/// The archives that the machines of these entries are made over; `None` if one cannot be read, as nobody knows then.
pub fn archives<E>(entries: impl IntoIterator<Item = Result<Entry, E>>) -> Option<Vec<Sha256Digest>> {
    let entries: Vec<Entry> = entries.into_iter().collect::<Result<_, _>>().ok()?;
    let held = entries.iter().filter_map(|entry| match entry {
        Entry::Held(record) => record.assignment.spec.template.archive(),
        Entry::Left { .. } => None,
    });
    Some(held.map(|archive| archive.sha256).collect())
}

impl VmRecord {
    /// A machine that was just assigned.
    pub fn new(assignment: VmAssignment) -> Self {
        Self { assignment, restarted: 0, ran: false, lent: None }
    }

    /// The same machine under a newer assignment: each new wish to run is one to begin a run, the same wish again (as when it
    /// was restarted, or came back from a move) goes on with the old one.
    pub(super) fn superseded_by(self, assignment: VmAssignment) -> Self {
        let ran = self.ran && self.assignment.generation == assignment.generation;
        Self { assignment, ran, lent: None, ..self }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vm::decide::tests::assignment;
    use novacron_common::{
        record::VmAction,
        spec::{ImageFormat, ImageRef, ImageSource},
    };

    fn held(byte: u8, format: ImageFormat) -> Result<Entry, ()> {
        let mut assignment = assignment(VmAction::Run);
        let source = ImageSource::Path("/a".into());
        assignment.spec.template.disk = Some(ImageRef { sha256: Sha256Digest([byte; 32]), source, format });
        Ok(Entry::Held(VmRecord::new(assignment)))
    }

    #[test]
    fn archives_of_machines_that_are_here_are_in_use_and_no_others() {
        let left = Ok(Entry::Left { epoch: Epoch(7) });
        let entries =
            [held(1, ImageFormat::Oci), held(2, ImageFormat::Qcow2), left, held(3, ImageFormat::Rootfs)];
        assert_eq!(archives(entries), Some(vec![Sha256Digest([1; 32]), Sha256Digest([3; 32])]));
        assert_eq!(
            archives([held(1, ImageFormat::Oci), Err(())]),
            None,
            "a damaged entry may be of any image"
        );
    }
}
