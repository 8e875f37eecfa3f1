//! The coordinator's part in the agents' gossip: it listens. Gossip never decides anything; who is alive in it is
//! a figure for operators, and a second opinion where a session says otherwise.

use crate::identity::now;
use novacron_common::{ids::ClusterId, units::Incarnation, wire::Directory};
use novacron_transport::{Endpoint, Gossip, GossipSettings};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often a few others are gossiped with.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often everybody in the directory is greeted, so that two islands of gossip find each other.
const GREET_EVERY: Duration = Duration::from_secs(10);

/// Who listens, and where.
#[derive(Debug, Clone, Copy)]
pub struct GossipPlace {
    /// The cluster.
    pub cluster: ClusterId,
    /// This coordinator.
    pub node: u64,
    /// Where agents reach it.
    pub advertise: SocketAddr,
}

/// Takes part; `None` if gossip cannot be started, which costs a second opinion and nothing else.
pub(super) async fn listen(endpoint: Endpoint, place: GossipPlace) -> Option<Arc<Gossip>> {
    let settings = GossipSettings {
        cluster: place.cluster,
        id: format!("coordinator-{}", place.node),
        // A later life must supersede an earlier one, and this process keeps no counter of its own.
        incarnation: Incarnation(now().0.unsigned_abs()),
        advertise: place.advertise,
        interval: INTERVAL,
    };
    match Gossip::start(endpoint, settings).await {
        Ok(gossip) => Some(Arc::new(gossip)),
        Err(error) => {
            tracing::error!(%error, "gossip could not be started");
            None
        }
    }
}

/// Greets the directory's members as they come, and all of them now and then, until `stop`.
pub(super) async fn greet(
    gossip: Arc<Gossip>,
    own: u64,
    mut directory: watch::Receiver<Directory>,
    stop: CancellationToken,
) {
    loop {
        let members = others(&directory.borrow_and_update(), own);
        members.into_iter().for_each(|address| gossip.greet(address));
        tokio::select! {
            () = stop.cancelled() => return,
            changed = directory.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(GREET_EVERY) => {}
        }
    }
}

/// Where everybody but coordinator `own` is reached.
fn others(directory: &Directory, own: u64) -> Vec<SocketAddr> {
    let hosts = directory.hosts.iter().map(|peer| peer.quic);
    let coordinators = directory.coordinators.iter().filter(|other| other.node != own);
    hosts.chain(coordinators.map(|other| other.quic)).collect()
}
