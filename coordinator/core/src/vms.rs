//! What a host is told of its machines, and what of its reports is worth committing.

use crate::{record::VmRecord, state::State};
use novacron_common::{
    api::VmDesired,
    ids::HostId,
    record::{VmAction, VmAssignment, VmObservation, VmState},
    units::{ByteCount, UnixMillis},
};
use std::collections::BTreeSet;

/// What the machine's host (`placed_on`) is to be told. `None` while a migration has it in hand, and where no host
/// may run it. Sending the same twice is harmless, so the reconciler sends it after each change and reconnect.
pub fn wanted(vm: &VmRecord) -> Option<VmAssignment> {
    vm.placed_on?;
    let action = match (vm.migration, vm.hold_stopped) {
        (Some(_), false) => return None,
        (Some(_), true) => VmAction::Stop(vm.stop),
        (None, _) => action_for(vm),
    };
    let (epoch, generation, spec) = (vm.epoch, vm.generation, vm.spec.clone());
    Some(VmAssignment { vm: vm.id, epoch, generation, spec, action })
}

fn action_for(vm: &VmRecord) -> VmAction {
    match vm.desired {
        VmDesired::Running if vm.restarts_done < vm.restart_requests => {
            VmAction::Restart { request: vm.restart_requests, stop: vm.stop }
        }
        VmDesired::Running => VmAction::Run,
        VmDesired::Stopped => VmAction::Stop(vm.stop),
        VmDesired::Deleted => VmAction::Delete,
    }
}

/// Whether the machine is as it is wanted, so that nothing has to be sent.
pub fn is_settled(vm: &VmRecord) -> bool {
    match (vm.desired, vm.state) {
        _ if !vm.is_heard() => false,
        (_, state) if vm.hold_stopped => state == VmState::Stopped,
        // One that is paused stands in the midst of its run.
        (VmDesired::Running, VmState::Running | VmState::Paused) => vm.restarts_done >= vm.restart_requests,
        (VmDesired::Stopped, VmState::Stopped) => true,
        _ => false,
    }
}

/// Whether somebody holds the machine where it is, and it would otherwise run: neither a start nor a move lets it run on.
pub fn is_held(vm: &VmRecord) -> bool {
    (vm.state, vm.desired) == (VmState::Paused, VmDesired::Running) && vm.migration.is_none()
}

/// Whether a deleted machine is observed gone: time for `VmForget`.
pub fn is_forgettable(vm: &VmRecord) -> bool {
    vm.desired == VmDesired::Deleted && (vm.placed_on.is_none() || vm.state == VmState::Missing)
}

/// Whether this host may speak of the machine now, under this epoch.
pub(crate) fn may_observe(vm: &VmRecord, host: HostId, seen: &VmObservation) -> bool {
    let owner = vm.placed_on == Some(host) && vm.epoch == seen.epoch;
    // While a guest moves, its host sees it paused, stopped and gone: the migration's record tells that story.
    let moving = vm.migration.is_some() && !vm.hold_stopped && seen.state != VmState::Running;
    owner && !moving && !is_overtaken(vm, host, seen)
}

/// Whether this host said something under a later wish already.
fn is_overtaken(vm: &VmRecord, host: HostId, seen: &VmObservation) -> bool {
    let said = vm.observed.as_ref().filter(|said| said.host == host && said.observation.epoch == seen.epoch);
    said.is_some_and(|said| seen.generation < said.observation.generation)
}

/// What of a host's report is worth committing: changes of state, message, address or restart count, and a
/// `Missing` for every machine that was there and is not listed. Figures (CPU time, memory) alone are not news;
/// they travel with the next change.
pub fn news(state: &State, host: HostId, report: &[VmObservation], now: UnixMillis) -> Vec<VmObservation> {
    let listed: BTreeSet<_> = report.iter().map(|seen| seen.vm).collect();
    let changed =
        report.iter().filter(|seen| state.vm(seen.vm).is_some_and(|vm| is_news(vm, host, seen))).cloned();
    let unlisted = state.index().vms_on(host).filter(|vm| !listed.contains(vm)).filter_map(|id| state.vm(id));
    // Of a machine that no host ever spoke of silence says nothing: it is still to be made. Also if it is to go: the order to
    // make it may still be on its way, and is refused only by a host that has heard the order to delete it.
    let missing = unlisted.filter(|vm| vm.observed.is_some()).map(|vm| (vm, missing(vm, now)));
    let missing = missing.filter(|(vm, seen)| is_news(vm, host, seen)).map(|(_, seen)| seen);
    changed.chain(missing).collect()
}

fn is_news(vm: &VmRecord, host: HostId, seen: &VmObservation) -> bool {
    let known = |old: &VmObservation| {
        let (a, b) = (old, seen);
        (a.state, a.ran, a.restarted) == (b.state, b.ran, b.restarted)
            && (a.epoch, a.generation) == (b.epoch, b.generation)
            && (a.health, &a.message, &a.addresses) == (b.health, &b.message, &b.addresses)
    };
    let old = vm.observed.as_ref().filter(|o| o.host == host && vm.state == o.observation.state);
    may_observe(vm, host, seen) && !old.is_some_and(|o| known(&o.observation))
}

fn missing(vm: &VmRecord, now: UnixMillis) -> VmObservation {
    VmObservation {
        vm: vm.id,
        epoch: vm.epoch,
        generation: vm.generation,
        state: VmState::Missing,
        health: None,
        message: None,
        progress: None,
        addresses: Vec::new(),
        restarted: vm.restarts_done,
        ran: false,
        cpu_ms: 0,
        memory: ByteCount(0),
        since: now,
    }
}
