//! Who may be talked to, and where: derived from the ledger. A host that is not in it is cut off.

use crate::raft::Committed;
use novacron_common::{ids::HostId, wire::Directory};
use novacron_core::{State, TableId};
use std::{net::SocketAddr, sync::Arc};
use tokio::sync::broadcast::{Receiver, error::RecvError};

/// Puts `next` in place of `now`; whether anything changed.
pub(super) fn refresh(now: &mut Directory, next: Directory) -> bool {
    let changed = *now != next;
    *now = next;
    changed
}

/// Where a host's agent serves QUIC.
pub(super) fn address(state: &State, host: HostId) -> Option<SocketAddr> {
    Some(state.host(host)?.hello.as_ref()?.addresses.quic)
}

/// Waits for an entry that may change the directory; `false` if the ledger has stopped.
pub(super) async fn changed(committed: &mut Receiver<Arc<Committed>>) -> bool {
    loop {
        match committed.recv().await {
            Ok(entry) if concerns(&entry) => return true,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return true,
            Err(RecvError::Closed) => return false,
        }
    }
}

fn concerns(entry: &Committed) -> bool {
    let about_members = |table| matches!(table, TableId::Hosts | TableId::Coordinators);
    entry.reset || entry.changes.iter().any(|change| about_members(change.table))
}
