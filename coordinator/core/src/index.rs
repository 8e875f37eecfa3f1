//! What is derived from the rows: names, reservations, and what is due. Kept incrementally, never stored; a
//! recount from the rows gives the same (a property test holds it to that).

mod network;
mod workflow;

pub use network::NetworkIndex;
pub use workflow::{Counts, WorkflowIndex};
pub(crate) use workflow::{definition_of, nodes_of};

use crate::{
    fire_index::FireIndex,
    record::{Claim, RequestKey, RequestRecord, VmRecord},
};
use novacron_common::{
    ids::{HostId, JobId, MigrationId, TemplateId, VmId, WorkflowId},
    record::VmState,
    spec::Name,
    units::{ByteCount, UnixMillis},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Bound,
};

/// What the machines on a host, and migrations to and from it, were promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Claims: machines placed here, and migrations that keep room here.
    pub claims: u32,
    /// Machines placed here.
    pub vms: u32,
    /// Virtual CPUs.
    pub cpus: u64,
    /// RAM.
    pub memory: ByteCount,
    /// Disk.
    pub storage: ByteCount,
}

/// Something with a unique name among its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    Vm(VmId),
    Host(HostId),
    Template(TemplateId),
    Job(JobId),
    Workflow(WorkflowId),
}

/// Everything derived.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Indices {
    vm_names: BTreeMap<Name, VmId>,
    host_names: BTreeMap<Name, HostId>,
    template_names: BTreeMap<Name, TemplateId>,
    job_names: BTreeMap<Name, JobId>,
    workflow_names: BTreeMap<Name, WorkflowId>,
    usage: BTreeMap<HostId, Usage>,
    vms_on: BTreeSet<(HostId, VmId)>,
    vms_in: BTreeSet<(u8, VmId)>,
    pub(crate) due: BTreeSet<(UnixMillis, JobId)>,
    pub(crate) fires: FireIndex,
    pub(crate) migrating: BTreeSet<MigrationId>,
    request_ages: BTreeSet<(UnixMillis, RequestKey)>,
    request_bytes: usize,
    pub(crate) workflows: WorkflowIndex,
    pub(crate) networks: NetworkIndex,
}

/// Of all ids, for ranges.
const VM_FIRST: VmId = VmId::from_u128(0);
const VM_LAST: VmId = VmId::from_u128(u128::MAX);

impl Indices {
    /// The machine of this name.
    pub fn vm_named(&self, name: &Name) -> Option<VmId> {
        self.vm_names.get(name).copied()
    }

    /// The host of this name.
    pub fn host_named(&self, name: &Name) -> Option<HostId> {
        self.host_names.get(name).copied()
    }

    /// The template of this name.
    pub fn template_named(&self, name: &Name) -> Option<TemplateId> {
        self.template_names.get(name).copied()
    }

    /// The job of this name.
    pub fn job_named(&self, name: &Name) -> Option<JobId> {
        self.job_names.get(name).copied()
    }

    /// The workflow of this name.
    pub fn workflow_named(&self, name: &Name) -> Option<WorkflowId> {
        self.workflow_names.get(name).copied()
    }

    /// What is derived for tenant networks.
    pub const fn networks(&self) -> &NetworkIndex {
        &self.networks
    }

    /// What is derived for workflows.
    pub const fn workflows(&self) -> &WorkflowIndex {
        &self.workflows
    }

    /// What was promised on a host.
    pub fn usage(&self, host: HostId) -> Usage {
        self.usage.get(&host).copied().unwrap_or_default()
    }

    /// Hosts on which anything is promised.
    pub fn used_hosts(&self) -> impl Iterator<Item = HostId> {
        self.usage.keys().copied()
    }

    /// The machines placed on a host, in the order of ids.
    pub fn vms_on(&self, host: HostId) -> impl Iterator<Item = VmId> {
        self.vms_on.range((host, VM_FIRST)..=(host, VM_LAST)).map(|(_, vm)| *vm)
    }

    /// The machines in a state, behind `after`, in the order of ids.
    pub fn vms_in(&self, state: VmState, after: Option<VmId>) -> impl Iterator<Item = VmId> {
        let number = state_number(state);
        let from = after.map_or(Bound::Included((number, VM_FIRST)), |vm| Bound::Excluded((number, vm)));
        self.vms_in.range((from, Bound::Included((number, VM_LAST)))).map(|(_, vm)| *vm)
    }

    /// Jobs by their next tick, the earliest first.
    pub fn due(&self) -> impl Iterator<Item = (UnixMillis, JobId)> {
        self.due_behind(None)
    }

    /// The same, behind a place (from the first if `None`).
    pub fn due_behind(
        &self,
        place: Option<(UnixMillis, JobId)>,
    ) -> impl Iterator<Item = (UnixMillis, JobId)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.due.range((from, Bound::Unbounded)).copied()
    }

    /// What is derived from fires and attempts.
    pub const fn fires(&self) -> &FireIndex {
        &self.fires
    }

    /// Migrations that have not ended.
    pub fn migrating(&self) -> impl Iterator<Item = MigrationId> {
        self.migrating.iter().copied()
    }

    /// The oldest request with an idempotency key.
    pub fn oldest_request(&self) -> Option<(UnixMillis, RequestKey)> {
        self.request_ages.first().copied()
    }

    /// About how many bytes the requests with an idempotency key take.
    pub const fn request_bytes(&self) -> usize {
        self.request_bytes
    }

    pub(crate) fn add_request(&mut self, record: &RequestRecord) {
        self.request_ages.insert((record.at, record.key));
        self.request_bytes += record.weight();
    }

    pub(crate) fn drop_request(&mut self, record: &RequestRecord) {
        self.request_ages.remove(&(record.at, record.key));
        self.request_bytes -= record.weight();
    }

    pub(crate) fn name(&mut self, what: Named, name: &Name) {
        match what {
            Named::Vm(id) => self.vm_names.insert(name.clone(), id).map_or((), |_| ()),
            Named::Host(id) => self.host_names.insert(name.clone(), id).map_or((), |_| ()),
            Named::Template(id) => self.template_names.insert(name.clone(), id).map_or((), |_| ()),
            Named::Job(id) => self.job_names.insert(name.clone(), id).map_or((), |_| ()),
            Named::Workflow(id) => self.workflow_names.insert(name.clone(), id).map_or((), |_| ()),
        }
    }

    pub(crate) fn unname(&mut self, what: Named, name: &Name) {
        match what {
            Named::Vm(_) => self.vm_names.remove(name).map_or((), |_| ()),
            Named::Host(_) => self.host_names.remove(name).map_or((), |_| ()),
            Named::Template(_) => self.template_names.remove(name).map_or((), |_| ()),
            Named::Job(_) => self.job_names.remove(name).map_or((), |_| ()),
            Named::Workflow(_) => self.workflow_names.remove(name).map_or((), |_| ()),
        }
    }

    pub(crate) fn add_vm(&mut self, vm: &VmRecord) {
        self.vms_in.insert((state_number(vm.state), vm.id));
        self.networks.lease(&vm.spec.network);
        if let Some(host) = vm.placed_on {
            self.vms_on.insert((host, vm.id));
            self.networks.publish(host, &vm.spec.network);
            self.reserve(host, &vm.claim());
            self.usage.entry(host).or_default().vms += 1;
        }
    }

    pub(crate) fn drop_vm(&mut self, vm: &VmRecord) {
        self.vms_in.remove(&(state_number(vm.state), vm.id));
        self.networks.give_back(&vm.spec.network);
        if let Some(host) = vm.placed_on {
            self.vms_on.remove(&(host, vm.id));
            self.networks.withdraw(host, &vm.spec.network);
            self.usage.entry(host).or_default().vms -= 1;
            self.release(host, &vm.claim());
        }
    }

    pub(crate) fn reserve(&mut self, host: HostId, claim: &Claim) {
        let usage = self.usage.entry(host).or_default();
        usage.claims += 1;
        usage.cpus += u64::from(claim.cpus);
        usage.memory.0 += claim.memory.0;
        usage.storage.0 += claim.storage.0;
    }

    pub(crate) fn release(&mut self, host: HostId, claim: &Claim) {
        let usage = self.usage.entry(host).or_default();
        usage.claims -= 1;
        usage.cpus -= u64::from(claim.cpus);
        usage.memory.0 -= claim.memory.0;
        usage.storage.0 -= claim.storage.0;
        if usage.claims == 0 {
            self.usage.remove(&host);
        }
    }
}

const fn state_number(state: VmState) -> u8 {
    match state {
        VmState::Pending => 0,
        VmState::Preparing => 1,
        VmState::Running => 2,
        VmState::Paused => 3,
        VmState::Stopping => 4,
        VmState::Stopped => 5,
        VmState::Failed => 6,
        VmState::Missing => 7,
        VmState::Unknown => 8,
    }
}
