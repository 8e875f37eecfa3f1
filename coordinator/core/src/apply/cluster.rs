//! The cluster's own rows: its identity, its coordinators, its API tokens.

use super::Outcome;
use crate::{
    applied::{Applied, Refusal},
    command::{ClusterInit, TokenPut},
    record::{AlarmRecord, ApiTokenRecord, ClusterRecord, CoordinatorRecord},
    state::State,
};
use novacron_common::{api::TokenRole, ids::TokenId};

/// API tokens that a cluster may have.
const TOKENS_MAX: usize = 10_000;

pub(super) fn init(state: &mut State, c: ClusterInit) -> Outcome {
    match state.cluster() {
        Some(old) if old.id == c.cluster => return Ok(Applied::AlreadySo),
        Some(old) => {
            return Err(Refusal::conflict(format!("this ledger belongs to cluster {} already", old.id)));
        }
        None => (),
    }
    let record = ClusterRecord {
        id: c.cluster,
        ca_cert: c.ca_cert,
        sealed_ca_key: c.sealed_ca_key,
        next_node: state.coordinators().iter().map(|c| c.node).max().unwrap_or(0).saturating_add(1),
        created_at: state.now(),
    };
    super::fits(&record, "ca_cert")?;
    state.write(record);
    Ok(Applied::Done)
}

pub(super) fn coordinator_put(state: &mut State, c: CoordinatorRecord) -> Outcome {
    if state.coordinators().get(&c.node) == Some(&c) {
        return Ok(Applied::AlreadySo);
    }
    if let Some(cluster) = state.cluster().filter(|cluster| cluster.next_node <= c.node) {
        let next_node = c.node.saturating_add(1);
        state.write(ClusterRecord { next_node, ..cluster.clone() });
    }
    state.write(c);
    Ok(Applied::Done)
}

pub(super) fn coordinator_remove(state: &mut State, node: u64) -> Outcome {
    if !state.coordinators().has(&node) {
        return Err(Refusal::not_found("coordinator", node));
    }
    if state.coordinators().len() == 1 {
        return Err(Refusal::conflict("it is the only coordinator: the cluster would be gone"));
    }
    coordinator_gone(state, node);
    Ok(Applied::Done)
}

pub(super) fn coordinator_gone(state: &mut State, node: u64) {
    state.erase::<CoordinatorRecord>(&node);
    state.erase::<AlarmRecord>(&node);
}

pub(super) fn token_put(state: &mut State, c: TokenPut) -> Outcome {
    if state.api_tokens().len() >= TOKENS_MAX && state.api_token(c.id).is_none() {
        return Err(Refusal::conflict(format!("the cluster has {TOKENS_MAX} tokens")).fix("remove some"));
    }
    let id = c.id;
    let created_at = state.api_token(id).map_or(state.now(), |old| old.created_at);
    state.write(ApiTokenRecord {
        id,
        name: c.name,
        role: c.role,
        secret_sha256: c.secret_sha256,
        created_at,
    });
    Ok(Applied::TokenStored(id))
}

pub(super) fn token_remove(state: &mut State, id: TokenId) -> Outcome {
    let token = state.api_token(id).ok_or_else(|| Refusal::not_found("token", id))?;
    let admins = state.api_tokens().iter().filter(|t| t.role == TokenRole::Admin).count();
    if token.role == TokenRole::Admin && admins == 1 {
        return Err(Refusal::conflict("it is the only admin token: nobody could change anything any more")
            .fix("make another one first"));
    }
    state.erase::<ApiTokenRecord>(&id);
    Ok(Applied::Done)
}
