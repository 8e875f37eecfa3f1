//! Tells hosts what is wanted of their machines, and forgets machines that are deleted and gone.

use super::{
    World,
    driver::{Reconciler, Verdict},
    lanes::Lanes,
};
use crate::{agents::SessionNumber, identity::now, raft::Committed};
use novacron_common::{
    api::VmDesired,
    ids::{HostId, VmId},
    record::{VmAction, VmAssignment, VmObservation, VmState},
    units::ByteCount,
    wire::{AgentCommand, AgentReply, codec},
};
use novacron_core::{
    CommandBody, State, TableId,
    command::{VmObserve, VmPlace},
    placement::{self, Constraints},
    record::VmRecord,
    table::RowKey,
    vms,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hasher},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::sync::Notify;

/// A machine that is not yet as wanted is spoken of again after this.
const REPEAT: Duration = Duration::from_secs(10);
/// A machine that is being deleted is asked after more often: its end shows by its absence.
const REPEAT_DELETE: Duration = Duration::from_secs(1);
/// Rows that are looked at in one go, so that the ledger is not held up.
const CHUNK: usize = 256;

/// What was said last of a machine.
#[derive(Debug, Clone, Copy)]
struct Said {
    session: Option<SessionNumber>,
    digest: u64,
    at: Instant,
}

type Memory = Arc<Mutex<HashMap<VmId, Said>>>;

/// Sends assignments.
pub struct Vms {
    world: World,
    lanes: Lanes<HostId>,
    said: Memory,
    /// Machines whose rows changed; `None` means all.
    hints: Option<BTreeSet<VmId>>,
}

/// What a look at the ledger finds to do.
#[derive(Debug, Default)]
struct Todo {
    send: BTreeMap<HostId, Vec<VmAssignment>>,
    propose: Vec<CommandBody>,
    again_in: Option<Duration>,
}

impl Vms {
    pub fn new(world: World) -> Self {
        Self { world, lanes: Lanes::new(), said: Memory::default(), hints: None }
    }

    fn look(&mut self) -> Todo {
        let mut todo = Todo::default();
        match self.hints.replace(BTreeSet::new()) {
            Some(hinted) => self.world.ledger.read(|state| {
                for vm in hinted.iter().filter_map(|id| state.vm(*id)) {
                    self.consider(state, vm, &mut todo);
                }
            }),
            None => self.look_at_all(&mut todo),
        }
        todo
    }

    fn look_at_all(&self, todo: &mut Todo) {
        let mut after = None;
        loop {
            let last = self.world.ledger.read(|state| {
                let chunk = state.vms().after(after).take(CHUNK);
                chunk.map(|vm| { self.consider(state, vm, todo); vm.id }).last()
            });
            match last {
                Some(id) => after = Some(id),
                None => return,
            }
        }
    }

    fn consider(&self, state: &State, vm: &VmRecord, todo: &mut Todo) {
        if vms::is_forgettable(vm) {
            todo.propose.push(CommandBody::VmForget { vm: vm.id });
            return;
        }
        let Some(host) = vm.placed_on else {
            todo.propose.extend(place(state, vm));
            return;
        };
        let Some(wanted) = vms::wanted(vm) else { return };
        // A host that is down is told everything when its session begins.
        let Some(session) = self.world.agents.sessions().current(host) else { return };
        match self.due_in(vm, &wanted, session) {
            Some(Duration::ZERO) => todo.send.entry(host).or_default().push(wanted),
            Some(wait) => todo.again_in = Some(todo.again_in.map_or(wait, |w| w.min(wait))),
            None => {}
        }
    }

    /// When to speak of a machine: at once if what is wanted or the session is new, later if it is not yet so, and
    /// not at all if it is.
    fn due_in(&self, vm: &VmRecord, wanted: &VmAssignment, session: SessionNumber) -> Option<Duration> {
        let said = lock(&self.said).get(&vm.id).copied();
        let current = said.filter(|s| s.session == Some(session) && s.digest == digest(wanted));
        let Some(said) = current else { return Some(Duration::ZERO) };
        if vms::is_settled(vm) {
            return None;
        }
        let repeat = if vm.desired == VmDesired::Deleted { REPEAT_DELETE } else { REPEAT };
        Some(repeat.saturating_sub(said.at.elapsed()))
    }

    fn send(&mut self, host: HostId, assignments: Vec<VmAssignment>) {
        if self.lanes.is_busy(&host) {
            // The lane's end activates this again; until then the machines stay due.
            self.hint_at(assignments.iter().map(|a| a.vm));
            return;
        }
        let (world, said) = (self.world.clone(), self.said.clone());
        self.lanes.start(host, async move {
            for assignment in assignments {
                if tell(&world, host, assignment, &said).await.is_none() {
                    return;
                }
            }
        });
    }

    fn hint_at(&mut self, vms: impl Iterator<Item = VmId>) {
        if let Some(hints) = &mut self.hints {
            hints.extend(vms);
        }
    }
}

/// A place for a machine that lost its host and is asked to run.
fn place(state: &State, vm: &VmRecord) -> Option<CommandBody> {
    if vm.desired != VmDesired::Running {
        return None;
    }
    let offer = placement::plan(state, &vm.spec, Constraints::default()).ok()?;
    Some(CommandBody::VmPlace(Box::new(VmPlace { vm: vm.id, offer })))
}

fn lock(said: &Memory) -> std::sync::MutexGuard<'_, HashMap<VmId, Said>> {
    said.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is compared to know whether an assignment was sent before.
fn digest(assignment: &VmAssignment) -> u64 {
    let mut hasher = DefaultHasher::new();
    // An assignment that cannot be encoded cannot be sent either.
    hasher.write(&codec::encode(assignment).unwrap_or_default());
    hasher.finish()
}

/// Sends one assignment; `None` if the host cannot be asked now.
async fn tell(world: &World, host: HostId, assignment: VmAssignment, said: &Memory) -> Option<()> {
    let session = world.agents.sessions().current(host);
    let (vm, deletes) = (assignment.vm, assignment.action == VmAction::Delete);
    let note = Said { session, digest: digest(&assignment), at: Instant::now() };
    let gone = deletes.then(|| missing(&assignment));
    match world.agents.call(host, &AgentCommand::AssignVm(assignment)).await {
        Ok(AgentReply::Denied(denial)) => tracing::warn!(%vm, %host, %denial, "the agent refused an assignment"),
        Ok(_) => {}
        Err(error) => {
            tracing::debug!(%vm, %host, %error, "could not send an assignment");
            return None;
        }
    }
    lock(said).insert(vm, note);
    if let Some(gone) = gone {
        confirm_gone(world, host, gone).await;
    }
    Some(())
}

/// A deleted machine shows its end by its absence: the agent is asked, and "nothing" is what is committed.
async fn confirm_gone(world: &World, host: HostId, gone: VmObservation) {
    let vm = gone.vm;
    match world.agents.call(host, &AgentCommand::ObserveVm(vm)).await {
        Ok(AgentReply::Vm(None)) => {
            let observe = CommandBody::VmObserve(VmObserve { host, observations: vec![gone] });
            if let Err(error) = world.ledger.propose(observe).await {
                tracing::debug!(%vm, %error, "could not commit that a deleted machine is gone");
            }
        }
        Ok(_) => {}
        Err(error) => tracing::debug!(%vm, %host, %error, "could not ask after a deleted machine"),
    }
}

fn missing(assignment: &VmAssignment) -> VmObservation {
    VmObservation {
        vm: assignment.vm,
        epoch: assignment.epoch,
        state: VmState::Missing,
        message: None,
        addresses: Vec::new(),
        restarted: 0,
        cpu_ms: 0,
        memory: ByteCount(0),
        since: now(),
    }
}

impl Reconciler for Vms {
    const NAME: &'static str = "vms";
    const TABLES: &'static [TableId] = &[TableId::Vms];
    const PERIOD: Duration = Duration::from_secs(10);

    async fn activate(&mut self) -> Verdict {
        let todo = self.look();
        for (host, assignments) in todo.send {
            self.send(host, assignments);
        }
        if !todo.propose.is_empty() {
            let batch = CommandBody::Batch(todo.propose);
            if let Err(error) = self.world.ledger.propose(batch).await {
                tracing::warn!(%error, "could not commit what machines need");
            }
        }
        todo.again_in.map_or(Verdict::DONE, Verdict::again_in)
    }

    fn hint(&mut self, committed: &Committed) {
        let rows = committed.changes.iter().filter(|change| change.table == TableId::Vms);
        self.hint_at(rows.filter_map(|change| VmId::from_bytes(&change.key)));
        let mut said = lock(&self.said);
        for gone in committed.changes.iter().filter(|c| c.table == TableId::Vms && c.value.is_none()) {
            VmId::from_bytes(&gone.key).and_then(|vm| said.remove(&vm));
        }
    }

    fn forget_hints(&mut self) {
        self.hints = None;
    }

    fn finished(&self) -> Option<Arc<Notify>> {
        Some(self.lanes.finished())
    }
}
