//! How a process becomes a member: one-time tokens, and the ids and numbers that they are exchanged for.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::{JoinTokenPut, JoinTokenUse},
    record::{ClusterRecord, CoordinatorRecord, HostRecord, JoinTokenRecord},
    state::State,
};
use novacron_common::{
    api::{HostState, JoinTokenRole},
    ids::HostId,
    record::HostCapacity,
    spec::Name,
    units::{ByteCount, UnixMillis},
    wire::{JoinDenied, JoinPurpose},
};
use std::time::Duration;

/// Join tokens that may be open at a time.
const OPEN_MAX: usize = 1000;
/// A token stays on record for so long after its end, so that a second use is told "used" and not "unknown".
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);

pub(super) fn join_token_put(state: &mut State, c: JoinTokenPut) -> Outcome {
    forget_old(state);
    let tokens = state.table::<JoinTokenRecord>();
    if tokens.len() >= OPEN_MAX && !tokens.has(&c.id) {
        return Err(
            Refusal::conflict(format!("{OPEN_MAX} join tokens are open")).fix("wait until some run out")
        );
    }
    if let Some(node) = c.replaces
        && !state.coordinators().has(&node)
    {
        return Err(Refusal::not_found("coordinator", node));
    }
    let id = c.id;
    let used_at = state.join_token(id).and_then(|old| old.used_at);
    let record = JoinTokenRecord {
        id,
        secret_sha256: c.secret_sha256,
        role: c.role,
        expires_at: c.expires_at,
        replaces: c.replaces,
        used_at,
    };
    state.write(record);
    Ok(Applied::TokenStored(id))
}

fn forget_old(state: &mut State) {
    let now = state.now();
    let old = |t: &JoinTokenRecord| now.since(t.expires_at) > REMEMBERED;
    let ids: Vec<_> = state.table::<JoinTokenRecord>().iter().filter(|t| old(t)).map(|t| t.id).collect();
    for id in ids {
        state.erase::<JoinTokenRecord>(&id);
    }
}

pub(super) fn join_token_use(state: &mut State, c: JoinTokenUse) -> Applied {
    admit(state, c).unwrap_or_else(Applied::JoinDenied)
}

fn admit(state: &mut State, c: JoinTokenUse) -> Result<Applied, JoinDenied> {
    let token = check_token(state, &c)?;
    let applied = match c.purpose {
        JoinPurpose::Agent { name, rejoin: Some(host) } => readmit_host(state, host, &name)?,
        JoinPurpose::Agent { name, rejoin: None } => admit_host(state, c.new_host, name)?,
        JoinPurpose::Coordinator { name, quic, http } => {
            admit_coordinator(state, token.replaces, |node| CoordinatorRecord { node, name, quic, http })?
        }
    };
    state.write(JoinTokenRecord { used_at: Some(state.now()), ..token });
    Ok(applied)
}

/// The wrong secret is answered as an unknown token, so that ids cannot be probed.
fn check_token(state: &State, c: &JoinTokenUse) -> Result<JoinTokenRecord, JoinDenied> {
    let token = state.join_token(c.id).filter(|t| t.secret_sha256 == c.secret_sha256);
    let token = token.ok_or(JoinDenied::UnknownToken)?;
    let wants = match c.purpose {
        JoinPurpose::Agent { .. } => JoinTokenRole::Agent,
        JoinPurpose::Coordinator { .. } => JoinTokenRole::Coordinator,
    };
    if token.used_at.is_some() {
        return Err(JoinDenied::Used);
    }
    if token.expires_at <= state.now() {
        return Err(JoinDenied::Expired);
    }
    if token.role != wants { Err(JoinDenied::WrongRole) } else { Ok(token.clone()) }
}

fn readmit_host(state: &State, host: HostId, name: &Name) -> Result<Applied, JoinDenied> {
    let record = state.host(host).ok_or(JoinDenied::Removed)?;
    match record.name == *name {
        true => Ok(Applied::Enrolled { host: Some(host), node: None }),
        // A host keeps its name: another one means that two machines share an identity.
        false => Err(JoinDenied::NameTaken(name.clone())),
    }
}

fn admit_host(state: &mut State, id: HostId, name: Name) -> Result<Applied, JoinDenied> {
    if state.index().host_named(&name).is_some() || state.host(id).is_some() {
        return Err(JoinDenied::NameTaken(name));
    }
    state.write(new_host(id, name, state.now()));
    Ok(Applied::Enrolled { host: Some(id), node: None })
}

fn new_host(id: HostId, name: Name, now: UnixMillis) -> HostRecord {
    HostRecord {
        id,
        name,
        state: HostState::Down,
        cordoned: false,
        hello: None,
        capacity: HostCapacity { cpus: 0, memory: ByteCount(0), storage: ByteCount(0) },
        load_millis: 0,
        memory_available: ByteCount(0),
        foreign_domains: Vec::new(),
        last_seen: None,
        joined_at: now,
    }
}

fn admit_coordinator(
    state: &mut State,
    replaces: Option<u64>,
    at: impl FnOnce(u64) -> CoordinatorRecord,
) -> Result<Applied, JoinDenied> {
    let cluster =
        state.cluster().cloned().ok_or_else(|| JoinDenied::Unavailable("no cluster was made".into()))?;
    let node = cluster.next_node;
    let record = at(node);
    let stays = |c: &&CoordinatorRecord| Some(c.node) != replaces;
    if state.coordinators().iter().filter(stays).any(|c| c.name == record.name) {
        return Err(JoinDenied::NameTaken(record.name));
    }
    // Out of the address book now; out of the quorum as soon as the new one is in, in one step.
    if let Some(node) = replaces {
        super::cluster::coordinator_gone(state, node);
    }
    state.write(ClusterRecord { next_node: node.saturating_add(1), ..cluster });
    state.write(record);
    Ok(Applied::Enrolled { host: None, node: Some(node) })
}
