//! The choice: hosts that can take the machine, and of them the one with the most memory left (spread).
//!
//! Memory and disk are never promised twice; CPUs are, up to [`CPU_OVERCOMMIT`] times.

use super::{NoPlacement, Offer, Placement, Rejected, Shortfall};
use crate::{
    record::{Claim, HostRecord},
    state::State,
};
use novacron_common::{
    ids::HostId,
    spec::{MachineKind, VmSpec},
    units::ByteCount,
};

/// Virtual CPUs that are promised for each logical processor.
pub const CPU_OVERCOMMIT: u64 = 4;

/// What a placement has to keep to beside the machine's own needs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Constraints {
    /// Only this host.
    pub only: Option<HostId>,
    /// Not the host that has it now.
    pub source: Option<HostId>,
}

/// Everything that keeps a machine off a host; empty if it can go there.
pub fn check_host(
    state: &State,
    host: &HostRecord,
    spec: &VmSpec,
    constraints: Constraints,
) -> Vec<Shortfall> {
    let mut lacks = Vec::new();
    let mut note = |wrong: bool, what| {
        if wrong {
            lacks.push(what);
        }
    };
    note(constraints.only.is_some_and(|only| only != host.id), Shortfall::NotAsked);
    note(constraints.source == Some(host.id), Shortfall::Source);
    // Who makes a machine with volumes names its host; from then on it has no other.
    note(!spec.volumes.is_empty() && constraints.only != Some(host.id), Shortfall::Volumes);
    note(!host.is_up(), Shortfall::Down);
    note(host.cordoned, Shortfall::Cordoned);
    let can = |f: fn(&novacron_common::record::HostHello) -> bool| host.hello.as_ref().is_some_and(f);
    match spec.kind {
        MachineKind::Kvm => note(host.is_up() && !can(|h| h.can_kvm), Shortfall::NoKvm),
        MachineKind::Namespace => note(host.is_up() && !can(|h| h.can_namespace), Shortfall::NoNamespace),
    }
    lacks.extend(short_of_room(state, host, spec));
    lacks.extend(state.index().networks().taken_port(host.id, &spec.network).map(Shortfall::Port));
    lacks
}

fn short_of_room(state: &State, host: &HostRecord, spec: &VmSpec) -> Vec<Shortfall> {
    let claim = Claim { cpus: spec.cpus, memory: spec.memory, storage: spec.storage };
    let used = state.index().usage(host.id);
    let short =
        |used: ByteCount, asked: ByteCount, has: ByteCount| used.saturating_add(asked).saturating_sub(has);
    let memory = short(used.memory, claim.memory, host.capacity.memory);
    let storage = short(used.storage, claim.storage, host.capacity.storage);
    let cpus_has = u64::from(host.capacity.cpus) * CPU_OVERCOMMIT;
    let cpus = (used.cpus + u64::from(claim.cpus)).saturating_sub(cpus_has);
    let mut lacks = Vec::new();
    if memory > ByteCount(0) {
        lacks.push(Shortfall::Memory(memory));
    }
    if storage > ByteCount(0) && claim.storage > ByteCount(0) {
        lacks.push(Shortfall::Storage(storage));
    }
    if cpus > 0 {
        lacks.push(Shortfall::Cpus(u32::try_from(cpus).unwrap_or(u32::MAX)));
    }
    lacks
}

/// Chooses a host. Deterministic: ties go to the host with fewer machines, then to the older host.
///
/// # Errors
/// [`NoPlacement`] names every host and what it lacks.
pub fn plan(state: &State, spec: &VmSpec, constraints: Constraints) -> Result<Offer, NoPlacement> {
    let mut rejected = Vec::new();
    let mut candidates = 0;
    let mut best: Option<(ByteCount, std::cmp::Reverse<u32>, &HostRecord)> = None;
    for host in state.hosts().iter() {
        let lacks = check_host(state, host, spec, constraints);
        if !lacks.is_empty() {
            rejected.push(Rejected { host: host.id, name: host.name.clone(), lacks });
            continue;
        }
        candidates += 1;
        let usage = state.index().usage(host.id);
        let free = host.capacity.memory.saturating_sub(usage.memory).saturating_sub(spec.memory);
        let score = (free, std::cmp::Reverse(usage.vms));
        if best.is_none_or(|(memory, machines, _)| score > (memory, machines)) {
            best = Some((score.0, score.1, host));
        }
    }
    let Some((free_memory_after, machines, host)) = best else {
        return Err(NoPlacement { rejected });
    };
    let placement = Placement {
        host: host.id,
        name: host.name.clone(),
        free_memory_after,
        machines: machines.0,
        candidates,
        rejected,
        more_rejected: 0,
    };
    Ok(Offer { placement: placement.bounded() })
}
