//! The handle to this host's machines: finds a machine's task, or starts one.

use super::{
    board::Board,
    damaged::Damaged,
    files::Files,
    record::{Entry, ledger_key, vm_of_key},
    task::{Message, VmTask},
};
use crate::{
    hypervisor::{Hypervisor, HypervisorEvent, Listed},
    ledger::{LedgerError, Shelf},
    text::describe,
};
use novacron_common::{
    ids::{MigrationId, VmId},
    record::{VmAssignment, VmState, VmStatistics},
    spec::{MachineKind, VmSpec},
    units::Epoch,
    wire::{AgentReply, Denial, DenialCode, VmAct},
};
use novacron_runtime::spawn;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{
    broadcast::error::RecvError,
    mpsc::{self, error::SendError},
    oneshot,
};

/// Messages that may wait for one machine's task.
const INBOX: usize = 32;

/// What runs machines on this host.
#[derive(Clone, Default)]
pub struct Hypervisors {
    /// Through libvirt.
    pub kvm: Option<Arc<dyn Hypervisor>>,
    /// In namespaces.
    pub namespace: Option<Arc<dyn Hypervisor>>,
}

impl Hypervisors {
    /// What runs machines of `kind`.
    pub fn of(&self, kind: MachineKind) -> Option<&Arc<dyn Hypervisor>> {
        match kind {
            MachineKind::Kvm => self.kvm.as_ref(),
            MachineKind::Namespace => self.namespace.as_ref(),
        }
    }

    /// What runs this machine here, or could.
    pub async fn that_knows(&self, vm: VmId) -> Option<&Arc<dyn Hypervisor>> {
        for hypervisor in self.all() {
            if hypervisor.state(vm).await.is_ok_and(|state| state != VmState::Missing) {
                return Some(hypervisor);
            }
        }
        None
    }

    fn all(&self) -> impl Iterator<Item = &Arc<dyn Hypervisor>> {
        self.kvm.iter().chain(&self.namespace)
    }
}

/// What machines are made with.
pub struct MachinesParts {
    /// Where records are kept.
    pub shelf: Shelf<Entry>,
    /// What runs them.
    pub hypervisors: Hypervisors,
    /// Who makes their files.
    pub files: Arc<dyn Files>,
    /// Where what is seen is written.
    pub board: Arc<Board>,
    /// The bridge for machines that name none.
    pub bridge: String,
}

/// The machines could not be taken up.
#[derive(Debug, thiserror::Error)]
pub enum MachinesError {
    /// The ledger cannot be read.
    #[error("could not read the machines from the ledger")]
    Ledger(#[from] LedgerError),
    /// The agent is stopping.
    #[error("the machine's task has ended")]
    Ended,
}

/// A handle to all machines. Cheap to clone.
#[derive(Clone)]
pub struct Machines {
    parts: Arc<MachinesParts>,
    tasks: Arc<Mutex<HashMap<VmId, mpsc::Sender<Message>>>>,
}

impl Machines {
    /// Takes up what the ledger holds: a restarted agent adopts what runs. What is lent to a migration that is not `under_way`
    /// is given back: an agent that was killed before that migration was written down had only just lent it.
    ///
    /// # Errors
    /// [`MachinesError`] if the ledger cannot be read.
    pub fn adopt(parts: MachinesParts, under_way: &BTreeSet<MigrationId>) -> Result<Self, MachinesError> {
        let machines = Self { parts: Arc::new(parts), tasks: Arc::default() };
        for (key, entry) in machines.parts.shelf.list_each()? {
            let Some(vm) = vm_of_key(&key) else { continue };
            let entry = entry.map(|entry| machines.without_void_loan(vm, entry, under_way));
            if !matches!(entry, Ok(Entry::Left { .. })) {
                machines.task(vm, Some(entry.map(Some)));
            }
        }
        for hypervisor in machines.parts.hypervisors.all() {
            spawn(machines.clone().follow(hypervisor.events()));
        }
        Ok(machines)
    }

    fn without_void_loan(&self, vm: VmId, entry: Entry, under_way: &BTreeSet<MigrationId>) -> Entry {
        let lent = match &entry {
            Entry::Held(record) => record.lent.filter(|migration| !under_way.contains(migration)),
            Entry::Left { .. } => None,
        };
        let Some(migration) = lent else { return entry };
        tracing::info!(%vm, %migration, "it was lent to a migration that is not under way, and is given back");
        let entry = entry.given_back();
        if let Err(error) = self.parts.shelf.put(&ledger_key(vm), &entry) {
            // The next agent gives it back as well.
            tracing::error!(%vm, reason = describe(&error), "that it was given back could not be written down");
        }
        entry
    }

    /// What is seen of them.
    pub fn board(&self) -> &Arc<Board> {
        &self.parts.board
    }

    /// What runs them.
    pub fn hypervisors(&self) -> &Hypervisors {
        &self.parts.hypervisors
    }

    /// Takes an assignment, or says why not.
    pub async fn assign(&self, assignment: VmAssignment) -> AgentReply {
        let vm = assignment.vm;
        self.ask(vm, |reply| Message::Assign(assignment, reply)).await.unwrap_or_else(AgentReply::Denied)
    }

    /// Puts a machine in the hands of a migration: its task keeps its hands off until it is given back or has
    /// left. Durable. The same migration may borrow again.
    ///
    /// # Errors
    /// [`Denial`] if it is not here under `epoch`, or another migration has it.
    pub async fn lend(&self, vm: VmId, migration: MigrationId, epoch: Epoch) -> Result<VmSpec, Denial> {
        self.ask(vm, |reply| Message::Lend { migration, epoch, reply }).await?
    }

    /// The migration ended here; the machine is as before. One that may have been `halted` for it is started again if it is
    /// wanted running.
    ///
    /// # Errors
    /// [`Denial`] if the agent is stopping or cannot write its ledger.
    pub async fn give_back(&self, vm: VmId, migration: MigrationId, halted: bool) -> Result<(), Denial> {
        self.ask(vm, |reply| Message::GiveBack { migration, halted, reply }).await?
    }

    /// Does this to a machine that runs.
    ///
    /// # Errors
    /// [`Denial`] if it is not here under `epoch`, is in other hands, or the hypervisor refuses.
    pub async fn act(&self, vm: VmId, epoch: Epoch, act: VmAct) -> Result<(), Denial> {
        self.ask(vm, |reply| Message::Act { epoch, act, reply }).await?
    }

    /// What it has used since it was started.
    ///
    /// # Errors
    /// [`Denial`] if no hypervisor here knows it, or does not say.
    pub async fn statistics(&self, vm: VmId) -> Result<VmStatistics, Denial> {
        let failed = |error| Denial { code: DenialCode::Failed, text: describe(&error) };
        self.hypervisor_of(vm).await?.statistics(vm).await.map_err(failed)
    }

    /// What runs this machine here, or could.
    ///
    /// # Errors
    /// [`Denial`] if nothing does.
    pub async fn hypervisor_of(&self, vm: VmId) -> Result<&Arc<dyn Hypervisor>, Denial> {
        let text = || format!("{vm} is not made on this host yet: see `novactl vm show`");
        let unknown = || Denial { code: DenialCode::Unknown, text: text() };
        self.parts.hypervisors.that_knows(vm).await.ok_or_else(unknown)
    }

    /// Whether the machine belongs here, by the ledger.
    ///
    /// # Errors
    /// [`Denial`] if its record cannot be read, or the agent is stopping.
    pub async fn holds(&self, vm: VmId) -> Result<bool, Denial> {
        self.ask(vm, |reply| Message::Holds { reply }).await?
    }

    /// The machine is here, as `assignment` says. One that is to be stopped came stopped, and waits for the coordinator's next
    /// word; one that is to run and does not has ended, and its restart policy says what follows.
    ///
    /// # Errors
    /// [`Denial`] if the agent is stopping or cannot write its ledger.
    pub async fn arrived(&self, assignment: VmAssignment) -> Result<(), Denial> {
        let vm = assignment.vm;
        self.ask(vm, |reply| Message::Arrived { assignment: Box::new(assignment), reply }).await?
    }

    /// Waits until the migration has the machine in hand no more: it was given back, or the coordinator has decided by a
    /// higher epoch what becomes of it.
    ///
    /// # Errors
    /// [`Denial`] if its record cannot be read, or the agent is stopping.
    pub async fn settled(&self, vm: VmId, migration: MigrationId) -> Result<(), Denial> {
        self.ask(vm, |reply| Message::Settled { migration, reply }).await?
    }

    /// The machine runs elsewhere under `epoch`.
    ///
    /// # Errors
    /// [`Denial`] if the agent is stopping or cannot write its ledger.
    pub async fn left(&self, vm: VmId, epoch: Epoch) -> Result<(), Denial> {
        self.ask(vm, |reply| Message::Left { epoch, reply }).await?
    }

    /// Names of domains that are none of ours.
    pub async fn foreign(&self) -> Vec<String> {
        let mut names = Vec::new();
        for hypervisor in self.parts.hypervisors.all() {
            let listed = hypervisor.list().await.unwrap_or_default();
            names.extend(listed.into_iter().filter_map(|l| match l {
                Listed::Foreign(name) => Some(name),
                Listed::Ours(..) => None,
            }));
        }
        names
    }

    async fn ask<T>(
        &self,
        vm: VmId,
        message: impl FnOnce(oneshot::Sender<T>) -> Message,
    ) -> Result<T, Denial> {
        let (reply, answer) = oneshot::channel();
        let mut message = message(reply);
        // A task that has nothing to do ends, also between being found and being asked: then another is begun.
        while let Err(SendError(unheard)) = self.task(vm, None).send(message).await {
            message = unheard;
        }
        answer.await.map_err(|_| Denial { code: DenialCode::Failed, text: MachinesError::Ended.to_string() })
    }

    /// The inbox of the machine's task; one is started if there is none, with what the ledger knows of it.
    fn task(&self, vm: VmId, known: Option<Result<Option<Entry>, LedgerError>>) -> mpsc::Sender<Message> {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inbox) = tasks.get(&vm).filter(|inbox| !inbox.is_closed()) {
            return inbox.clone();
        }
        tasks.retain(|_, inbox| !inbox.is_closed());
        let (sender, inbox) = mpsc::channel(INBOX);
        match known.unwrap_or_else(|| self.parts.shelf.get(&ledger_key(vm))) {
            Ok(entry) => spawn(VmTask::new(vm, self.parts.clone(), inbox, entry).run()),
            Err(error) => spawn(Damaged::new(vm, self.parts.board.clone(), inbox, &error).run()),
        };
        tasks.insert(vm, sender.clone());
        sender
    }

    /// Wakes tasks when the hypervisor says that something changed.
    async fn follow(self, mut events: tokio::sync::broadcast::Receiver<HypervisorEvent>) {
        loop {
            match events.recv().await {
                Ok(HypervisorEvent::Changed(vm)) => self.wake(|id| id == vm),
                Ok(HypervisorEvent::Resync) | Err(RecvError::Lagged(_)) => self.wake(|_| true),
                Err(RecvError::Closed) => return,
            }
        }
    }

    fn wake(&self, which: impl Fn(VmId) -> bool) {
        let tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, inbox) in tasks.iter().filter(|(vm, _)| which(**vm)) {
            // A full inbox means that the task is about to look anyway.
            let _ = inbox.try_send(Message::Look);
        }
    }
}
