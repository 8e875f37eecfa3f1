//! The source's end: UNIX sockets that libvirtd and QEMU connect to, and a lane for each connection.

use super::{
    Counters,
    codec::{self, Encoding, SavedEncoding},
    connection::{Connection, Halves, SavedFlows, rest},
    control::{self, Overhearing, SavedOverhearing},
    offer::{self, Heard},
    packing::Packers,
    relay::{self, Flow, Flows},
    saved::{Descriptors, LeftConnection, NotResumed, SavedConnection},
    sockets::{SocketError, Sockets},
};
use crate::{
    handover::socket_of,
    migrate::{
        checkpoint::Sink,
        link::keeper::{Keeper, LinkCondition, SavedKeeper},
    },
    text::describe,
};
use bytes::Bytes;
use novacron_codec::{Framer, Stats};
use novacron_common::{
    record::TransferCounts,
    wire::{LaneId, LaneKind},
};
use serde::{Deserialize, Serialize};
use std::{
    io,
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
    keeper: Arc<Keeper>,
    counters: Arc<Counters>,
    packers: Packers,
    slots: Arc<Semaphore>,
    trouble: watch::Sender<Option<String>>,
    heard: watch::Sender<Heard>,
    /// For the main channel, until it is there.
    sink: Arc<Mutex<Option<Sink>>>,
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
    keeper: SavedKeeper,
    connections: Vec<SavedConnection<SavedTraffic>>,
    listeners: Vec<(LaneKind, u32)>,
    counts: TransferCounts,
    finished: bool,
}

impl SavedSource {
    /// The link.
    pub fn keeper(&self) -> &SavedKeeper {
        &self.keeper
    }
}

const LISTENING: [LaneKind; 3] = [LaneKind::Control, LaneKind::Memory, LaneKind::Disk];

impl SourceLanes {
    /// Listens on all sockets, and to what the target offers. What passes on the main channel is shown to `sink`.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn serve(sockets: Sockets, keeper: Keeper, sink: Option<Sink>) -> Result<Self, SocketError> {
        let lanes = Self::new(sockets, keeper, Counters::default());
        *lanes.service.sink.lock().unwrap_or_else(PoisonError::into_inner) = sink;
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
    pub fn serve_rest(sockets: Sockets, keeper: Keeper) -> Result<Self, SocketError> {
        let lanes = Self::new(sockets, keeper, Counters::default());
        lanes.listen(LaneKind::Memory)?;
        Ok(lanes)
    }

    fn listen(&self, kind: LaneKind) -> Result<(), SocketError> {
        self.spawn_listener(self.sockets.listen(kind)?, kind);
        Ok(())
    }

    fn new(sockets: Sockets, keeper: Keeper, counters: Counters) -> Self {
        let (stop, (at_its_end, ends)) = (CancellationToken::new(), mpsc::channel(1));
        let service = Service {
            keeper: Arc::new(keeper),
            counters: Arc::new(counters),
            packers: Packers::default(),
            slots: Arc::new(Semaphore::new(LANES_MAX)),
            trouble: watch::Sender::new(None),
            heard: watch::Sender::new(Heard::Nothing),
            sink: Arc::default(),
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
        keeper: Keeper,
        saved: &SavedSource,
        descriptors: &mut Descriptors,
    ) -> Result<Self, NotResumed> {
        let lanes = Self::new(sockets, keeper, Counters::behind(saved.counts));
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
                service.keeper.resume(&connection.lane).map_err(|_| NotResumed::Unreadable("a lane"))?;
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
        let (keeper, others) = service.keeper.leave();
        let Left { connections, listeners } = std::mem::take(&mut *service.left());
        let others = others.into_iter().map(|lane| LeftConnection { lane, socket: None });
        let saved = SavedSource {
            keeper,
            connections: connections.into_iter().chain(others).map(|one| one.put(descriptors)).collect(),
            listeners: listeners.into_iter().map(|(kind, fd)| (kind, descriptors.put(fd))).collect(),
            counts: service.counters.read(),
            finished: *service.finished.borrow(),
        };
        sockets.leave();
        Some(saved)
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
        self.service.keeper.condition()
    }

    /// Waits until [`SourceLanes::condition`] is not `before` any more.
    pub async fn changed(&self, before: LinkCondition) {
        self.service.keeper.changed(before).await;
    }

    /// Waits until the link to the target is over for good, or the target proves unbelievable; says why, as a sentence.
    pub async fn over(&self) -> String {
        tokio::select! {
            biased;
            reason = self.service.keeper.over() => reason,
            reason = broken(self.service.heard.subscribe()) => reason,
        }
    }

    /// Ends every lane.
    pub fn close(&self) {
        self.service.keeper.close();
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
        let halves = service.keeper.open(LaneKind::Held).await.map_err(|error| describe(&error))?;
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
        let service = service.clone();
        service.tasks.clone().spawn(async move {
            service.until_stopped(kind, carry(connection, kind, &service)).await;
            drop(slot);
        });
    }
}

async fn carry(connection: UnixStream, kind: LaneKind, service: &Service) -> Result<(), String> {
    let halves = service.keeper.open(kind).await.map_err(|error| describe(&error))?;
    relay_lane(connection, halves, service).await.map_err(|error| error.to_string())
}

async fn relay_lane(socket: UnixStream, halves: Halves, service: &Service) -> io::Result<()> {
    let id = halves.0.id();
    let traffic = match id.kind {
        LaneKind::Control => Traffic::Control(Overhearing::default()),
        LaneKind::Memory => {
            let codec = (service.framer(id.number), service.packers.clone());
            Traffic::Memory(
                Box::new(Encoding::new(codec, id.number, service.counters.clone())),
                Flow::default(),
            )
        }
        LaneKind::Disk | LaneKind::Held => Traffic::Plain(Flows::default()),
    };
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

/// What is under way on one connection.
enum Traffic {
    Control(Overhearing),
    Memory(Box<Encoding>, Flow),
    Plain(Flows),
}

/// A [`Traffic`] as it stands, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SavedTraffic {
    /// libvirt's calls.
    Control(SavedOverhearing),
    /// A memory channel, and what comes back on it.
    Memory(SavedEncoding, Bytes),
    /// A disk.
    Plain(SavedFlows),
}

impl Traffic {
    async fn run(&mut self, connection: &mut Connection, id: LaneId, service: &Service) -> io::Result<()> {
        let (counters, counter) = (&service.counters, service.counters.of(id.kind));
        match self {
            Self::Control(hearing) => {
                hearing.run(connection.ends(), counter, &service.finished, service).await
            }
            Self::Plain(flows) => {
                let (mut out, mut back) = connection.ways();
                relay::both(&mut out, &mut back, flows, counter).await
            }
            Self::Memory(encoding, flow) => {
                let (mut out, mut back) = connection.ways();
                let replies = relay::copy(&mut back, flow, counters.of(id.kind));
                let (stats, ()) = tokio::try_join!(encoding.run(&mut out), replies)?;
                let Stats { plain, wire, .. } = stats;
                tracing::info!(number = id.number, plain, wire, ?stats, "a memory lane is over");
                Ok(())
            }
        }
    }

    async fn save(self) -> io::Result<SavedTraffic> {
        Ok(match self {
            Self::Control(hearing) => SavedTraffic::Control(hearing.save()),
            Self::Plain(flows) => SavedTraffic::Plain(SavedFlows::of(&flows)),
            Self::Memory(encoding, flow) => SavedTraffic::Memory(encoding.save().await?, rest(&flow)),
        })
    }

    /// `None` if it was left by something else.
    fn restore(saved: &SavedTraffic, id: LaneId, service: &Service) -> Option<Self> {
        Some(match saved {
            SavedTraffic::Control(saved) => Self::Control(Overhearing::restore(saved)),
            SavedTraffic::Plain(saved) => Self::Plain(saved.restore()),
            SavedTraffic::Memory(saved, back) => {
                let (ticket, packers) = (service.keeper.ticket(), service.packers.clone());
                let encoding =
                    Encoding::restore(saved, ticket, packers, id.number, service.counters.clone())?;
                Self::Memory(Box::new(encoding), Flow::of(back.to_vec()))
            }
        })
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

    fn framer(&self, lane: u8) -> Framer {
        let ticket = self.keeper.ticket();
        if lane > 0 {
            return codec::framer(ticket, lane);
        }
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner).take();
        codec::main_framer(ticket, self.heard.borrow().offered(), sink)
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
