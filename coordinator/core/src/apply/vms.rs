//! Machines.

use super::{Outcome, networks::Lease};
use crate::{
    applied::{Applied, Refusal},
    command::{VmCreate, VmDesire, VmObserve, VmPlace, VmRestart, VmUpdate},
    placement::{self, Constraints, Offer, Placement},
    record::{Observed, VmRecord},
    state::State,
    vms::{is_forgettable, may_observe},
};
use novacron_common::{
    api::VmDesired,
    ids::{HostId, VmId},
    record::{VmObservation, VmState},
    spec::{Name, RestartPolicy, StopTerms, VmSpec},
    units::{Epoch, Generation},
};

/// Longest message that is kept of an observation, in characters.
const MESSAGE_MAX: usize = 512;
/// Addresses that are kept of an observation.
const ADDRESSES_MAX: usize = 16;
/// Longest that a guest is given, milliseconds.
const GRACE_MAX_MS: u64 = 3_600_000;
/// What a guest is given where nobody said, milliseconds.
pub(super) const GRACE_DEFAULT_MS: u64 = 30_000;

pub(super) fn create(state: &mut State, c: VmCreate) -> Outcome {
    if let Some(old) = state.vm(c.id) {
        return same_again(old, &c);
    }
    check_name(state, c.id, &c.spec.name)?;
    let lease = Lease::of(state, &c.spec.network)?;
    let placement = choose(state, &c)?;
    let host = placement.host;
    let mut record = new_vm(state, c, placement);
    super::fits(&record, "cloud_init")?;
    if let Some(lease) = lease {
        record.spec.network = lease.take(state);
    }
    let vm = record.id;
    state.write(record);
    Ok(Applied::VmCreated { vm, host })
}

/// A proposal that was committed although its proposer never heard so, and came again.
fn same_again(old: &VmRecord, c: &VmCreate) -> Outcome {
    match old.placed_on {
        Some(host) if same_wish(&old.spec, &c.spec) => Ok(Applied::VmCreated { vm: old.id, host }),
        _ => Err(Refusal::conflict(format!("there is another machine {}", old.id))),
    }
}

/// Whether the one was made of the other, but for what the ledger added.
fn same_wish(made: &VmSpec, asked: &VmSpec) -> bool {
    match asked.network.tenant {
        Some(_) if made.network.tenant == asked.network.tenant => {
            *made == VmSpec { network: made.network.clone(), ..asked.clone() }
        }
        _ => made == asked,
    }
}

/// Takes the offer if it still holds, else looks again.
fn choose(state: &State, c: &VmCreate) -> Result<Placement, Refusal> {
    let constraints = Constraints { only: c.host, source: None };
    let holds = |offer: &Offer| {
        let host = state.host(offer.placement.host);
        host.is_some_and(|h| placement::check_host(state, h, &c.spec, constraints).is_empty())
    };
    match c.offer.clone().filter(holds) {
        Some(offer) => Ok(offer.placement.bounded()),
        None => Ok(placement::plan(state, &c.spec, constraints)?.placement),
    }
}

fn new_vm(state: &State, c: VmCreate, placement: Placement) -> VmRecord {
    VmRecord {
        id: c.id,
        spec: c.spec,
        desired: if c.start { VmDesired::Running } else { VmDesired::Stopped },
        stop: StopTerms::within_ms(GRACE_DEFAULT_MS),
        placed_on: Some(placement.host),
        epoch: Epoch(1),
        generation: Generation(1),
        state: VmState::Pending,
        observed: None,
        restart_requests: 0,
        restarts_done: 0,
        migration: None,
        hold_stopped: false,
        placement: Some(placement),
        created_at: state.now(),
    }
}

fn check_name(state: &State, vm: VmId, name: &Name) -> Result<(), Refusal> {
    match state.index().vm_named(name) {
        Some(other) if other != vm => Err(Refusal::name_taken("machine", name)),
        _ => Ok(()),
    }
}

pub(super) fn place(state: &mut State, c: VmPlace) -> Outcome {
    let vm = find_still(state, c.vm)?;
    if let Some(host) = vm.placed_on {
        return Err(Refusal::conflict(format!("{} has its place on {host}", vm.spec.name)));
    }
    let host = state.host(c.offer.placement.host);
    let host = host.ok_or_else(|| Refusal::not_found("host", c.offer.placement.host))?;
    if !placement::check_host(state, host, &vm.spec, Constraints::default()).is_empty() {
        return Err(Refusal::conflict("the offer is stale: the host cannot take the machine any more"));
    }
    let placed = VmRecord {
        placed_on: Some(host.id),
        epoch: vm.epoch.next(),
        state: VmState::Pending,
        observed: None,
        placement: Some(c.offer.placement.bounded()),
        ..vm.wished_anew()
    };
    let host = host.id;
    state.write(placed);
    Ok(Applied::VmCreated { vm: c.vm, host })
}

pub(super) fn desire(state: &mut State, c: &VmDesire) -> Outcome {
    let deleted = c.desired == VmDesired::Deleted;
    if deleted && find(state, c.vm)?.desired == VmDesired::Deleted {
        return Ok(Applied::AlreadySo);
    }
    let vm = find_still(state, c.vm)?;
    if deleted && vm.placed_on.is_none() {
        state.erase::<VmRecord>(&c.vm);
        return Ok(Applied::Done);
    }
    let stop = c.stop.at_most_ms(GRACE_MAX_MS);
    if (vm.desired, vm.stop) == (c.desired, stop) && vm.desired != VmDesired::Running {
        return Ok(Applied::AlreadySo);
    }
    // Also of one that is wanted running already: it may have stopped by itself, and nobody heard of that yet.
    state.write(VmRecord { desired: c.desired, stop, ..vm.wished_anew() });
    Ok(Applied::Done)
}

pub(super) fn restart(state: &mut State, c: &VmRestart) -> Outcome {
    let vm = find_still(state, c.vm)?;
    if vm.desired != VmDesired::Running {
        return Err(Refusal::conflict(format!("{} is not running", vm.spec.name)).fix("start it"));
    }
    let restart_requests = vm.restart_requests.saturating_add(1);
    let stop = c.stop.at_most_ms(GRACE_MAX_MS);
    state.write(VmRecord { restart_requests, stop, ..vm.wished_anew() });
    Ok(Applied::Done)
}

pub(super) fn update(state: &mut State, c: VmUpdate) -> Outcome {
    let mut vm = find_still(state, c.vm)?;
    if let Some(name) = c.name {
        check_name(state, c.vm, &name)?;
        vm.spec.name = name;
    }
    vm.spec.restart = c.restart.unwrap_or(vm.spec.restart);
    vm.spec.mobility =
        c.post_copy.map_or(vm.spec.mobility, |allowed| vm.spec.mobility.with_post_copy(allowed));
    state.write(vm.wished_anew());
    Ok(Applied::Done)
}

pub(super) fn observe(state: &mut State, c: VmObserve) -> Outcome {
    for seen in c.observations {
        let Some(vm) = state.vm(seen.vm).filter(|vm| may_observe(vm, c.host, &seen)) else {
            continue;
        };
        let mut vm = vm.clone();
        take(&mut vm, trimmed(seen), c.host);
        let stopped = (vm.state == VmState::Stopped && vm.is_heard()).then_some(vm.migration).flatten();
        state.write(vm);
        if let Some(migration) = stopped {
            super::migrations::guest_stopped(state, migration);
        }
    }
    Ok(Applied::Done)
}

/// A machine that ran as it was asked to, and stopped without being asked, was shut down from inside. Unless it is to be
/// started always, that counts as a wish: nothing starts it again but a request. Of a host that had not heard the last wish
/// yet only the state is taken.
fn take(vm: &mut VmRecord, seen: VmObservation, host: HostId) {
    vm.restarts_done = vm.restarts_done.max(seen.restarted.min(vm.restart_requests));
    let restarting = vm.restarts_done < vm.restart_requests;
    let wanted = vm.desired == VmDesired::Running && vm.migration.is_none() && !restarting;
    let ended = seen.state == VmState::Stopped && seen.ran;
    (vm.state, vm.observed) = (seen.state, Some(Observed { host, observation: seen }));
    if ended && wanted && vm.is_heard() && vm.spec.restart == RestartPolicy::Never {
        *vm = VmRecord { desired: VmDesired::Stopped, ..vm.clone().wished_anew() };
    }
}

fn trimmed(mut seen: VmObservation) -> VmObservation {
    seen.message = seen.message.map(|m| m.chars().take(MESSAGE_MAX).collect());
    seen.addresses.truncate(ADDRESSES_MAX);
    seen
}

pub(super) fn forget(state: &mut State, id: VmId) -> Outcome {
    let vm = find(state, id)?;
    if !is_forgettable(vm) {
        return Err(Refusal::conflict(format!("{} is not deleted, or not yet observed gone", vm.spec.name)));
    }
    state.erase::<VmRecord>(&id);
    Ok(Applied::Done)
}

pub(super) fn find(state: &State, id: VmId) -> Result<&VmRecord, Refusal> {
    state.vm(id).ok_or_else(|| Refusal::not_found("machine", id))
}

/// A machine that is neither being deleted nor moving.
pub(super) fn find_still(state: &State, id: VmId) -> Result<VmRecord, Refusal> {
    let vm = find(state, id)?;
    if vm.desired == VmDesired::Deleted {
        return Err(Refusal::conflict(format!("{} is being deleted", vm.spec.name)));
    }
    match vm.migration {
        Some(migration) => Err(Refusal::conflict(format!("{} is moving ({migration})", vm.spec.name))
            .fix("wait until the migration has ended, or cancel it")),
        None => Ok(vm.clone()),
    }
}
