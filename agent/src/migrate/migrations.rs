//! The registry: finds a migration's task, or starts one; takes the coordinator's commands and the peers' lanes.

mod commands;
mod turns;

use super::{
    journal::{ENDED_MAX, InboundMark, OutboundMark, Record},
    lane::target::refuse,
    legacy::{Care, Inheritance, Legacy, care},
    parts::{MigrationsParts, Post},
    ports::{Failure, Mover},
    road::SharedEntrance,
    source::{Committed, Departure, Ending, SourcePhase},
    target::{Arrival, Landed, Order, TargetPhase},
};
use crate::{memory, text::describe};
use novacron_common::{
    ids::{HostId, MigrationId, VmId},
    record::{InboundState, MigrationProgress, MoveLimits, OutboundState, SideState, Ticket},
    spec::{MachineKind, VmSpec},
    wire::{Denial, DenialCode, LaneOpen},
};
use novacron_runtime::{spawn, spawn_blocking, time::timeout};
use novacron_transport::Stream;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use turns::Turns;

/// Migrations under way at once, both directions.
const ACTIVE_MAX: usize = 32;
/// Orders that may wait for one task.
const INBOX: usize = 8;
/// How long a planned restart waits for what cannot be left to a successor. With what follows, less than the unit's
/// `TimeoutStopSec`.
const DRAIN_DEADLINE: Duration = Duration::from_secs(30);
/// How long copies may take to be left.
const LEAVE_DEADLINE: Duration = Duration::from_secs(8);
/// How long a lane waits for an arrival that a predecessor of this agent left.
const DOOR_DEADLINE: Duration = Duration::from_secs(3);
/// How long a peer may take to say what a lane is for.
const LANE_DEADLINE: Duration = Duration::from_secs(5);

/// All migrations of this host. Cheap to clone.
#[derive(Clone)]
pub struct Migrations {
    parts: Arc<MigrationsParts>,
    sides: Arc<Mutex<BTreeMap<MigrationId, Side>>>,
    /// Commands about one migration are carried out one after the other: a cancel that comes while it begins finds it begun.
    turns: Arc<Turns<MigrationId>>,
    legacy: Arc<Legacy>,
}

struct Side {
    vm: Option<VmId>,
    ticket: Option<Ticket>,
    state: watch::Receiver<SideState>,
    hands: Hands,
}

impl Side {
    /// Whether a task is at work on it.
    fn is_active(&self) -> bool {
        !matches!(self.hands, Hands::None) && !is_over(&self.state.borrow())
    }

    /// What it needs of a planned restart.
    fn care(&self) -> Care {
        let has_ended = self.state.has_changed().is_err();
        let live = self.ticket.as_ref().is_some_and(|ticket| ticket.live);
        if has_ended || !self.is_active() { Care::None } else { care(&self.state.borrow(), live) }
    }
}

/// How a task is reached.
enum Hands {
    Outbound {
        cancel: watch::Sender<Option<String>>,
        splits: mpsc::Sender<Committed>,
        releases: mpsc::Sender<Committed>,
    },
    Inbound {
        orders: mpsc::Sender<Order>,
        door: watch::Receiver<Option<SharedEntrance>>,
    },
    /// There is no task (any more).
    None,
}

fn deny<T>(code: DenialCode, text: impl Into<String>) -> Result<T, Denial> {
    Err(Denial { code, text: text.into() })
}

fn failed(failure: &(dyn std::error::Error + 'static)) -> Denial {
    Denial { code: DenialCode::Failed, text: describe(failure) }
}

impl Migrations {
    /// Takes up what the journal holds: looks at each migration that was under way, and goes on or back.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub fn restore(parts: MigrationsParts) -> Result<Self, Failure> {
        Self::inherit(parts, Vec::new())
    }

    /// As [`Migrations::restore`]; a copy of which a predecessor has `left` something goes on.
    ///
    /// # Errors
    /// As [`Migrations::restore`].
    pub fn inherit(parts: MigrationsParts, left: Vec<Inheritance>) -> Result<Self, Failure> {
        let migrations = Self {
            parts: Arc::new(parts),
            sides: Arc::default(),
            turns: Arc::default(),
            legacy: Arc::default(),
        };
        let mut left: BTreeMap<_, _> = left.into_iter().map(|one| (one.migration(), one)).collect();
        for (id, record) in migrations.parts.journal.list()? {
            let left = left.remove(&id).filter(|left| left.saved.is_of(&record));
            migrations.take_up(id, record, left);
        }
        Ok(migrations)
    }

    /// Leaves the copies that are under way to the agent that is started in place of this one. Nothing of them is to be
    /// done here any more.
    pub async fn leave(&self) -> Vec<Inheritance> {
        if timeout(DRAIN_DEADLINE, self.none_needs(Care::Wait)).await.is_err() {
            tracing::warn!(
                "not every migration could be waited for: what a successor cannot go on with ends"
            );
        }
        self.legacy.call();
        if timeout(LEAVE_DEADLINE, self.none_needs(Care::Leave)).await.is_err() {
            tracing::warn!("not every copy could be left to a successor in time");
        }
        self.legacy.take()
    }

    async fn none_needs(&self, care: Care) {
        loop {
            let found = self.lock().values().find(|side| side.care() == care).map(|side| side.state.clone());
            let Some(mut state) = found else { return };
            let before = state.borrow().clone();
            let _or_its_task_has_ended = state.wait_for(|state| *state != before).await;
        }
    }

    fn take_up(&self, id: MigrationId, record: Record, left: Option<Inheritance>) {
        let state = record.state();
        match (record, self.parts.mover.clone()) {
            (Record::Outbound { ticket, spec, mark }, Some(mover)) => {
                let (phase, state) = match (mark, left) {
                    (OutboundMark::Begun, Some(left)) => {
                        let copying = OutboundState::Copying(MigrationProgress::default());
                        (SourcePhase::GoOn(Box::new(left)), SideState::Outbound(copying))
                    }
                    (mark, _) => (Self::source_phase(mark), state),
                };
                self.spawn_outbound(mover, Trip::known(ticket, spec, state), phase);
            }
            (Record::Inbound { ticket, spec, mark }, Some(mover)) => {
                let (phase, state) = match (mark, left) {
                    (InboundMark::Begun, Some(left)) => {
                        (TargetPhase::GoOn(Box::new(left)), SideState::Inbound(InboundState::Receiving))
                    }
                    (mark, _) => (Self::target_phase(&ticket, mark), state),
                };
                self.spawn_inbound(mover, Trip::known(ticket, spec, state), phase);
            }
            _ => self.remember(id, state),
        }
    }

    fn source_phase(mark: OutboundMark) -> SourcePhase {
        match mark {
            OutboundMark::Begun => {
                SourcePhase::Observe(Ending::unseen("the source's agent restarted".into()))
            }
            OutboundMark::GivenAway => {
                SourcePhase::Observe(Ending::unseen_given_away("the source's agent restarted".into()))
            }
            OutboundMark::Complete => {
                SourcePhase::Observe(Ending::unseen_complete("the source's agent restarted".into()))
            }
            OutboundMark::Split(_) => {
                SourcePhase::Observe(Ending::unseen_split("the source's agent restarted".into()))
            }
            OutboundMark::Gone(report) => SourcePhase::Gone(report),
            OutboundMark::Releasing(epoch) => SourcePhase::Release(epoch),
            OutboundMark::Returning(back) => SourcePhase::Returning(back),
        }
    }

    fn target_phase(ticket: &Ticket, mark: InboundMark) -> TargetPhase {
        let restarted = || "the target's agent restarted".to_owned();
        match mark {
            InboundMark::Begun if ticket.live => TargetPhase::Settle(None, restarted()),
            InboundMark::Begun => TargetPhase::Discard(restarted()),
            InboundMark::Arrived { run } => TargetPhase::Arrived(Landed { run, stage: None }),
            InboundMark::Resuming { epoch, run } => TargetPhase::Resume(Landed { run, stage: None }, epoch),
            InboundMark::Split { epoch } => TargetPhase::Split(None, epoch),
            InboundMark::Discarding { reason } => TargetPhase::Discard(reason),
        }
    }

    /// What this host sees of a migration; empty if it knows nothing of it.
    pub async fn observe(&self, id: MigrationId) -> Vec<SideState> {
        self.state(id).into_iter().collect()
    }

    /// Whether the machine is on its way away from this host.
    pub fn takes_away(&self, vm: VmId) -> bool {
        let leaves = |side: &Side| {
            side.vm == Some(vm)
                && matches!(&*side.state.borrow(), state @ SideState::Outbound(_) if !is_over(state))
        };
        self.lock().values().any(leaves)
    }

    /// Whether nothing moves to or from this host.
    pub fn is_idle(&self) -> bool {
        let moves = |side: &Side| !matches!(side.hands, Hands::None) && !is_over(&side.state.borrow());
        !self.lock().values().any(moves)
    }

    /// Serves a `Lane` stream of the agent of `peer` until it ends.
    pub async fn accept_lane(&self, peer: HostId, mut stream: Stream) {
        let open = timeout(LANE_DEADLINE, stream.recv::<LaneOpen>()).await;
        let Ok(Ok(open)) = open else {
            tracing::warn!(%peer, "a lane did not say what it is for");
            return;
        };
        let door = match self.lock().get(&open.ticket.migration).map(|side| &side.hands) {
            Some(Hands::Inbound { door, .. }) => Some(door.clone()),
            _ => None,
        };
        match self.opened(door).await {
            Some(door) => door.let_in(&open, peer, (self.parts.now)(), stream).await,
            None => {
                let text = format!("no lane of {} is expected here", open.ticket.migration);
                refuse(stream, Denial { code: DenialCode::Unknown, text }).await;
            }
        }
    }

    /// The door, once it is there: a source that was cut off by this agent's restart may ask before it is.
    async fn opened(&self, door: Option<watch::Receiver<Option<SharedEntrance>>>) -> Option<SharedEntrance> {
        let mut door = door?;
        let found = timeout(DOOR_DEADLINE, door.wait_for(Option::is_some)).await;
        found.ok()?.ok()?.clone()
    }

    /// Whether a migration that has not ended brings the machine here or takes it away.
    pub fn has_in_hand(&self, vm: VmId) -> bool {
        self.lock().values().any(|side| side.is_active() && side.vm == Some(vm))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<MigrationId, Side>> {
        self.sides.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self, id: MigrationId) -> Option<SideState> {
        self.lock().get(&id).map(|side| side.state.borrow().clone())
    }

    fn orders(&self, id: MigrationId) -> Option<mpsc::Sender<Order>> {
        match self.lock().get(&id).map(|side| &side.hands) {
            Some(Hands::Inbound { orders, .. }) if !orders.is_closed() => Some(orders.clone()),
            _ => None,
        }
    }

    /// Whether this very migration is under way here in that direction.
    fn is_known(&self, ticket: &Ticket, inbound: bool) -> Result<bool, Denial> {
        let sides = self.lock();
        let Some(side) = sides.get(&ticket.migration) else { return Ok(false) };
        let same_way = matches!(&*side.state.borrow(), SideState::Inbound(_)) == inbound;
        if same_way && side.ticket.as_ref() == Some(ticket) {
            return Ok(true);
        }
        deny(DenialCode::Conflict, format!("{} has ended here, or is another", ticket.migration))
    }

    fn admit(&self, ticket: &Ticket, spec: &VmSpec, role: HostId) -> Result<Arc<dyn Mover>, Denial> {
        let Some(mover) = self.parts.mover.clone().filter(|_| spec.kind == MachineKind::Kvm) else {
            return deny(
                DenialCode::Unsupported,
                "only KVM machines are moved, and only between hosts with libvirt",
            );
        };
        if role != self.parts.host || ticket.source == ticket.target {
            return deny(DenialCode::Invalid, "the ticket is for other hosts");
        }
        if (self.parts.now)() > ticket.expires_at {
            return deny(DenialCode::Invalid, "the ticket has expired");
        }
        let sides = self.lock();
        let active = || sides.values().filter(|side| side.is_active());
        if active().any(|side| side.vm == Some(ticket.vm)) {
            return deny(DenialCode::Conflict, format!("another migration has {} in hand", ticket.vm));
        }
        if active().count() >= ACTIVE_MAX {
            return deny(DenialCode::NoRoom, format!("{ACTIVE_MAX} migrations are under way on this host"));
        }
        Ok(mover)
    }

    async fn write(&self, id: MigrationId, record: Record) -> Result<(), Denial> {
        self.parts.write(id, record).await.map_err(|error| failed(&*error))
    }

    fn spawn_outbound(&self, mover: Arc<dyn Mover>, trip: Trip, phase: SourcePhase) {
        let Trip { ticket, spec, target, limits, state } = trip;
        let (cancel, called_off) = watch::channel(None);
        let (splits, may_split) = mpsc::channel(INBOX);
        let (releases, inbox) = mpsc::channel(INBOX);
        let post = Post::new(ticket.migration, state, self.parts.changes.clone());
        self.enter(&ticket, &post, Hands::Outbound { cancel, splits, releases });
        let (parts, legacy) = (self.parts.clone(), self.legacy.clone());
        let departure = Departure {
            parts,
            legacy,
            mover,
            ticket,
            spec,
            target,
            limits,
            post,
            splits: may_split,
            releases: inbox,
            cancel: called_off,
            draft: None,
            epilogue: None,
            complete: false,
        };
        spawn(and_give_back(departure.run(phase)));
    }

    fn spawn_inbound(&self, mover: Arc<dyn Mover>, trip: Trip, phase: TargetPhase) {
        let Trip { ticket, spec, state, .. } = trip;
        let (orders, inbox) = mpsc::channel(INBOX);
        let (door, found) = watch::channel(None);
        let post = Post::new(ticket.migration, state, self.parts.changes.clone());
        self.enter(&ticket, &post, Hands::Inbound { orders, door: found });
        let (parts, legacy) = (self.parts.clone(), self.legacy.clone());
        let arrival = Arrival { parts, legacy, mover, ticket, spec, post, orders: inbox, door, ear: None };
        spawn(and_give_back(arrival.run(phase)));
    }

    fn enter(&self, ticket: &Ticket, post: &Post, hands: Hands) {
        let side = Side { vm: Some(ticket.vm), ticket: Some(ticket.clone()), state: post.seen(), hands };
        self.insert(ticket.migration, side);
    }

    fn remember(&self, id: MigrationId, state: SideState) {
        let side = Side { vm: None, ticket: None, state: watch::channel(state).1, hands: Hands::None };
        self.insert(id, side);
    }

    /// Enters a side, and forgets the oldest that have ended (ids are ordered by time).
    fn insert(&self, id: MigrationId, side: Side) {
        let mut sides = self.lock();
        sides.insert(id, side);
        let ended: Vec<_> =
            sides.iter().filter(|(_, s)| is_over(&s.state.borrow())).map(|(id, _)| *id).collect();
        for old in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
            sides.remove(old);
            let (parts, old) = (self.parts.clone(), *old);
            spawn_blocking(move || {
                if let Err(error) = parts.journal.remove(old) {
                    tracing::warn!(migration = %old, reason = describe(&*error), "could not forget");
                }
            });
        }
    }
}

/// What a task is started with.
struct Trip {
    ticket: Ticket,
    spec: VmSpec,
    target: Option<SocketAddr>,
    /// What a live copy must keep to; not known any more after a restart, and not needed then.
    limits: MoveLimits,
    state: SideState,
}

impl Trip {
    /// One of which there is nothing to be sent any more, or nothing yet.
    fn known(ticket: Ticket, spec: VmSpec, state: SideState) -> Self {
        Self { ticket, spec, target: None, limits: MoveLimits::default(), state }
    }
}

fn is_over(state: &SideState) -> bool {
    matches!(
        state,
        SideState::Outbound(OutboundState::Back { .. } | OutboundState::Released)
            | SideState::Inbound(
                InboundState::Running | InboundState::Discarded { .. } | InboundState::Lost { .. }
            )
    )
}

/// A migration, and then the memory that it took.
async fn and_give_back(migration: impl Future<Output = ()>) {
    migration.await;
    let _ = spawn_blocking(memory::give_back).await;
}
