//! The source's end: UNIX sockets that libvirtd and QEMU connect to, and a lane for each connection.

use super::{
    Counters,
    relay::{self, Way},
    sockets::{SocketError, Sockets},
};
use crate::text::describe;
use novacron_common::{
    record::Ticket,
    wire::{Denial, LaneKind, LaneOpen, LaneVerdict, StreamKind},
};
use novacron_transport::{Endpoint, Link, LinkError, Role, Stream};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Mutex, Semaphore, watch},
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections of one migration at once: control, main channel, multifd channels, disks.
const LANES_MAX: usize = 64;
/// How long the target may take to open a lane.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);

/// A lane could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LaneError {
    /// The sockets.
    #[error("could not serve the migration's sockets")]
    Sockets(#[from] SocketError),
    /// The link to the target.
    #[error("could not reach the target's agent")]
    Link(#[from] LinkError),
    /// The target does not honour the ticket.
    #[error("the target refused")]
    Refused(#[source] Denial),
    /// The target does not answer.
    #[error("the target did not open a lane in time")]
    TooSlow,
}

/// Opens lanes to one target with one ticket.
pub struct Opener {
    endpoint: Endpoint,
    target: SocketAddr,
    ticket: Ticket,
    link: Mutex<Link>,
}

impl Opener {
    /// Dials the target; nobody but the host in the ticket will do.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn dial(endpoint: Endpoint, target: SocketAddr, ticket: Ticket) -> Result<Self, LaneError> {
        let link = endpoint.connect(target, &Role::Agent { host: ticket.target }).await?;
        Ok(Self { endpoint, target, ticket, link: Mutex::new(link) })
    }

    /// A new lane.
    ///
    /// # Errors
    /// [`LaneError`].
    pub async fn open(&self, kind: LaneKind) -> Result<Stream, LaneError> {
        let opening = async {
            let mut stream = self.usable().await?.open(StreamKind::Lane).await?;
            stream.send(&LaneOpen { ticket: self.ticket.clone(), kind }).await?;
            match stream.recv().await? {
                LaneVerdict::Open => Ok(stream),
                LaneVerdict::Refused(denial) => Err(LaneError::Refused(denial)),
            }
        };
        tokio::time::timeout(OPEN_DEADLINE, opening).await.unwrap_or(Err(LaneError::TooSlow))
    }

    /// The link, dialled again if certificates were renewed since. Lanes on the old one go on.
    async fn usable(&self) -> Result<Link, LaneError> {
        let mut link = self.link.lock().await;
        if !link.is_usable() {
            *link = self.endpoint.connect(self.target, &Role::Agent { host: self.ticket.target }).await?;
        }
        Ok(link.clone())
    }

    /// Waits until the present link is over, and says why.
    pub async fn closed(&self) -> String {
        let link = self.link.lock().await.clone();
        link.closed().await
    }

    /// Ends every lane.
    pub async fn close(&self) {
        self.link.lock().await.close("the migration is over here");
    }
}

/// The sockets of one departure, served until this is dropped.
pub struct SourceLanes {
    sockets: Sockets,
    opener: Arc<Opener>,
    counters: Arc<Counters>,
    trouble: watch::Receiver<Option<String>>,
    _stop: DropGuard,
}

/// What each connection's task needs.
#[derive(Clone)]
struct Service {
    opener: Arc<Opener>,
    counters: Arc<Counters>,
    slots: Arc<Semaphore>,
    trouble: watch::Sender<Option<String>>,
    stop: CancellationToken,
}

impl SourceLanes {
    /// Listens on all sockets.
    ///
    /// # Errors
    /// [`LaneError`].
    pub fn serve(sockets: Sockets, opener: Opener) -> Result<Self, LaneError> {
        let (trouble, seen) = watch::channel(None);
        let stop = CancellationToken::new();
        let service = Service {
            opener: Arc::new(opener),
            counters: Arc::default(),
            slots: Arc::new(Semaphore::new(LANES_MAX)),
            trouble,
            stop: stop.clone(),
        };
        let lanes = Self {
            opener: service.opener.clone(),
            counters: service.counters.clone(),
            trouble: seen,
            _stop: stop.drop_guard(),
            sockets,
        };
        for kind in [LaneKind::Control, LaneKind::Memory, LaneKind::Disk] {
            let listener = lanes.sockets.listen(kind)?;
            tokio::spawn(listen(listener, kind, lanes.sockets.guard(), service.clone()));
        }
        Ok(lanes)
    }

    /// The sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// What has passed.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The first lane that was refused or broke, if any: a better reason than libvirt's.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.borrow().clone()
    }

    /// Waits until the link to the target is over.
    pub async fn closed(&self) -> String {
        self.opener.closed().await
    }

    /// Ends every lane.
    pub async fn close(&self) {
        self.opener.close().await;
    }
}

async fn listen(listener: UnixListener, kind: LaneKind, guard: super::sockets::PeerGuard, service: Service) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = service.stop.cancelled() => return,
        };
        let Ok((connection, _)) = accepted else { continue };
        if !guard.admits(&connection) {
            tracing::warn!(?kind, "a stranger connected to a migration's socket");
            continue;
        }
        let Ok(slot) = service.slots.clone().acquire_owned().await else { return };
        let service = service.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = carry(connection, kind, &service) => {}
                () = service.stop.cancelled() => {}
            }
            drop(slot);
        });
    }
}

async fn carry(connection: UnixStream, kind: LaneKind, service: &Service) {
    let outcome = match service.opener.open(kind).await {
        Ok(stream) => relay_lane(connection, stream, kind, service).await.map_err(|e| e.to_string()),
        Err(error) => Err(describe(&error)),
    };
    if let Err(reason) = outcome {
        tracing::info!(?kind, reason, "a lane broke");
        service.trouble.send_if_modified(|trouble| {
            let first = trouble.is_none();
            trouble.get_or_insert(format!("the {} lane: {reason}", name(kind)));
            first
        });
    }
}

async fn relay_lane(
    connection: UnixStream,
    stream: Stream,
    kind: LaneKind,
    service: &Service,
) -> std::io::Result<()> {
    let (from, to) = connection.into_split();
    let (send, recv) = stream.split();
    // Control first: a keep-alive that waits behind gigabytes of memory would end the migration.
    send.set_priority(i32::from(kind == LaneKind::Control));
    let counter = service.counters.of(kind);
    relay::both(&mut Way { from, to: send }, &mut Way { from: recv, to }, counter).await
}

pub(super) fn name(kind: LaneKind) -> &'static str {
    match kind {
        LaneKind::Control => "control",
        LaneKind::Memory => "memory",
        LaneKind::Disk => "disk",
    }
}
