//! What must be true once nothing goes wrong any more.

use crate::cluster::Cluster;
use novacron_common::{
    api::{MigrationState, VmDesired},
    ids::{MigrationId, VmId},
    record::VmState,
};
use novacron_core::{State, record::VmRecord};
use std::collections::BTreeSet;

/// Whether all moves have ended, and all machines are as they are wanted.
pub fn are_settled(cluster: &Cluster) -> bool {
    read(cluster, unsettled).is_some_and(|open| open.is_empty()) && left_over(cluster).is_empty()
}

/// Everything that is wrong; empty if nothing is.
pub fn faults(cluster: &Cluster) -> Vec<String> {
    let mut faults = cluster.truth().map(|truth| truth.faults()).unwrap_or_default();
    faults.extend(cluster.history.lock().faults.clone());
    faults.extend(read(cluster, unsettled).unwrap_or_default());
    faults.extend(left_over(cluster));
    faults
}

/// Moves that have ended so.
pub fn ended(cluster: &Cluster, so: MigrationState) -> usize {
    let count = |state: &State| state.migrations().iter().filter(|migration| migration.state == so).count();
    read(cluster, count).unwrap_or(0)
}

/// Whether none of these moves is under way.
pub fn have_ended(cluster: &Cluster, moves: &[MigrationId]) -> bool {
    let ended = |state: &State, id: &MigrationId| state.migration(*id).is_none_or(|moves| moves.is_final());
    read(cluster, |state| moves.iter().all(|id| ended(state, id))).unwrap_or(false)
}

fn read<T>(cluster: &Cluster, look: impl FnOnce(&State) -> T) -> Option<T> {
    let ledger = cluster.ledger(cluster.leader()?)?;
    Some(ledger.read(look))
}

/// Moves that do not end, and machines that are not as they are wanted.
fn unsettled(state: &State) -> Vec<String> {
    let moving = state.migrations().iter().filter(|migration| !migration.is_final()).map(|migration| {
        let (id, vm, state) = (migration.id, migration.vm, migration.state);
        format!("{id} of {vm} does not end: {state:?}, {:?}, {:?}", migration.outbound, migration.inbound)
    });
    let vms: Vec<&VmRecord> = state.vms().iter().collect();
    let wrong = vms.into_iter().filter_map(|vm| {
        let as_wanted = match vm.desired {
            VmDesired::Running => vm.state == VmState::Running,
            VmDesired::Stopped => vm.state == VmState::Stopped,
            VmDesired::Deleted => false,
        };
        let (id, desired, migration) = (vm.id, vm.desired, vm.migration);
        (!as_wanted || migration.is_some()).then(|| {
            format!(
                "{id} is wanted {desired:?}, is {:?} on {:?}, in the hands of {migration:?}",
                vm.state, vm.placed_on
            )
        })
    });
    moving.chain(wrong).collect()
}

/// What the hosts have that they should not, and lack what they should have.
fn left_over(cluster: &Cluster) -> Vec<String> {
    let Some(placed) = read(cluster, |state| {
        state.vms().iter().map(|vm| (vm.id, vm.placed_on, vm.state)).collect::<Vec<_>>()
    }) else {
        return vec!["nobody leads".into()];
    };
    let halved = cluster.truth().map(|truth| truth.in_halves()).unwrap_or_default();
    let mut faults: Vec<_> = halved
        .into_iter()
        .map(|vm| format!("the halves of {vm} have not met, and neither is given up"))
        .collect();
    for host in &cluster.hosts {
        let Some((metal, moving)) = host.metal().zip(host.moving()) else { continue };
        let at = metal.host;
        let expected: BTreeSet<VmId> =
            placed.iter().filter(|(_, on, _)| *on == Some(at)).map(|(vm, ..)| *vm).collect();
        for (vm, domain) in metal.domains() {
            if !expected.contains(&vm) {
                faults.push(format!("left over: {at} has a domain of {vm}, {domain:?}"));
            }
        }
        for (vm, _, state) in placed.iter().filter(|(vm, ..)| expected.contains(vm)) {
            let seen = metal.seen(*vm);
            if seen != *state {
                faults.push(format!("{vm} is {state:?} on {at} by the ledger, but {seen:?} there"));
            }
        }
        match moving.yard() {
            Some(yard) => faults.extend(yard.open_ends().into_iter().map(|end| format!("{at}: {end}"))),
            None => faults.push(format!("the agent of {at} is down")),
        }
        let disks = cluster.truth().map(|truth| truth.disks_on(at)).unwrap_or_default();
        let strange = disks.iter().filter(|vm| !expected.contains(vm));
        faults.extend(strange.map(|vm| format!("left over: {at} has a disk of {vm}")));
    }
    faults
}

/// Whether these machines run, as far as they could be made.
pub fn all_run(cluster: &Cluster, vms: &[VmId]) -> bool {
    let runs = |state: &State, vm: &VmId| {
        state.vm(*vm).is_none_or(|vm| vm.state == VmState::Running && vm.desired == VmDesired::Running)
    };
    read(cluster, |state| vms.iter().all(|vm| runs(state, vm))).unwrap_or(false)
}
