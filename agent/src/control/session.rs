//! The session with the leading coordinator: found, kept, and found again elsewhere when it is lost.

use super::streams::{StreamOwners, serve_link};
use crate::{facts::HostFacts, peers::Peers, text::describe, vm::Machines};
use novacron_common::{
    record::{Accel, HostAddresses, HostHello, HostStatus, VmState},
    spec::Name,
    units::Incarnation,
    wire::{CoordinatorAddress, Directory, SessionOpened, StreamKind},
};
use novacron_transport::{Endpoint, Link, LinkError, RecvHalf, Role, RoleKind, SendHalf};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::sync::watch;

/// How often status is sent when nothing changes.
const STATUS_EVERY: Duration = Duration::from_secs(2);
/// How long status waits after a change for further ones.
const SETTLE: Duration = Duration::from_millis(20);
/// Pause between two rounds of trying every coordinator: short at first, for a change of leader.
const PAUSE: Duration = Duration::from_millis(400);
/// Rounds after which the pause is long and the log quiet: nobody is there.
const PATIENT_ROUNDS: u32 = 20;
/// The long pause.
const PAUSE_LONG: Duration = Duration::from_secs(2);
/// How long a coordinator may take to answer a hello.
const ANSWER_DEADLINE: Duration = Duration::from_secs(10);
/// A deleted machine is named as missing this long.
const MISSING_SHOWN: Duration = Duration::from_secs(600);

/// What does not change while the agent runs.
#[derive(Debug, Clone)]
pub struct Introduction {
    /// The host's name.
    pub name: Name,
    /// This life of the agent.
    pub incarnation: Incarnation,
    /// Where others reach it.
    pub quic: SocketAddr,
    /// How KVM machines run.
    pub accel: Accel,
}

/// What a session needs.
pub struct SessionParts {
    /// This host.
    pub introduction: Introduction,
    /// The network.
    pub endpoint: Endpoint,
    /// The directory.
    pub peers: Peers,
    /// The machines.
    pub machines: Machines,
    /// What the host can hold.
    pub facts: HostFacts,
    /// Who serves streams.
    pub owners: Arc<StreamOwners>,
}

/// Keeps a session. The link of the present one is published, for reports.
pub struct Session {
    parts: SessionParts,
    link: watch::Sender<Option<Link>>,
    sequence: u64,
}

/// Why a session ended or never began.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("the link broke")]
    Link(#[from] LinkError),
    #[error("the coordinator does not lead")]
    NotLeader(Option<CoordinatorAddress>),
    #[error("the coordinator refused this host: {0}")]
    Refused(String),
    #[error("the coordinator ended the session")]
    Ended,
    #[error("the coordinator did not answer")]
    Silent,
}

impl Session {
    /// Not connected yet.
    pub fn new(parts: SessionParts) -> Self {
        Self { parts, link: watch::Sender::new(None), sequence: 0 }
    }

    /// The link of the present session, if there is one.
    pub fn link(&self) -> watch::Receiver<Option<Link>> {
        self.link.subscribe()
    }

    /// Keeps a session for ever.
    pub async fn run(mut self) {
        let mut hint: Option<SocketAddr> = None;
        let mut rounds = 0;
        loop {
            let known = self.parts.peers.coordinators().into_iter().map(|c| c.quic);
            let candidates: Vec<_> = hint.take().into_iter().chain(known).collect();
            for address in candidates {
                let Err(end) = self.converse(address).await else { continue };
                let had_session = self.link.send_replace(None).is_some();
                rounds = if had_session { 0 } else { rounds };
                tell(address, &end, rounds);
                if let SessionEnd::NotLeader(Some(leader)) = end {
                    hint = Some(leader.quic);
                    break;
                }
            }
            rounds += 1;
            tokio::time::sleep(pause(hint.is_some(), rounds)).await;
        }
    }

    async fn converse(&mut self, address: SocketAddr) -> Result<(), SessionEnd> {
        let link = self.parts.endpoint.connect_any(address, RoleKind::Coordinator).await?;
        let mut stream = link.open(StreamKind::Session).await?;
        stream.send(&self.hello().await).await?;
        let opened = tokio::time::timeout(ANSWER_DEADLINE, stream.recv::<SessionOpened>()).await;
        match opened.map_err(|_| SessionEnd::Silent)?? {
            SessionOpened::Welcome(directory) => self.parts.peers.update(directory),
            SessionOpened::NotLeader(leader) => return Err(SessionEnd::NotLeader(leader)),
            SessionOpened::Refused(reason) => return Err(SessionEnd::Refused(reason)),
        }
        tracing::info!(%address, "session with the leading coordinator begins");
        self.link.send_replace(Some(link.clone()));
        let serving = tokio::spawn(serve_link(link.clone(), self.parts.owners.clone()));
        let (send, recv) = stream.split();
        let peers = self.parts.peers.clone();
        let ended = tokio::select! {
            end = take_directory(recv, peers) => end,
            end = self.send_status(send) => end,
            reason = link.closed() => {
                tracing::debug!(reason, "link closed");
                Err(SessionEnd::Ended)
            }
        };
        link.close("the session is over");
        serving.abort();
        ended
    }

    async fn hello(&self) -> HostHello {
        let Introduction { name, incarnation, quic, accel } = self.parts.introduction.clone();
        let Role::Agent { host } = self.parts.endpoint.identity().get().role else {
            unreachable!("an agent's identity is checked to be an agent's at start")
        };
        let hypervisors = self.parts.machines.hypervisors();
        HostHello {
            host,
            name,
            incarnation,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            addresses: HostAddresses { quic },
            capacity: self.parts.facts.capacity(),
            accel,
            can_kvm: hypervisors.kvm.is_some(),
            can_namespace: hypervisors.namespace.is_some(),
            features: Vec::new(),
        }
    }

    async fn send_status(&mut self, mut send: SendHalf) -> Result<(), SessionEnd> {
        let mut changes = self.parts.machines.board().changes();
        loop {
            changes.mark_unchanged();
            send.send(&self.status().await).await?;
            let _ = tokio::time::timeout(STATUS_EVERY, changes.changed()).await;
            tokio::time::sleep(SETTLE).await;
        }
    }

    async fn status(&mut self) -> HostStatus {
        self.sequence += 1;
        let board = self.parts.machines.board();
        let now = crate::clock::now();
        let (old, vms): (Vec<_>, Vec<_>) = board
            .all()
            .into_iter()
            .partition(|o| o.state == VmState::Missing && now.since(o.since) > MISSING_SHOWN);
        old.iter().for_each(|o| board.forget(o.vm));
        HostStatus {
            incarnation: self.parts.introduction.incarnation,
            sequence: self.sequence,
            capacity: self.parts.facts.capacity(),
            load_millis: self.parts.facts.load_millis(),
            memory_available: self.parts.facts.memory_available(),
            vms,
            foreign_domains: self.parts.machines.foreign().await,
        }
    }
}

fn pause(has_hint: bool, rounds: u32) -> Duration {
    match (has_hint, rounds) {
        (true, 0..=PATIENT_ROUNDS) => PAUSE / 8,
        (_, 0..=PATIENT_ROUNDS) => PAUSE,
        _ => PAUSE_LONG,
    }
}

fn tell(address: SocketAddr, end: &SessionEnd, rounds: u32) {
    let reason = describe(end);
    if rounds <= 1 || rounds == PATIENT_ROUNDS {
        tracing::warn!(%address, reason, "no session with this coordinator");
    } else {
        tracing::debug!(%address, reason, "no session with this coordinator");
    }
}

async fn take_directory(mut recv: RecvHalf, peers: Peers) -> Result<(), SessionEnd> {
    while let Some(directory) = recv.recv_opt::<Directory>().await? {
        peers.update(directory);
    }
    Err(SessionEnd::Ended)
}
