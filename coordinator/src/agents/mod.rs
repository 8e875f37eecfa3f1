//! The coordinator's side of the conversation with the agents.
//!
//! * [`Agents::serve`](crate::AgentStreams::serve) takes the streams that agents open: a session (hello, then status; the coordinator
//!   answers with the directory), requests on control streams, and gossip;
//! * [`Agents::call`] asks an agent for something;
//! * what agents report becomes commands for the ledger in `ingest` (pure), and only where it differs.
//!
//! Sessions exist on the leader only; any coordinator can call an agent.

mod call;
mod control;
mod directory;
mod gossip;
mod ingest;
mod leases;
mod serve;
mod session;
mod sessions;

pub use call::CallError;
pub use gossip::GossipPlace;
pub use ingest::ProgressPace;
pub use leases::Leases;
pub use sessions::{SessionNumber, Sessions, Silence};

use crate::raft::Ledger;
use novacron_common::{ids::HostId, units::UnixMillis, wire::Directory};
use novacron_core::views;
use novacron_transport::{Endpoint, Gossip};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A handle to the agents. Cheap to clone.
#[derive(Clone)]
pub struct Agents(Arc<Inner>);

struct Inner {
    ledger: Ledger,
    endpoint: Endpoint,
    sessions: Sessions,
    directory: watch::Sender<Directory>,
    /// When each host last said anything to this coordinator.
    heard: Mutex<HashMap<HostId, UnixMillis>>,
    /// Empty until it has started.
    gossip: OnceLock<Arc<Gossip>>,
    /// Shared by reports that come unasked and by answers to the migrations' reconciler.
    pace: Mutex<ProgressPace>,
    leases: Leases,
}

impl Agents {
    /// Without sessions yet. [`Agents::keep`] must run for the directory to stay current.
    pub fn new(ledger: Ledger, endpoint: Endpoint) -> Self {
        let directory = watch::Sender::new(ledger.read(views::directory));
        Self(Arc::new(Inner {
            ledger,
            endpoint,
            sessions: Sessions::default(),
            directory,
            heard: Mutex::default(),
            gossip: OnceLock::new(),
            pace: Mutex::default(),
            leases: Leases::default(),
        }))
    }

    /// Keeps the directory current, until `stop`.
    pub async fn keep(self, place: Option<GossipPlace>, stop: CancellationToken) {
        let mut committed = self.0.ledger.committed();
        if let Some(place) = place {
            tokio::spawn(self.clone().gossip(place, stop.clone()));
        }
        loop {
            self.0
                .directory
                .send_if_modified(|now| directory::refresh(now, self.0.ledger.read(views::directory)));
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                alive = directory::changed(&mut committed) => if !alive { return },
            }
        }
    }

    async fn gossip(self, place: GossipPlace, stop: CancellationToken) {
        if let Some(gossip) = gossip::listen(self.0.endpoint.clone(), place).await {
            let gossip = self.0.gossip.get_or_init(|| gossip).clone();
            gossip::greet(gossip, place.node, self.0.directory.subscribe(), stop).await;
        }
    }

    /// Processes that are heard from in the gossip, this one included.
    pub async fn gossip_peers(&self) -> usize {
        match self.0.gossip.get() {
            Some(gossip) => gossip.live().await.len(),
            None => 0,
        }
    }

    /// This coordinator's sessions.
    pub fn sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// When `host` last said anything to this coordinator.
    pub fn last_heard(&self, host: HostId) -> Option<UnixMillis> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner).get(&host).copied()
    }

    /// The leases of attempts that this coordinator has granted.
    pub fn leases(&self) -> &Leases {
        &self.0.leases
    }

    /// Paces the figures of migrations.
    pub fn pace(&self) -> MutexGuard<'_, ProgressPace> {
        self.0.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn heard_from(&self, host: HostId) {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(host, crate::identity::now());
    }

    fn endpoint(&self) -> &Endpoint {
        &self.0.endpoint
    }

    fn address(&self, host: HostId) -> Option<SocketAddr> {
        self.0.ledger.read(|state| directory::address(state, host))
    }
}

impl std::fmt::Debug for Agents {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Agents({:?})", self.0.endpoint)
    }
}
