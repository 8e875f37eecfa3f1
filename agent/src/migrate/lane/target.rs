//! The target's end: checks each lane's ticket, and connects it onwards to libvirtd or QEMU. A lane whose link was cut
//! is kept, with its connection onwards, until the source takes it up again or the grace is over.

mod admission;
mod traffic;

use super::{
    cold,
    connection::{Connection, Halves},
    control, offer,
    saved::{Descriptors, LeftConnection, NotResumed, SavedConnection},
};
use crate::{
    handover::socket_of,
    migrate::{
        checkpoint::{SharedSink, Sink, Stock},
        filter::Expectation,
        link::{
            carrier::{CarryError, carry},
            lane::Lane,
            pace::Pacer,
            window,
        },
        road::Entrance,
    },
    text::describe,
};
use admission::{Entry, Seen};
use async_trait::async_trait;
use novacron_common::{
    ids::HostId,
    record::Ticket,
    units::UnixMillis,
    wire::{Denial, LaneId, LaneKind, LaneOpen, LaneVerdict},
};
use novacron_transport::Stream;
use serde::{Deserialize, Serialize};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::UnixStream,
    sync::{mpsc, oneshot},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
pub use traffic::SavedTraffic;
use traffic::Traffic;

/// The source may notice a cut so much later than the target, and has its whole grace from then on.
const NOTICED_LATER: Duration = Duration::from_secs(3);
/// How long what is being decoded may take when a successor takes over.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);
/// How long QEMU may take until it listens.
const LISTEN_DEADLINE: Duration = Duration::from_secs(5);
const LISTEN_POLL: Duration = Duration::from_millis(10);

/// What a lane tells the migration.
#[derive(Debug)]
pub enum LaneEvent {
    /// The ticket is spent: the copy begins.
    Begun,
    /// libvirt here is about to let the guest run, before all of its memory is here (post-copy): may it? It does not if
    /// nobody answers.
    Splits(oneshot::Sender<bool>),
    /// libvirt here said that it finished well: look.
    Finished,
    /// The way of its memory broke: what is not here yet does not follow by it any more.
    Broke,
    /// The control lane is over, or, of a half that was cut off, the way of its memory.
    Over {
        /// Why, for people.
        reason: String,
    },
    /// A stopped machine's disk is here (and whether the machine ran before), or is not.
    Landed(Result<bool, String>),
}

/// Where lanes lead to.
#[derive(Debug, Clone)]
pub enum Onward {
    /// A running machine: to libvirtd through the filter, and to QEMU.
    Live {
        /// The socket of this host's libvirtd.
        libvirt: PathBuf,
        /// Where QEMU listens for memory.
        memory: PathBuf,
        /// Where QEMU listens for disks.
        disk: PathBuf,
        /// What the filter holds the source to.
        expectation: Box<Expectation>,
    },
    /// A stopped one: its disk goes into this file.
    Cold(cold::Landing),
    /// A half of a running one that was cut off from the other (post-copy): to QEMU, which waits for the rest of its memory.
    Rest {
        /// Where it listens.
        memory: PathBuf,
    },
}

/// Lets the lanes of one migration in.
#[derive(Debug)]
pub struct Door {
    ticket: Ticket,
    onward: Onward,
    /// How long a lane whose link was cut is kept.
    patience: Duration,
    events: mpsc::Sender<LaneEvent>,
    stop: CancellationToken,
    seen: Mutex<Seen>,
    /// What is held here of the machine.
    stock: Option<Arc<Stock>>,
    sink: SharedSink,
    /// A successor takes over.
    leave: CancellationToken,
    left: Mutex<Vec<LeftConnection<SavedTraffic>>>,
    tasks: TaskTracker,
}

/// The lanes of an arrival as they stand, for a successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedDoor {
    prepared: bool,
    connections: Vec<SavedConnection<SavedTraffic>>,
}

impl Door {
    /// A door that honours `ticket`, keeps lanes for the source's `grace` when the link is cut, and tells of what happens
    /// in `events`.
    pub fn new(ticket: Ticket, onward: Onward, grace: Duration, events: mpsc::Sender<LaneEvent>) -> Self {
        let (patience, stop) = (grace + NOTICED_LATER, CancellationToken::new());
        let (seen, left) = (Mutex::default(), Mutex::default());
        let (leave, tasks) = (CancellationToken::new(), TaskTracker::new());
        let (stock, sink) = (None, SharedSink::new(None));
        Self { ticket, onward, patience, events, stop, seen, stock, sink, leave, left, tasks }
    }

    /// Goes on with what a predecessor left: a door that was told so of its machine.
    ///
    /// # Errors
    /// [`NotResumed`].
    pub fn restore(
        self: &Arc<Self>,
        saved: &SavedDoor,
        descriptors: &mut Descriptors,
    ) -> Result<(), NotResumed> {
        self.seen().prepared = saved.prepared;
        for connection in &saved.connections {
            let id = connection.lane.id;
            let window = window::of(id).ok_or(NotResumed::Unreadable("a lane"))?;
            let restored = Lane::restore(&connection.lane, window);
            let (lane, reader, writer) = restored.map_err(|_| NotResumed::Unreadable("a lane"))?;
            self.seen().lanes.insert(id, lane.clone());
            if !connection.lane.complete {
                let (door, turn) = (self.clone(), connection.lane.turn);
                let error = io::Error::other("this agent was started again");
                tokio::spawn(async move { door.await_the_source(&lane, turn, &error).await });
            }
            let Some((number, traffic)) = &connection.socket else { continue };
            let socket = socket_of(descriptors.take(*number).ok_or(NotResumed::Socket)?)?;
            let traffic = Traffic::restore(traffic, id, self)?;
            let connection = Connection::new((reader, writer), socket);
            self.tasks.spawn(self.clone().go_on(connection, traffic, id));
        }
        Ok(())
    }

    /// Leaves everything to a successor, as it stands: sockets stay open, nothing is sent any more. `None` if that cannot be
    /// gone on with; then it is over.
    pub async fn leave(&self, descriptors: &mut Descriptors) -> Option<SavedDoor> {
        self.leave.cancel();
        self.tasks.close();
        tokio::time::timeout(LEAVE_DEADLINE, self.tasks.wait()).await.ok()?;
        let mut left = std::mem::take(&mut *self.left.lock().unwrap_or_else(PoisonError::into_inner));
        let seen = self.seen();
        for lane in seen.lanes.values() {
            if lane.broken().is_some() {
                return None;
            }
            // The others have nothing under way here but what the source has yet to hear.
            left.extend(lane.save().map(|lane| LeftConnection { lane, socket: None }));
        }
        let whole = left.iter().all(|one| one.socket.is_some() || one.lane.is_all_said());
        let connections = left.into_iter().map(|one| one.put(descriptors)).collect();
        whole.then_some(SavedDoor { prepared: seen.prepared, connections })
    }

    /// As it is, with what is held here of the machine, and who keeps what crosses.
    pub fn holding(self, (stock, sink): (Option<Arc<Stock>>, Option<Sink>)) -> Self {
        Self { stock, sink: SharedSink::new(sink), ..self }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers a lane's opening, and carries it until it is over, or taken up on another link.
    pub async fn let_in(
        self: &Arc<Self>,
        open: &LaneOpen,
        peer: HostId,
        now: UnixMillis,
        mut stream: Stream,
    ) {
        if self.leave.is_cancelled() {
            // The source is not answered: it asks the successor.
            return std::future::pending().await;
        }
        let (lane, received) = match self.admit(open, peer, now) {
            Err(denial) => return refuse(stream, denial).await,
            Ok(Entry::Over) => {
                if stream.send(&LaneVerdict::Over).await.is_ok() {
                    stream.finish();
                }
                return;
            }
            Ok(Entry::New(lane, halves)) => {
                self.tasks.spawn(self.clone().serve(open.lane.kind, halves));
                (lane, 0)
            }
            Ok(Entry::Again(lane, received)) => (lane, received),
        };
        tokio::select! {
            () = self.carry(&lane, open.turn, received, stream) => {}
            () = self.stop.cancelled() => lane.break_off("the migration is over here"),
        }
    }

    async fn carry(&self, lane: &Lane, turn: u32, received: u64, mut stream: Stream) {
        let answered = stream.send(&LaneVerdict::Open { received }).await;
        let carried = match answered {
            Ok(()) => carry(lane, turn, stream, &Pacer::default()).await,
            // The source did not hear it, and comes again if it still wants to.
            Err(error) => Err(CarryError::Cut(io::Error::other(error))),
        };
        match carried {
            Ok(()) | Err(CarryError::Overtaken) => {}
            Err(CarryError::Cut(error)) => self.await_the_source(lane, turn, &error).await,
            Err(error) => lane.break_off(describe(&error)),
        }
    }

    async fn await_the_source(&self, lane: &Lane, turn: u32, error: &io::Error) {
        if !lane.is_complete() {
            tracing::info!(migration = %self.ticket.migration, lane = ?lane.id(), reason = describe(error), "a lane's link is lost");
        }
        let mut standing = lane.watch();
        let taken_up = standing.wait_for(|standing| standing.over || standing.turn > turn);
        if tokio::time::timeout(self.patience, taken_up).await.is_err() {
            let patience = self.patience.as_secs_f32();
            lane.break_off(format!(
                "the link to the source was lost and did not come back within {patience} s"
            ));
        }
    }

    async fn serve(self: Arc<Self>, kind: LaneKind, halves: Halves) {
        tokio::select! {
            () = self.lead_on(kind, halves) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// As [`Door::serve`], of a connection that a predecessor left.
    async fn go_on(self: Arc<Self>, connection: Connection, traffic: Traffic, id: LaneId) {
        tokio::select! {
            () = self.relay(connection, traffic, id) => {}
            () = self.stop.cancelled() => {}
        }
    }

    async fn lead_on(&self, kind: LaneKind, halves: Halves) {
        match (&self.onward, kind) {
            (Onward::Live { .. }, LaneKind::Held) => self.offer(halves).await,
            (Onward::Live { libvirt, memory, disk, expectation }, _) => {
                let (path, wait) = match kind {
                    LaneKind::Memory => (memory, LISTEN_DEADLINE),
                    LaneKind::Disk => (disk, LISTEN_DEADLINE),
                    LaneKind::Control | LaneKind::Held => (libvirt, Duration::ZERO),
                };
                if kind == LaneKind::Control {
                    self.tell(LaneEvent::Begun).await;
                }
                let traffic = |id| Traffic::new(self, id, expectation);
                self.connect_to((path, wait), halves, traffic).await;
            }
            (Onward::Rest { memory }, _) => {
                let traffic = |id: LaneId| Traffic::memory(self, id.number, false);
                self.connect_to((memory, LISTEN_DEADLINE), halves, traffic).await;
            }
            (Onward::Cold(landing), _) => {
                self.tell(LaneEvent::Begun).await;
                let landed = cold::receive(halves, landing).await.map_err(|error| describe(&error));
                self.tell(LaneEvent::Landed(landed)).await;
            }
        }
    }

    async fn connect_to(
        &self,
        (path, wait): (&Path, Duration),
        halves: Halves,
        traffic: impl FnOnce(LaneId) -> Traffic,
    ) {
        let id = halves.0.id();
        match connect(path, wait).await {
            Ok(socket) => self.relay(Connection::new(halves, socket), traffic(id), id).await,
            Err(error) => self.ended(id, Err(error.into())).await,
        }
    }

    /// Relays to the end, or until a successor is to take it over.
    async fn relay(&self, mut connection: Connection, mut traffic: Traffic, id: LaneId) {
        let outcome = tokio::select! {
            outcome = traffic.run(&mut connection, self) => outcome,
            () = self.leave.cancelled() => {
                match self.leave_one(connection, traffic) {
                    Ok(()) => return,
                    Err(error) => Err(error.into()),
                }
            }
        };
        self.ended(id, outcome).await;
    }

    fn leave_one(&self, mut connection: Connection, traffic: Traffic) -> io::Result<()> {
        let saved = traffic.save(&mut connection)?;
        if let Some((lane, socket)) = connection.save()? {
            let one = LeftConnection { lane, socket: Some((socket, saved)) };
            self.left.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        }
        Ok(())
    }

    async fn ended(&self, LaneId { kind, number }: LaneId, outcome: Result<(), control::ControlError>) {
        let (migration, source) = (self.ticket.migration, self.ticket.source);
        let broke = outcome.is_err();
        let reason = match outcome {
            Err(control::ControlError::Refused(refused)) => {
                let reason = describe(&refused);
                tracing::warn!(%migration, %source, reason, "control lane refused");
                format!("the control lane was refused: {reason}")
            }
            Err(error) => {
                let reason = describe(&error);
                tracing::info!(%migration, ?kind, number, reason, "a lane broke");
                format!("the source ended the copy: {reason}")
            }
            Ok(()) => "the source ended the copy".to_owned(),
        };
        // The guest needs the main channel of its memory to the end; of the others QEMU itself says so. A half that was cut
        // off needs all of them, and another way when one has broken: a lane of this one cannot be opened anew.
        let is_rest = matches!(self.onward, Onward::Rest { .. });
        let is_main = kind == LaneKind::Memory && number == 0;
        if broke && (is_main || is_rest) {
            self.tell(LaneEvent::Broke).await;
        }
        if kind == LaneKind::Control || is_main && is_rest {
            self.tell(LaneEvent::Over { reason }).await;
        }
    }

    async fn offer(&self, halves: Halves) {
        if let Err(error) = offer::tell(halves, self.stock.clone()).await {
            tracing::info!(migration = %self.ticket.migration, reason = describe(&error), "what is held was not told");
        }
    }

    async fn tell(&self, event: LaneEvent) {
        // A migration that has ended does not listen any more.
        let _ = self.events.send(event).await;
    }
}

#[async_trait]
impl Entrance for Door {
    async fn let_in(self: Arc<Self>, open: &LaneOpen, peer: HostId, now: UnixMillis, stream: Stream) {
        Door::let_in(&self, open, peer, now, stream).await;
    }

    fn shut(&self) {
        // What was left is not to be seen to end: nothing is said on it any more.
        if !self.leave.is_cancelled() {
            self.stop.cancel();
        }
    }

    async fn leave(&self, descriptors: &mut Descriptors) -> Option<SavedDoor> {
        Door::leave(self, descriptors).await
    }
}

impl control::Observer for Door {
    fn prepared(&self) {
        self.seen().prepared = true;
    }

    async fn may_split(&self) -> bool {
        let (tell, told) = oneshot::channel();
        self.tell(LaneEvent::Splits(tell)).await;
        told.await.unwrap_or(false)
    }

    async fn finished(&self) {
        self.tell(LaneEvent::Finished).await;
    }
}

/// Sends a lane away.
pub async fn refuse(mut stream: Stream, denial: Denial) {
    tracing::warn!(%denial, "lane refused");
    if stream.send(&LaneVerdict::Refused(denial)).await.is_ok() {
        stream.finish();
    }
}

/// QEMU listens a moment after libvirt has said that it will.
async fn connect(path: &Path, wait: Duration) -> io::Result<UnixStream> {
    let deadline = Instant::now() + wait;
    loop {
        match UnixStream::connect(path).await {
            Err(_) if Instant::now() < deadline => tokio::time::sleep(LISTEN_POLL).await,
            outcome => return outcome,
        }
    }
}
