//! What this host says in the gossip, and to whom it introduces itself. The transport is
//! [`novacron_transport::Gossip`]; nothing is decided by it.

use crate::{control::StreamOwners, facts::HostFacts, peers::Peers};
use std::{sync::Arc, time::Duration};

/// How often this host's figures are said anew, and everybody in the directory is greeted.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Speaks for ever.
pub async fn speak(owners: Arc<StreamOwners>, peers: Peers, facts: HostFacts) {
    let mut changes = peers.changes();
    loop {
        let hosts = peers.hosts().into_iter().map(|h| h.quic);
        let coordinators = peers.coordinators().into_iter().map(|c| c.quic);
        hosts.chain(coordinators).for_each(|address| owners.gossip.greet(address));
        let capacity = facts.capacity();
        let figures = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("load_millis", facts.load_millis().to_string()),
            ("cpus", capacity.cpus.to_string()),
            ("memory", capacity.memory.0.to_string()),
            ("memory_available", facts.memory_available().0.to_string()),
            ("storage", capacity.storage.0.to_string()),
            ("vms", owners.machines.board().all().len().to_string()),
        ];
        for (key, value) in figures {
            owners.gossip.say(key, &value).await;
        }
        let _ = tokio::time::timeout(SAY_EVERY, changes.changed()).await;
    }
}
