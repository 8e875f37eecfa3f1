//! In place of a machine's task where its ledger record cannot be read.
//!
//! The record holds the highest epoch that this host has seen of the machine: without it an old assignment could
//! start a guest that runs elsewhere by now. So nothing is done with the machine, all who ask are told why, and it
//! is reported as failed, never as missing: a missing machine would be forgotten while its guest may still run.

use super::{
    board::Board,
    record::{Entry, ledger_key},
    task::Message,
};
use crate::{
    hypervisor::libvirt::xml::domain_name,
    ledger::{AgentLedger, LedgerError},
    text::describe,
};
use novacron_common::{
    ids::VmId,
    record::{VmObservation, VmState},
    units::{ByteCount, Epoch, Generation},
    wire::{AgentReply, Denial, DenialCode},
};
use std::sync::Arc;
use tokio::sync::mpsc;

/// The shelf of the machines' records.
pub const SHELF: &str = "machines";

pub(super) struct Damaged {
    vm: VmId,
    board: Arc<Board>,
    inbox: mpsc::Receiver<Message>,
    denial: Denial,
}

impl Damaged {
    pub(super) fn new(
        vm: VmId,
        board: Arc<Board>,
        inbox: mpsc::Receiver<Message>,
        error: &LedgerError,
    ) -> Self {
        let text = format!(
            "the agent's ledger record of {vm} is damaged ({}): this host does not know which epoch it has seen, and \
             does nothing with the machine. Look with `virsh domstate {}` whether it runs here, stop the agent, run \
             `novacron-agent forget {vm}` and start the agent again: the coordinator then says anew what is wanted",
            describe(error),
            domain_name(vm),
        );
        tracing::error!(%vm, text, "a machine is left alone");
        Self { vm, board, inbox, denial: Denial { code: DenialCode::Failed, text } }
    }

    /// Runs as long as the agent does.
    pub(super) async fn run(mut self) {
        // No epoch is known: the coordinator commits nothing under epoch 0, but sees that the machine is not missing.
        self.post((Epoch(0), Generation(0)));
        while let Some(message) = self.inbox.recv().await {
            self.refuse(message);
        }
    }

    fn refuse(&self, message: Message) {
        match message {
            Message::Assign(assignment, reply) => {
                self.post((assignment.epoch, assignment.generation));
                drop(reply.send(AgentReply::Denied(self.denial.clone())));
            }
            Message::Lend { reply, .. } => drop(reply.send(Err(self.denial.clone()))),
            Message::Arrived { reply, .. } | Message::Left { reply, .. } => {
                drop(reply.send(Err(self.denial.clone())));
            }
            // It was never lent.
            Message::GiveBack { reply, .. } => drop(reply.send(Ok(()))),
            Message::Act { reply, .. } => drop(reply.send(Err(self.denial.clone()))),
            Message::Settled { reply, .. } => drop(reply.send(Err(self.denial.clone()))),
            Message::Holds { reply } => drop(reply.send(Err(self.denial.clone()))),
            Message::Look => {}
        }
    }

    fn post(&self, (epoch, generation): (Epoch, Generation)) {
        self.board.post(VmObservation {
            vm: self.vm,
            epoch,
            generation,
            state: VmState::Failed,
            health: None,
            message: Some(self.denial.text.clone()),
            progress: None,
            addresses: Vec::new(),
            restarted: 0,
            ran: false,
            cpu_ms: 0,
            memory: ByteCount(0),
            since: self.board.of(self.vm).map_or_else(crate::clock::now, |before| before.since),
        });
    }
}

/// A damaged record was not removed.
#[derive(Debug, thiserror::Error)]
pub enum ForgetError {
    /// The ledger cannot be opened or written; most often the agent still runs.
    #[error("could not change the agent's ledger (is the agent stopped?)")]
    Ledger(#[from] LedgerError),
    /// There is nothing to repair.
    #[error("the ledger's record of {0} is sound, or there is none: nothing was changed")]
    Sound(VmId),
}

/// Removes the record of `vm` if it cannot be read. The agent must not run.
///
/// # Errors
/// [`ForgetError`]; nothing was changed then.
pub fn forget(ledger: &AgentLedger, vm: VmId) -> Result<(), ForgetError> {
    let shelf = ledger.shelf::<Entry>(SHELF)?;
    match shelf.get(&ledger_key(vm)) {
        Ok(_) => Err(ForgetError::Sound(vm)),
        // A record of a newer agent is not damaged: an upgrade reads it.
        Err(error @ LedgerError::Format(_)) => Err(error.into()),
        Err(_) => Ok(shelf.remove(&ledger_key(vm))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hypervisor::Hypervisor,
        vm::{
            VmRecord,
            decide::tests::assignment,
            tests::{adopt, until},
        },
    };
    use novacron_common::{
        ids::MigrationId,
        record::{VmAction, VmAssignment},
    };

    /// A ledger with a sound record of machine 1 and a damaged one of machine 2.
    fn ledger(folder: &tempfile::TempDir) -> (AgentLedger, VmId, VmId) {
        let ledger = AgentLedger::open(folder.path()).unwrap();
        let shelf = ledger.shelf::<Entry>(SHELF).unwrap();
        let (sound, damaged) = (VmId::from_u128(1), VmId::from_u128(2));
        let record = VmRecord::new(assignment(VmAction::Run));
        shelf.put(&ledger_key(sound), &Entry::Held(record)).unwrap();
        shelf.spoil(&ledger_key(damaged));
        (ledger, sound, damaged)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_machine_whose_record_cannot_be_read_is_left_alone_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, sound, damaged) = ledger(&folder);
        let (machines, fake) = adopt(&ledger);
        until(async || fake.state(sound).await.unwrap() == VmState::Running).await;
        until(async || machines.board().of(damaged).is_some()).await;

        let ask = VmAssignment { vm: damaged, epoch: Epoch(9), ..assignment(VmAction::Run) };
        let AgentReply::Denied(denial) = machines.assign(ask).await else { panic!("it was taken") };
        assert_eq!(denial.code, DenialCode::Failed);
        assert!(denial.text.contains(&format!("novacron-agent forget {damaged}")), "{denial}");
        let seen = machines.board().of(damaged).unwrap();
        assert_eq!((seen.state, seen.epoch), (VmState::Failed, Epoch(9)));
        assert_eq!(seen.message, Some(denial.text));

        let migration = MigrationId::from_u128(1);
        assert!(machines.lend(damaged, migration, Epoch(9)).await.is_err());
        assert!(machines.left(damaged, Epoch(10)).await.is_err());
        assert!(machines.holds(damaged).await.is_err(), "nobody knows");
        let came = VmAssignment { vm: damaged, epoch: Epoch(10), ..assignment(VmAction::Run) };
        assert!(machines.arrived(came).await.is_err());
        assert!(machines.settled(damaged, migration).await.is_err());
        assert_eq!(fake.state(damaged).await.unwrap(), VmState::Missing);
        assert!(ledger.shelf::<Entry>(SHELF).unwrap().get(&ledger_key(damaged)).is_err(), "overwritten");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_a_damaged_record_can_be_forgotten_and_then_the_coordinator_is_heeded_again() {
        let folder = tempfile::tempdir().unwrap();
        let (ledger, sound, damaged) = ledger(&folder);
        assert!(matches!(forget(&ledger, sound), Err(ForgetError::Sound(vm)) if vm == sound));
        forget(&ledger, damaged).unwrap();
        let (machines, fake) = adopt(&ledger);
        let ask = VmAssignment { vm: damaged, ..assignment(VmAction::Run) };
        assert_eq!(machines.assign(ask).await, AgentReply::Accepted);
        until(async || fake.state(damaged).await.unwrap() == VmState::Running).await;
    }
}
