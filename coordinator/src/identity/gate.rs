//! The gate: whoever is not in the ledger's address book (any more) is cut off, whatever its certificate says.

use super::enroll::is_member;
use crate::raft::{Committed, Ledger};
use novacron_core::{State, TableId};
use novacron_transport::{Endpoint, Role};
use std::{collections::HashSet, sync::Arc};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// Shuts `endpoint` to everybody but members, now and as the ledger changes, until `stop`.
pub async fn guard(endpoint: Endpoint, ledger: Ledger, stop: CancellationToken) {
    let mut committed = ledger.committed();
    let looked_at = ledger.clone();
    endpoint.set_gate(Arc::new(move |role: &Role| looked_at.read(|state| admits(state, role))));
    let mut members = ledger.read(members);
    loop {
        let change = tokio::select! {
            () = stop.cancelled() => return,
            change = committed.recv() => change,
        };
        match change {
            Ok(change) if !concerns_members(&change) => continue,
            Err(RecvError::Closed) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
        }
        let now = ledger.read(self::members);
        for gone in members.difference(&now) {
            tracing::info!(role = %gone, "no longer a member: cut off");
            endpoint.disconnect(gone);
        }
        members = now;
    }
}

/// A coordinator that has just joined knows nobody yet: it must hear the others to learn who they are.
fn admits(state: &State, role: &Role) -> bool {
    match role {
        Role::Coordinator { .. } if state.cluster().is_none() => true,
        role => is_member(state, role),
    }
}

fn concerns_members(change: &Committed) -> bool {
    let about_members = |table: TableId| matches!(table, TableId::Hosts | TableId::Coordinators);
    change.reset || change.changes.iter().any(|c| c.value.is_none() && about_members(c.table))
        || change.changes.iter().any(|c| c.table == TableId::Coordinators)
}

fn members(state: &State) -> HashSet<Role> {
    let hosts = state.hosts().iter().map(|h| Role::Agent { host: h.id });
    let coordinators = state.coordinators().iter().map(|c| Role::Coordinator { node: c.node });
    hosts.chain(coordinators).collect()
}
