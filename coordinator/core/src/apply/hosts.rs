//! Hosts. A host that is down keeps its machines: they are not moved by themselves, since nobody can tell from here
//! whether they still run there, and two copies are worse than none.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::{HostCordon, HostDown, HostRemove, HostSeen},
    hosts::{is_current, trimmed},
    record::{FireRecord, HostRecord, VmRecord},
    state::State,
};
use novacron_common::{
    api::{FireState, HostState},
    ids::{HostId, VmId},
    planted::{self, Mistake},
    record::{HostHello, VmState},
};

/// Texts of a hello that are kept, and their longest length in characters.
const FEATURES_MAX: usize = 64;
const TEXT_MAX: usize = 128;

pub(super) fn hello(state: &mut State, mut hello: HostHello) -> Outcome {
    let record = find(state, hello.host)?;
    if record.hello.as_ref().is_some_and(|old| old.incarnation > hello.incarnation) {
        return Err(Refusal::conflict("a hello of an earlier life of this agent")
            .fix("if its data folder was restored from a copy, remove the host and join it again"));
    }
    let short = |text: &str| text.chars().take(TEXT_MAX).collect::<String>();
    hello.version = short(&hello.version);
    hello.features = hello.features.iter().take(FEATURES_MAX).map(|f| short(f)).collect();
    let (id, capacity) = (hello.host, hello.capacity);
    let record = HostRecord {
        state: HostState::Up,
        hello: Some(hello),
        capacity,
        last_seen: Some(state.now()),
        ..record.clone()
    };
    state.write(record);
    if planted::is(Mistake::HelloEndsAttempts) {
        super::attempts::host_gone(state, id);
    }
    attempts_known(state, id, true);
    Ok(Applied::Done)
}

pub(super) fn seen(state: &mut State, c: HostSeen) -> Outcome {
    let record = find(state, c.host)?;
    if !is_current(record, c.incarnation) {
        return Err(Refusal::conflict("a report of another life of this agent"));
    }
    let was_down = !record.is_up();
    let record = HostRecord {
        state: HostState::Up,
        capacity: c.capacity,
        load_millis: c.load_millis,
        memory_available: c.memory_available,
        foreign_domains: trimmed(&c.foreign_domains),
        last_seen: Some(state.now()),
        ..record.clone()
    };
    state.write(record);
    if was_down {
        attempts_known(state, c.host, true);
    }
    Ok(Applied::Done)
}

pub(super) fn down(state: &mut State, c: &HostDown) -> Outcome {
    let record = find(state, c.host)?;
    if !record.is_up() {
        return Ok(Applied::AlreadySo);
    }
    if record.last_seen.is_some_and(|seen| seen > c.silent_since) {
        return Err(Refusal::conflict("the host was heard from in the meantime"));
    }
    state.write(HostRecord { state: HostState::Down, ..record.clone() });
    let vms: Vec<VmId> = state.index().vms_on(c.host).collect();
    for vm in vms.iter().filter_map(|id| state.vm(*id).cloned()).collect::<Vec<_>>() {
        state.write(VmRecord { state: VmState::Unknown, ..vm });
    }
    if planted::is(Mistake::RetriedWhileAlive) {
        super::attempts::host_gone(state, c.host);
    }
    attempts_known(state, c.host, false);
    Ok(Applied::Done)
}

/// Attempts on a host that is not heard from are neither running nor failed: unknown.
fn attempts_known(state: &mut State, host: HostId, known: bool) {
    let now = state.now();
    let (from, to) = match known {
        true => (FireState::Unknown, FireState::Running),
        false => (FireState::Running, FireState::Unknown),
    };
    let running: Vec<_> = state.index().fires().running_on(host).collect();
    for fire in running.into_iter().filter_map(|key| state.fire(key).cloned()).collect::<Vec<_>>() {
        if fire.state == from {
            state.write(FireRecord { state: to, unknown_since: (!known).then_some(now), ..fire });
        }
    }
}

pub(super) fn cordon(state: &mut State, c: &HostCordon) -> Outcome {
    let record = find(state, c.host)?;
    if record.cordoned == c.cordoned {
        return Ok(Applied::AlreadySo);
    }
    state.write(HostRecord { cordoned: c.cordoned, ..record.clone() });
    Ok(Applied::Done)
}

pub(super) fn remove(state: &mut State, c: &HostRemove) -> Outcome {
    let record = find(state, c.host)?;
    let usage = state.index().usage(c.host);
    let attempts = state.index().fires().attempts_on(c.host);
    if !c.force && (usage.claims > 0 || attempts > 0) {
        return Err(Refusal::conflict(format!(
            "{} has {} machine(s), {} migration(s) and {attempts} attempt(s)",
            record.name,
            usage.vms,
            usage.claims - usage.vms,
        ))
        .fix("move or delete its machines first; or, if it is off and stays off, remove it by force (`novactl host remove --force`)"));
    }
    if c.force && record.is_up() && usage.claims > 0 {
        return Err(Refusal::conflict(format!("{} is up: its machines may run", record.name))
            .fix("switch it off, and wait until it is seen down"));
    }
    if super::migrations::hands_over_from(state, c.host) {
        return Err(Refusal::conflict(format!(
            "a machine has left {} and is not taken over yet",
            record.name
        ))
        .fix("wait until its migration has ended, or cancel it"));
    }
    super::migrations::host_gone(state, c.host);
    super::attempts::host_gone(state, c.host);
    unplace_all(state, c.host);
    state.erase::<HostRecord>(&c.host);
    Ok(Applied::Done)
}

/// The epoch is raised with the loss of the place: should the host come back, its copy is of a past epoch.
fn unplace_all(state: &mut State, host: HostId) {
    let vms: Vec<_> = state.index().vms_on(host).filter_map(|id| state.vm(id).cloned()).collect();
    for vm in vms {
        let epoch = vm.epoch.next();
        state.write(VmRecord { placed_on: None, epoch, state: VmState::Unknown, observed: None, ..vm });
    }
}

pub(super) fn find(state: &State, id: HostId) -> Result<&HostRecord, Refusal> {
    state.host(id).ok_or_else(|| {
        Refusal::not_found("host", id)
            .fix("it was never here, or was removed: `novactl host list` shows who is")
    })
}
