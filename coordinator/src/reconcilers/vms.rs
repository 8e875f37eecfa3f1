//! Tells hosts what is wanted of their machines, and forgets machines that are deleted and gone.

use super::{
    World,
    assign::{Told, tell},
    driver::{Reconciler, Verdict},
    lanes::Lanes,
};
use crate::{agents::SessionNumber, raft::Committed};
use novacron_common::{
    api::VmDesired,
    ids::{HostId, VmId},
    record::VmAssignment,
};
use novacron_core::{
    CommandBody, State, TableId,
    command::VmPlace,
    placement::{self, Constraints},
    record::VmRecord,
    table::RowKey,
    vms,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};
use tokio::sync::Notify;

/// A machine that is not yet as wanted is spoken of again after this.
const REPEAT: Duration = Duration::from_secs(10);
/// A machine that is being deleted is asked after more often: its end shows by its absence.
const REPEAT_DELETE: Duration = Duration::from_secs(1);
/// Pause after a host could not be asked, before anything else is tried with it.
const FAILED_PAUSE: Duration = Duration::from_millis(500);
/// Rows that are looked at in one go, so that the ledger is not held up.
const CHUNK: usize = 256;

/// Sends assignments.
pub struct Vms {
    world: World,
    lanes: Lanes<HostId>,
    told: Told,
    /// Machines whose rows changed; `None` means all.
    hints: Option<BTreeSet<VmId>>,
}

/// What a look at the ledger finds to do.
#[derive(Debug, Default)]
struct Todo {
    send: BTreeMap<HostId, Vec<VmAssignment>>,
    propose: Vec<CommandBody>,
    /// Machines that are not yet as wanted: to be looked at again although their rows do not change.
    unsettled: Vec<VmId>,
    again_in: Option<Duration>,
}

impl Vms {
    pub fn new(world: World) -> Self {
        Self { world, lanes: Lanes::new(), told: Told::default(), hints: None }
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
                chunk
                    .map(|vm| {
                        self.consider(state, vm, todo);
                        vm.id
                    })
                    .last()
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
        let Some(wait) = self.due_in(vm, &wanted, session) else { return };
        todo.unsettled.push(vm.id);
        if wait == Duration::ZERO {
            todo.send.entry(host).or_default().push(wanted);
        } else {
            todo.again_in = Some(todo.again_in.map_or(wait, |w| w.min(wait)));
        }
    }

    /// When to speak of a machine: at once if what is wanted or the session is new, later if it is not yet so, and
    /// not at all if it is.
    fn due_in(&self, vm: &VmRecord, wanted: &VmAssignment, session: SessionNumber) -> Option<Duration> {
        let Some(ago) = self.told.ago(wanted, session) else { return Some(Duration::ZERO) };
        if vms::is_settled(vm) {
            return None;
        }
        let repeat = if vm.desired == VmDesired::Deleted { REPEAT_DELETE } else { REPEAT };
        Some(repeat.saturating_sub(ago))
    }

    fn send(&mut self, host: HostId, assignments: Vec<VmAssignment>) {
        let (world, told) = (self.world.clone(), self.told.clone());
        self.lanes.start(host, async move {
            for assignment in assignments {
                if tell(&world, host, assignment, &told).await.is_none() {
                    novacron_runtime::time::sleep(FAILED_PAUSE).await;
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

impl Reconciler for Vms {
    const NAME: &'static str = "vms";
    const TABLES: &'static [TableId] = &[TableId::Vms];
    const PERIOD: Duration = Duration::from_secs(10);

    async fn activate(&mut self) -> Verdict {
        let todo = self.look();
        self.hint_at(todo.unsettled.into_iter());
        for (host, assignments) in todo.send {
            // A busy lane's end activates this again, and the machines are still due then.
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
        let gone = committed.changes.iter().filter(|c| c.table == TableId::Vms && c.value.is_none());
        gone.filter_map(|change| VmId::from_bytes(&change.key)).for_each(|vm| self.told.forget(vm));
    }

    fn forget_hints(&mut self) {
        self.hints = None;
    }

    fn finished(&self) -> Option<Arc<Notify>> {
        Some(self.lanes.finished())
    }
}
