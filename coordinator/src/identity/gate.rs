//! The gate: whoever is not in the ledger's address book (any more) is cut off, whatever its certificate says.

use super::enroll::is_member;
use crate::raft::{Committed, Ledger};
use novacron_common::ids::HostId;
use novacron_core::{State, TableId, table::RowKey};
use novacron_transport::{Endpoint, Role};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

/// How often the coordinators' membership is compared with what it was; hosts are cut off by the entry itself.
const PERIOD: Duration = Duration::from_millis(250);

/// Shuts `endpoint` to everybody but members, now and as the ledger changes, until `stop`; then to everybody.
pub async fn guard(endpoint: Endpoint, ledger: Ledger, stop: CancellationToken) {
    let mut committed = ledger.committed();
    let mut period = tokio::time::interval(PERIOD);
    let mut coordinators = coordinators(&ledger);
    let members = ledger.clone();
    endpoint.set_gate(Arc::new(move |role: &Role| admits(&members, role)));
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            _ = period.tick() => {
                let now = self::coordinators(&ledger);
                coordinators.difference(&now).for_each(|node| cut_off(&endpoint, &Role::Coordinator { node: *node }));
                coordinators = now;
            }
            change = committed.recv() => match change {
                Ok(change) => removed_hosts(&change).for_each(|role| cut_off(&endpoint, &role)),
                // Links of somebody who was removed in what we missed stay open, but carry no new stream.
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "entries were missed while cutting off"),
                Err(RecvError::Closed) => break,
            },
        }
    }
    // Also lets go of the ledger, which holds the endpoint.
    endpoint.set_gate(Arc::new(|_| false));
}

fn cut_off(endpoint: &Endpoint, role: &Role) {
    tracing::info!(%role, "no longer a member: cut off");
    endpoint.disconnect(role);
}

/// A coordinator stays until it is out of the address book *and* of the quorum: its vote may be needed to commit
/// its own removal.
fn admits(ledger: &Ledger, role: &Role) -> bool {
    let in_quorum = matches!(role, Role::Coordinator { node } if ledger.has_member(*node));
    in_quorum || ledger.read(|state| knows(state, role))
}

/// A coordinator whose number this node's ledger has not given out yet joined while this node was away, or this
/// node has just joined itself: it must be heard, or this node would never catch up. Numbers are not used twice,
/// so one that was removed is never taken for one that is new.
fn knows(state: &State, role: &Role) -> bool {
    let newer = |node: u64| state.cluster().is_none_or(|cluster| node >= cluster.next_node);
    match role {
        Role::Coordinator { node } if newer(*node) => true,
        role => is_member(state, role),
    }
}

fn coordinators(ledger: &Ledger) -> BTreeSet<u64> {
    let listed: BTreeSet<u64> = ledger.read(|state| state.coordinators().iter().map(|c| c.node).collect());
    listed.into_iter().chain(ledger.members().into_iter().map(|m| m.node)).collect()
}

fn removed_hosts(committed: &Committed) -> impl Iterator<Item = Role> {
    let removed = committed.changes.iter().filter(|c| c.table == TableId::Hosts && c.value.is_none());
    removed.filter_map(|change| HostId::from_bytes(&change.key)).map(|host| Role::Agent { host })
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{ids::ClusterId, units::UnixMillis};
    use novacron_core::{Command, CommandBody, command::ClusterInit, record::CoordinatorRecord};

    fn applied(bodies: Vec<CommandBody>) -> State {
        let mut state = State::default();
        for (index, body) in (1..).zip(bodies) {
            state.apply(index, Command { at: UnixMillis(1), body });
        }
        state
    }

    fn coordinator(node: u64) -> CommandBody {
        let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let name = format!("c{node}").parse().unwrap();
        CommandBody::CoordinatorPut(CoordinatorRecord { node, name, quic: nowhere, http: nowhere })
    }

    #[test]
    fn a_removed_coordinator_is_refused_and_one_that_is_news_is_heard() {
        let init = ClusterInit { cluster: ClusterId::from_u128(1), ca_cert: vec![1], sealed_ca_key: vec![1] };
        let remove = CommandBody::CoordinatorRemove { node: 2 };
        let state = applied(vec![CommandBody::ClusterInit(init), coordinator(1), coordinator(2), remove]);
        let admitted: Vec<u64> =
            (1..5).filter(|node| knows(&state, &Role::Coordinator { node: *node })).collect();
        assert_eq!(admitted, [1, 3, 4]);
        assert!(knows(&State::default(), &Role::Coordinator { node: 7 }));
        assert!(!knows(&State::default(), &Role::Agent { host: HostId::from_u128(1) }));
    }
}
