//! The source's end: UNIX sockets that libvirtd and QEMU connect to, and a lane for each connection.

use super::{
    Counters, codec, control,
    offer::{self, Heard},
    packing::Packers,
    relay::{self, Way},
    sockets::{SocketError, Sockets},
};
use crate::{
    migrate::{
        checkpoint::Sink,
        link::{
            keeper::{Keeper, LinkCondition},
            lane::{LaneReader, LaneWriter},
        },
    },
    text::describe,
};
use novacron_codec::Framer;
use novacron_common::wire::{LaneId, LaneKind};
use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc, oneshot, watch},
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections of one migration at once: control, main channel, multifd channels, disks.
const LANES_MAX: usize = 64;
/// How long the copy waits for all that the target offers. What comes later still counts.
const OFFER_PATIENCE: Duration = Duration::from_secs(15);

/// A copy that is at its end: did the guest go over (post-copy)? See [`control::Warden`].
pub type AtItsEnd = oneshot::Sender<bool>;

/// The sockets of one departure, served until this is dropped.
pub struct SourceLanes {
    sockets: Sockets,
    keeper: Arc<Keeper>,
    counters: Arc<Counters>,
    trouble: watch::Receiver<Option<String>>,
    heard: watch::Receiver<Heard>,
    finished: watch::Receiver<bool>,
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
}

impl control::Warden for Service {
    async fn went_over(&self) -> bool {
        let (tell, told) = oneshot::channel();
        let asked = self.at_its_end.send(tell).await;
        // Whoever does not ask about it any more has not seen it go.
        asked.is_ok() && told.await.unwrap_or(false)
    }
}

impl SourceLanes {
    /// Listens on all sockets, and to what the target offers. What passes on the main channel is shown to `sink`.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn serve(sockets: Sockets, keeper: Keeper, sink: Option<Sink>) -> Result<Self, SocketError> {
        let (trouble, seen) = watch::channel(None);
        let (heard, offering) = watch::channel(Heard::Nothing);
        let (finish, finished) = watch::channel(false);
        let (at_its_end, ends) = mpsc::channel(1);
        let stop = CancellationToken::new();
        let service = Service {
            keeper: Arc::new(keeper),
            counters: Arc::default(),
            packers: Packers::default(),
            slots: Arc::new(Semaphore::new(LANES_MAX)),
            trouble,
            heard,
            sink: Arc::new(Mutex::new(sink)),
            finished: finish,
            at_its_end,
            stop: stop.clone(),
        };
        let lanes = Self {
            keeper: service.keeper.clone(),
            counters: service.counters.clone(),
            trouble: seen,
            heard: offering,
            finished,
            at_its_end: ends.into(),
            _stop: stop.drop_guard(),
            sockets,
        };
        for kind in [LaneKind::Control, LaneKind::Memory, LaneKind::Disk] {
            let listener = lanes.sockets.listen(kind)?;
            tokio::spawn(listen(listener, kind, lanes.sockets.guard(), service.clone()));
        }
        tokio::spawn(listen_to_offer(service));
        Ok(lanes)
    }

    /// Waits until all that the target offers is known, for a moment.
    pub async fn offer_heard(&self) {
        let _ = timeout(OFFER_PATIENCE, self.heard.clone().wait_for(Heard::is_settled)).await;
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

    /// Waits until the target's libvirtd has said that the copy is complete; for ever if it does not.
    pub async fn finished(&self) {
        if self.finished.clone().wait_for(|finished| *finished).await.is_err() {
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
        self.keeper.condition()
    }

    /// Waits until [`SourceLanes::condition`] is not `before` any more.
    pub async fn changed(&self, before: LinkCondition) {
        self.keeper.changed(before).await;
    }

    /// Waits until the link to the target is over for good, or the target proves unbelievable; says why, as a sentence.
    pub async fn over(&self) -> String {
        tokio::select! {
            biased;
            reason = self.keeper.over() => reason,
            reason = broken(self.heard.clone()) => reason,
        }
    }

    /// Ends every lane.
    pub fn close(&self) {
        self.keeper.close();
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
    let outcome = match service.keeper.open(kind).await {
        Ok(halves) => relay_lane(connection, halves, service).await.map_err(|error| error.to_string()),
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
    (reader, writer): (LaneReader, LaneWriter),
    service: &Service,
) -> io::Result<()> {
    let LaneId { kind, number } = reader.id();
    let (counters, counter) = (&service.counters, service.counters.of(kind));
    if kind == LaneKind::Control {
        return control::overhear((reader, writer), connection, counter, &service.finished, service).await;
    }
    let (from, to) = connection.into_split();
    let (mut out, mut back) = (Way { from, to: writer }, Way { from: reader, to });
    if kind != LaneKind::Memory {
        return relay::both(&mut out, &mut back, counter).await;
    }
    let framer = service.framer(number);
    let encoding = codec::encode(&mut out, (framer, service.packers.clone()), number, counters);
    let (stats, ()) = tokio::try_join!(encoding, relay::copy(&mut back, counter))?;
    tracing::info!(number, plain = stats.plain, wire = stats.wire, ?stats, "a memory lane is over");
    Ok(())
}

impl Service {
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
