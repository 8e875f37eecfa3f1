//! The source's end: UNIX sockets that libvirtd and QEMU connect to, and a lane for each connection.

mod traffic;

use super::{
    Counters, codec,
    connection::{Connection, Halves},
    control,
    offer::{self, Heard},
    packing::Packers,
    saved::{Descriptors, LeftConnection, NotResumed, SavedConnection},
    sockets::{SocketError, Sockets},
};
use crate::{
    handover::socket_of,
    migrate::{
        checkpoint::SharedSink,
        link::{
            keeper::{LaneError, LinkCondition},
            links::{Links, SavedLinks},
        },
    },
    text::describe,
};
use novacron_codec::Framer;
use novacron_common::{
    record::TransferCounts,
    wire::{LaneId, LaneKind},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
    num::NonZeroU8,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};
pub use traffic::SavedTraffic;
use traffic::Traffic;

/// Connections of one migration at once: control, main channel, multifd channels, disks.
const LANES_MAX: usize = 64;
/// How long what is being packed may take when a successor takes over.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);
/// How long the copy waits for all that the target offers. What comes later still counts.
const OFFER_PATIENCE: Duration = Duration::from_secs(15);

/// A copy that is at its end: did the guest go over (post-copy)? See [`control::Warden`].
pub type AtItsEnd = oneshot::Sender<bool>;

/// The sockets of one departure, served until this is dropped.
pub struct SourceLanes {
    sockets: Sockets,
    service: Service,
    at_its_end: tokio::sync::Mutex<mpsc::Receiver<AtItsEnd>>,
    _stop: DropGuard,
}

/// What each connection's task needs.
#[derive(Clone)]
struct Service {
    links: Arc<Links>,
    /// Memory crosses on so many channels beside the main one.
    channels: Option<NonZeroU8>,
    counters: Arc<Counters>,
    packers: Packers,
    slots: Arc<Semaphore>,
    trouble: watch::Sender<Option<String>>,
    heard: watch::Sender<Heard>,
    sink: Arc<SharedSink>,
    finished: watch::Sender<bool>,
    at_its_end: mpsc::Sender<AtItsEnd>,
    stop: CancellationToken,
    /// A successor takes over.
    leave: CancellationToken,
    left: Arc<Mutex<Left>>,
    tasks: TaskTracker,
}

impl control::Warden for Service {
    async fn went_over(&self) -> bool {
        let (tell, told) = oneshot::channel();
        let asked = self.at_its_end.send(tell).await;
        // Whoever does not ask about it any more has not seen it go.
        asked.is_ok() && told.await.unwrap_or(false)
    }
}

/// What tasks left for a successor.
#[derive(Default)]
struct Left {
    connections: Vec<LeftConnection<SavedTraffic>>,
    listeners: Vec<(LaneKind, OwnedFd)>,
}

/// The lanes of a departure as they stand, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedSource {
    links: SavedLinks,
    channels: Option<NonZeroU8>,
    connections: Vec<SavedConnection<SavedTraffic>>,
    listeners: Vec<(LaneKind, u32)>,
    counts: TransferCounts,
    finished: bool,
}

impl SavedSource {
    /// The links.
    pub fn links(&self) -> &SavedLinks {
        &self.links
    }
}

const LISTENING: [LaneKind; 3] = [LaneKind::Control, LaneKind::Memory, LaneKind::Disk];

impl SourceLanes {
    /// Listens on all sockets, and to what the target offers. What passes of memory is shown to `sink`; it crosses on so many
    /// `channels` beside the main one.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn serve(
        sockets: Sockets,
        links: Links,
        channels: Option<NonZeroU8>,
        sink: SharedSink,
    ) -> Result<Self, SocketError> {
        let mut lanes = Self::new(sockets, links, Counters::default());
        (lanes.service.channels, lanes.service.sink) = (channels, Arc::new(sink));
        for kind in LISTENING {
            lanes.listen(kind)?;
        }
        tokio::spawn(listen_to_offer(lanes.service.clone()));
        Ok(lanes)
    }

    /// Listens for memory alone: the rest of a guest that went over (post-copy), and was cut off.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn serve_rest(sockets: Sockets, links: Links) -> Result<Self, SocketError> {
        let lanes = Self::new(sockets, links, Counters::default());
        lanes.listen(LaneKind::Memory)?;
        Ok(lanes)
    }

    fn listen(&self, kind: LaneKind) -> Result<(), SocketError> {
        self.spawn_listener(self.sockets.listen(kind)?, kind);
        Ok(())
    }

    fn new(sockets: Sockets, links: Links, counters: Counters) -> Self {
        let (stop, (at_its_end, ends)) = (CancellationToken::new(), mpsc::channel(1));
        let service = Service {
            links: Arc::new(links),
            channels: None,
            counters: Arc::new(counters),
            packers: Packers::default(),
            slots: Arc::new(Semaphore::new(LANES_MAX)),
            trouble: watch::Sender::new(None),
            heard: watch::Sender::new(Heard::Nothing),
            sink: Arc::new(SharedSink::new(None)),
            finished: watch::Sender::new(false),
            at_its_end,
            stop: stop.clone(),
            leave: CancellationToken::new(),
            left: Arc::default(),
            tasks: TaskTracker::new(),
        };
        Self { sockets, service, at_its_end: ends.into(), _stop: stop.drop_guard() }
    }

    fn spawn_listener(&self, listener: UnixListener, kind: LaneKind) {
        let service = self.service.clone();
        self.service.tasks.spawn(listen(listener, kind, self.sockets.guard(), service));
    }

    /// Goes on with what a predecessor left.
    ///
    /// # Errors
    /// [`NotResumed`].
    pub fn restore(
        sockets: Sockets,
        links: Links,
        saved: &SavedSource,
        descriptors: &mut Descriptors,
    ) -> Result<Self, NotResumed> {
        let mut lanes = Self::new(sockets, links, Counters::behind(saved.counts));
        lanes.service.channels = saved.channels;
        let service = &lanes.service;
        service.heard.send_replace(Heard::All(None)); // what was offered is of no use behind a restart
        service.finished.send_replace(saved.finished);
        for (kind, number) in &saved.listeners {
            let listener = descriptors.take(*number).ok_or(NotResumed::Socket)?;
            let listener = std::os::unix::net::UnixListener::from(listener);
            listener.set_nonblocking(true)?;
            lanes.spawn_listener(UnixListener::from_std(listener)?, *kind);
        }
        for connection in &saved.connections {
            let halves =
                service.links.resume(&connection.lane).map_err(|_| NotResumed::Unreadable("a lane"))?;
            let Some((number, traffic)) = &connection.socket else { continue };
            let socket = socket_of(descriptors.take(*number).ok_or(NotResumed::Socket)?)?;
            let id = connection.lane.id;
            let traffic =
                Traffic::restore(traffic, id, service).ok_or(NotResumed::Unreadable("a connection"))?;
            let service = service.clone();
            lanes.service.tasks.spawn(async move {
                let relaying = relay_on(Connection::new(halves, socket), traffic, id, &service);
                service
                    .until_stopped(id.kind, async { relaying.await.map_err(|error| error.to_string()) })
                    .await;
            });
        }
        Ok(lanes)
    }

    /// Leaves everything to a successor, as it stands: sockets stay open, nothing is sent any more. `None` if that cannot be
    /// gone on with; then it is over.
    pub async fn leave(self, descriptors: &mut Descriptors) -> Option<SavedSource> {
        let Self { sockets, service, _stop, at_its_end: _nobody_answers } = self;
        if !service.heard.borrow().is_settled() || service.trouble.borrow().is_some() {
            return None;
        }
        service.leave.cancel();
        service.tasks.close();
        timeout(LEAVE_DEADLINE, service.tasks.wait()).await.ok()?;
        let (links, others) = service.links.leave();
        let Left { connections, listeners } = std::mem::take(&mut *service.left());
        let others = others.into_iter().map(|lane| LeftConnection { lane, socket: None });
        let saved = SavedSource {
            links,
            channels: service.channels,
            connections: connections.into_iter().chain(others).map(|one| one.put(descriptors)).collect(),
            listeners: listeners.into_iter().map(|(kind, fd)| (kind, descriptors.put(fd))).collect(),
            counts: service.counters.read(),
            finished: *service.finished.borrow(),
        };
        sockets.leave();
        Some(saved)
    }

    /// Beside the main channel.
    pub fn channels(&self) -> Option<NonZeroU8> {
        self.service.channels
    }

    /// Waits until all that the target offers is known, for a moment.
    pub async fn offer_heard(&self) {
        let _ = timeout(OFFER_PATIENCE, self.service.heard.subscribe().wait_for(Heard::is_settled)).await;
    }

    /// The sockets.
    pub fn sockets(&self) -> &Sockets {
        &self.sockets
    }

    /// What has passed.
    pub fn counters(&self) -> &Counters {
        &self.service.counters
    }

    /// The first lane that was refused or broke, if any: a better reason than libvirt's.
    pub fn trouble(&self) -> Option<String> {
        self.service.trouble.borrow().clone()
    }

    /// Waits until the target's libvirtd has said that the copy is complete; for ever if it does not.
    pub async fn finished(&self) {
        if self.service.finished.subscribe().wait_for(|finished| *finished).await.is_err() {
            std::future::pending().await
        }
    }

    /// Waits until somebody has to know whether the guest went over.
    pub async fn at_its_end(&self) -> AtItsEnd {
        match self.at_its_end.lock().await.recv().await {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }

    /// How the link to the target fares.
    pub fn condition(&self) -> LinkCondition {
        self.service.links.condition()
    }

    /// Waits until [`SourceLanes::condition`] is not `before` any more.
    pub async fn changed(&self, before: LinkCondition) {
        self.service.links.changed(before).await;
    }

    /// Waits until the link to the target is over for good, or the target proves unbelievable; says why, as a sentence.
    pub async fn over(&self) -> String {
        tokio::select! {
            biased;
            reason = self.service.links.over() => reason,
            reason = broken(self.service.heard.subscribe()) => reason,
        }
    }

    /// Ends every lane.
    pub fn close(&self) {
        self.service.links.close();
    }
}

async fn broken(mut heard: watch::Receiver<Heard>) -> String {
    let found = heard.wait_for(|heard| matches!(heard, Heard::Broken(_))).await.ok();
    let reason = found.and_then(|heard| match &*heard {
        Heard::Broken(reason) => Some(reason.clone()),
        Heard::Nothing | Heard::Some(_) | Heard::All(_) => None,
    });
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

async fn listen_to_offer(service: Service) {
    let hearing = async {
        let halves = open(service.links.next(LaneKind::Held), &service).await?;
        offer::hear(halves, &service.counters, &service.heard).await.map_err(|error| describe(&error))
    };
    let outcome = tokio::select! {
        outcome = hearing => outcome,
        () = service.stop.cancelled() => return,
    };
    if let Err(reason) = outcome {
        tracing::info!(reason, "what the target offers cannot be used");
        service.heard.send_replace(Heard::Broken(reason));
    }
}

async fn listen(listener: UnixListener, kind: LaneKind, guard: super::sockets::PeerGuard, service: Service) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = service.leave.cancelled() => {
                if let Ok(listener) = listener.into_std() {
                    service.left().listeners.push((kind, listener.into()));
                }
                return;
            }
            () = service.stop.cancelled() => return,
        };
        let Ok((connection, _)) = accepted else { continue };
        if !guard.admits(&connection) {
            tracing::warn!(?kind, "a stranger connected to a migration's socket");
            continue;
        }
        let Ok(slot) = service.slots.clone().acquire_owned().await else { return };
        // Here: QEMU connects its main channel first, and lanes are numbered as it does.
        let (service, id) = (service.clone(), service.links.next(kind));
        service.tasks.clone().spawn(async move {
            service.until_stopped(kind, carry(connection, id, &service)).await;
            drop(slot);
        });
    }
}

async fn carry(
    connection: UnixStream,
    id: Result<LaneId, LaneError>,
    service: &Service,
) -> Result<(), String> {
    let halves = open(id, service).await?;
    relay_lane(connection, halves, service).await.map_err(|error| error.to_string())
}

async fn open(id: Result<LaneId, LaneError>, service: &Service) -> Result<Halves, String> {
    let opened = async { service.links.open(id?).await };
    opened.await.map_err(|error| describe(&error))
}

async fn relay_lane(socket: UnixStream, halves: Halves, service: &Service) -> io::Result<()> {
    let id = halves.0.id();
    let traffic = Traffic::new(id, service);
    relay_on(Connection::new(halves, socket), traffic, id, service).await
}

/// Relays to the end, or until a successor is to take it over.
async fn relay_on(
    mut connection: Connection,
    mut traffic: Traffic,
    id: LaneId,
    service: &Service,
) -> io::Result<()> {
    tokio::select! {
        outcome = traffic.run(&mut connection, id, service) => outcome,
        () = service.leave.cancelled() => {
            let saved = traffic.save().await?;
            if let Some((lane, socket)) = connection.save()? {
                service.left().connections.push(LeftConnection { lane, socket: Some((socket, saved)) });
            }
            Ok(())
        }
    }
}

impl Service {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one connection; the first that breaks is remembered.
    async fn until_stopped(&self, kind: LaneKind, carry: impl Future<Output = Result<(), String>>) {
        let outcome = tokio::select! {
            outcome = carry => outcome,
            () = self.stop.cancelled() => return,
        };
        if let Err(reason) = outcome {
            tracing::info!(?kind, reason, "a lane broke");
            self.trouble.send_if_modified(|trouble| {
                let first = trouble.is_none();
                trouble.get_or_insert(format!("the {} lane: {reason}", name(kind)));
                first
            });
        }
    }

    /// Post-copy's own channel is waited for page by page: it looks nothing up.
    fn framer(&self, lane: u8) -> Framer {
        let ticket = self.links.ticket();
        if lane > 0 && self.channels.is_none() {
            return codec::framer(ticket, lane);
        }
        codec::framer_beside(ticket, lane, self.heard.borrow().offered(), self.sink.of_lane())
    }
}

pub(super) fn name(kind: LaneKind) -> &'static str {
    match kind {
        LaneKind::Control => "control",
        LaneKind::Memory => "memory",
        LaneKind::Disk => "disk",
        LaneKind::Held => "held pages",
    }
}
