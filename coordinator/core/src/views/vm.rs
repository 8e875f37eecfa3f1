//! A machine, as shown.

use crate::{record::VmRecord, state::State};
use novacron_common::{
    api::{Resources, VmView},
    record::VmState,
    units::ByteCount,
};

/// The view of a machine.
pub fn vm(state: &State, vm: &VmRecord) -> VmView {
    let seen = vm.observed.as_ref().map(|o| &o.observation);
    VmView {
        id: vm.id,
        name: vm.spec.name.to_string(),
        kind: vm.spec.kind,
        template: vm.spec.template.name.to_string(),
        resources: resources(vm),
        desired: vm.desired,
        state: vm.state,
        health: seen.filter(|s| s.state == vm.state).and_then(|s| s.health),
        message: seen.and_then(|s| s.message.clone()),
        progress: seen.filter(|s| s.state == VmState::Preparing).and_then(|s| s.progress),
        host: vm.placed_on,
        host_name: vm.placed_on.and_then(|id| state.host(id)).map(|h| h.name.to_string()),
        epoch: vm.epoch,
        mac: vm.spec.network.mac(vm.id).to_string(),
        addresses: addresses(vm),
        network: vm.spec.network.tenant.and_then(|id| state.network(id)).map(|n| n.spec.name.to_string()),
        publish: vm.spec.network.publish.iter().map(ToString::to_string).collect(),
        volumes: vm.spec.volumes.iter().map(ToString::to_string).collect(),
        restart: vm.spec.restart,
        post_copy: vm.spec.mobility.allows_post_copy(),
        mobility: vm.spec.mobility.into(),
        placement: vm.placement.as_ref().map(ToString::to_string),
        cpu_ms: seen.map_or(0, |s| s.cpu_ms),
        created_at: vm.created_at,
    }
}

/// The fixed address first, then what its host sees.
fn addresses(vm: &VmRecord) -> Vec<String> {
    let fixed = vm.spec.network.address.map(|net| net.addr());
    let seen = vm.observed.iter().flat_map(|o| &o.observation.addresses).copied();
    fixed.into_iter().chain(seen.filter(|address| Some(*address) != fixed)).map(|a| a.to_string()).collect()
}

/// In GiB where that is a whole number, else in MiB.
fn resources(vm: &VmRecord) -> Resources {
    let split = |bytes: ByteCount| match bytes.as_mib() {
        mib if mib % 1024 == 0 => (Some(mib / 1024), None),
        mib => (None, Some(mib)),
    };
    let (memory_gb, memory_mb) = split(vm.spec.memory);
    let (storage_gb, storage_mb) = split(vm.spec.storage);
    Resources { cpu: vm.spec.cpus, memory_gb, memory_mb, storage_gb, storage_mb }
}
