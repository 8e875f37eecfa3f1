//! The registry: finds a migration's task, or starts one; takes the coordinator's commands and the peers' lanes.

use super::{
    journal::{ENDED_MAX, InboundMark, OutboundMark, Record},
    lane::target::{SharedDoor, refuse},
    parts::{MigrationsParts, Post},
    ports::{Failure, Mover, Standing},
    source::{Departure, Ending, Release, SourcePhase},
    target::{Arrival, Landed, Order, TargetPhase},
};
use crate::text::describe;
use novacron_common::{
    ids::{HostId, MigrationId, VmId},
    record::{InboundState, OutboundState, SideState, Ticket},
    spec::{MachineKind, VmSpec},
    units::Epoch,
    wire::{Denial, DenialCode, LaneOpen},
};
use novacron_transport::Stream;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::{mpsc, oneshot, watch};

/// Migrations under way at once, both directions.
const ACTIVE_MAX: usize = 32;
/// Orders that may wait for one task.
const INBOX: usize = 8;
/// How long a peer may take to say what a lane is for.
const LANE_DEADLINE: Duration = Duration::from_secs(5);

/// All migrations of this host. Cheap to clone.
#[derive(Clone)]
pub struct Migrations {
    parts: Arc<MigrationsParts>,
    sides: Arc<Mutex<BTreeMap<MigrationId, Side>>>,
}

struct Side {
    vm: Option<VmId>,
    ticket: Option<Ticket>,
    state: watch::Receiver<SideState>,
    hands: Hands,
}

/// How a task is reached.
enum Hands {
    Outbound { cancel: watch::Sender<Option<String>>, releases: mpsc::Sender<Release> },
    Inbound { orders: mpsc::Sender<Order>, door: watch::Receiver<Option<SharedDoor>> },
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
        let migrations = Self { parts: Arc::new(parts), sides: Arc::default() };
        for (id, record) in migrations.parts.journal.list()? {
            migrations.take_up(id, record);
        }
        Ok(migrations)
    }

    fn take_up(&self, id: MigrationId, record: Record) {
        let state = record.state();
        match (record, self.parts.mover.clone()) {
            (Record::Outbound { ticket, spec, mark }, Some(mover)) => {
                let phase = match mark {
                    OutboundMark::Begun => SourcePhase::Observe(Ending::failed("the source's agent restarted".into())),
                    OutboundMark::Gone(report) => SourcePhase::Gone(report),
                    OutboundMark::Releasing(epoch) => SourcePhase::Release(epoch),
                };
                self.spawn_outbound(mover, Trip { ticket, spec, target: None, state }, phase);
            }
            (Record::Inbound { ticket, spec, mark }, Some(mover)) => {
                let restarted = || "the target's agent restarted".to_owned();
                let phase = match mark {
                    InboundMark::Begun if ticket.live => TargetPhase::Settle(None, restarted()),
                    InboundMark::Begun => TargetPhase::Discard(restarted()),
                    InboundMark::Arrived { run } => TargetPhase::Arrived(Landed { run, stage: None }),
                    InboundMark::Resuming { epoch, run } => TargetPhase::Resume(Landed { run, stage: None }, epoch),
                    InboundMark::Discarding { reason } => TargetPhase::Discard(reason),
                };
                self.spawn_inbound(mover, Trip { ticket, spec, target: None, state }, phase);
            }
            _ => self.remember(id, state),
        }
    }

    /// Gets ready to receive; the outcome is an observation.
    ///
    /// # Errors
    /// [`Denial`] if this host cannot or must not.
    pub async fn prepare_inbound(&self, ticket: Ticket, spec: VmSpec) -> Result<(), Denial> {
        if self.is_known(&ticket, true)? {
            return Ok(());
        }
        let mover = self.admit(&ticket, &spec, ticket.target)?;
        let vm = ticket.vm;
        if self.parts.residents.holds(vm).await {
            return deny(DenialCode::Conflict, format!("{vm} belongs to this host already"));
        }
        match mover.standing(vm).await {
            Ok(Standing::Absent) => {}
            Ok(_) => return deny(DenialCode::Conflict, format!("the hypervisor of this host knows {vm} already")),
            Err(error) => return Err(failed(&error)),
        }
        let record = Record::Inbound { ticket: ticket.clone(), spec: spec.clone(), mark: InboundMark::Begun };
        let state = record.state();
        self.write(ticket.migration, record).await?;
        if !self.is_known(&ticket, true)? {
            self.spawn_inbound(mover, Trip { ticket, spec, target: None, state }, TargetPhase::Prepare);
        }
        Ok(())
    }

    /// Sends the machine; the outcome is an observation.
    ///
    /// # Errors
    /// [`Denial`] if this host cannot or must not.
    pub async fn start_outbound(&self, ticket: Ticket, spec: VmSpec, target: SocketAddr) -> Result<(), Denial> {
        if self.is_known(&ticket, false)? {
            return Ok(());
        }
        let mover = self.admit(&ticket, &spec, ticket.source)?;
        let (vm, id) = (ticket.vm, ticket.migration);
        self.parts.residents.lend(vm, id, ticket.epoch).await?;
        let begun = async {
            match mover.standing(vm).await {
                Ok(Standing::Running) => {}
                Ok(Standing::Stopped) if !ticket.live => {}
                Ok(_) => return deny(DenialCode::Conflict, format!("{vm} does not run here")),
                Err(error) => return Err(failed(&error)),
            }
            let record = Record::Outbound { ticket: ticket.clone(), spec: spec.clone(), mark: OutboundMark::Begun };
            self.write(id, record).await
        };
        if let Err(denial) = begun.await {
            self.parts.residents.give_back(vm, id).await?;
            return Err(denial);
        }
        if !self.is_known(&ticket, false)? {
            let state = SideState::Outbound(OutboundState::Connecting);
            self.spawn_outbound(mover, Trip { ticket, spec, target: Some(target), state }, SourcePhase::Connect);
        }
        Ok(())
    }

    /// Calls a departure off. One that never began is called off for good.
    ///
    /// # Errors
    /// [`Denial`] if the machine is gone already.
    pub async fn cancel_outbound(&self, id: MigrationId, reason: String) -> Result<(), Denial> {
        let known = {
            let sides = self.lock();
            match sides.get(&id).map(|side| (&side.hands, side.state.borrow().clone())) {
                Some((Hands::Outbound { .. }, SideState::Outbound(OutboundState::Gone(_)))) => {
                    return deny(DenialCode::Conflict, "the machine is gone from this host");
                }
                Some((Hands::Outbound { cancel, .. }, _)) => {
                    cancel.send_if_modified(|before| {
                        let first = before.is_none();
                        before.get_or_insert(reason.clone());
                        first
                    });
                    true
                }
                Some((Hands::None, SideState::Outbound(OutboundState::Released))) => {
                    return deny(DenialCode::Conflict, "the hand-over is done");
                }
                Some(_) => true,
                None => false,
            }
        };
        if !known {
            let state = SideState::Outbound(OutboundState::Back { reason, cancelled: true });
            self.write(id, Record::Ended(state.clone())).await?;
            self.remember(id, state);
        }
        Ok(())
    }

    /// Removes what arrived, or is arriving.
    ///
    /// # Errors
    /// [`Denial`] once it runs here, or if it cannot be removed now.
    pub async fn discard_inbound(&self, id: MigrationId, vm: VmId, reason: String) -> Result<(), Denial> {
        if let Some(orders) = self.orders(id) {
            return order(&orders, |reply| Order::Discard { reason, reply }).await;
        }
        match self.state(id) {
            Some(SideState::Inbound(InboundState::Running)) => {
                return deny(DenialCode::Conflict, format!("{vm} runs here since the hand-over"));
            }
            Some(_) => return Ok(()),
            None => {}
        }
        // The journal was lost, or it never began here: whatever is here without belonging here is removed.
        if !self.parts.residents.holds(vm).await
            && let Some(mover) = &self.parts.mover
        {
            mover.undefine(vm).await.map_err(|error| failed(&error))?;
            self.parts.files.remove(vm).await.map_err(|error| failed(&*error))?;
        }
        let state = SideState::Inbound(InboundState::Discarded { reason });
        self.write(id, Record::Ended(state.clone())).await?;
        self.remember(id, state);
        Ok(())
    }

    /// The hand-over is committed with `epoch`: runs what arrived. From here on it only goes forward.
    ///
    /// # Errors
    /// [`Denial`] if it has not arrived, or the epoch does not supersede the ticket's.
    pub async fn resume_inbound(
        &self,
        id: MigrationId,
        vm: VmId,
        epoch: Epoch,
        spec: VmSpec,
    ) -> Result<(), Denial> {
        if let Some(orders) = self.orders(id) {
            return order(&orders, |reply| Order::Resume { epoch, reply }).await;
        }
        match self.state(id) {
            Some(SideState::Inbound(InboundState::Running)) => Ok(()),
            Some(_) => deny(DenialCode::Conflict, format!("{vm} is not here any more")),
            None => self.adopt(id, vm, epoch, spec).await,
        }
    }

    /// The journal was lost, but the machine is here.
    async fn adopt(&self, id: MigrationId, vm: VmId, epoch: Epoch, spec: VmSpec) -> Result<(), Denial> {
        let Some(mover) = self.parts.mover.clone() else {
            return deny(DenialCode::Unsupported, "this host moves no machines");
        };
        let standing = mover.standing(vm).await.map_err(|error| failed(&error))?;
        match standing {
            Standing::Paused { persistent: true } => mover.resume(vm).await.map_err(|error| failed(&error))?,
            Standing::Running | Standing::Stopped => {}
            _ => return deny(DenialCode::Unknown, format!("{vm} is not here")),
        }
        self.parts.residents.arrived(vm, spec, epoch).await?;
        let state = SideState::Inbound(InboundState::Running);
        self.write(id, Record::Ended(state.clone())).await?;
        self.remember(id, state);
        Ok(())
    }

    /// The hand-over is committed with `epoch`: removes what is left of the machine here.
    ///
    /// # Errors
    /// [`Denial`] if the machine is not gone, or the epoch does not supersede the ticket's.
    pub async fn release_outbound(&self, id: MigrationId, vm: VmId, epoch: Epoch) -> Result<(), Denial> {
        let releases = match self.lock().get(&id).map(|side| &side.hands) {
            Some(Hands::Outbound { releases, .. }) => Some(releases.clone()),
            _ => None,
        };
        let state = self.state(id);
        match (state, releases) {
            (Some(SideState::Outbound(OutboundState::Gone(_))), Some(releases)) => {
                let (reply, answer) = oneshot::channel();
                let sent = releases.send(Release { epoch, reply }).await;
                if sent.is_err() {
                    return Ok(()); // released in the meantime
                }
                answer.await.unwrap_or(Ok(()))
            }
            (Some(SideState::Outbound(OutboundState::Released)), _) => Ok(()),
            (Some(_), _) => deny(DenialCode::Conflict, format!("{vm} is not gone from this host")),
            (None, _) if self.parts.residents.holds(vm).await => {
                deny(DenialCode::Unknown, format!("{vm} is here, and this migration is not known"))
            }
            (None, _) => {
                let state = SideState::Outbound(OutboundState::Released);
                self.write(id, Record::Ended(state.clone())).await?;
                self.remember(id, state);
                Ok(())
            }
        }
    }

    /// What this host sees of a migration; empty if it knows nothing of it.
    pub async fn observe(&self, id: MigrationId) -> Vec<SideState> {
        self.state(id).into_iter().collect()
    }

    /// Serves a `Lane` stream of the agent of `peer` until it ends.
    pub async fn accept_lane(&self, peer: HostId, mut stream: Stream) {
        let open = tokio::time::timeout(LANE_DEADLINE, stream.recv::<LaneOpen>()).await;
        let Ok(Ok(open)) = open else {
            tracing::warn!(%peer, "a lane did not say what it is for");
            return;
        };
        let door = match self.lock().get(&open.ticket.migration).map(|side| &side.hands) {
            Some(Hands::Inbound { door, .. }) => door.borrow().clone(),
            _ => None,
        };
        match door {
            Some(door) => door.let_in(&open, peer, (self.parts.now)(), stream).await,
            None => {
                let text = format!("no lane of {} is expected here", open.ticket.migration);
                refuse(stream, Denial { code: DenialCode::Unknown, text }).await;
            }
        }
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
            return deny(DenialCode::Unsupported, "only KVM machines are moved, and only between hosts with libvirt");
        };
        if role != self.parts.host || ticket.source == ticket.target {
            return deny(DenialCode::Invalid, "the ticket is for other hosts");
        }
        if (self.parts.now)() > ticket.expires_at {
            return deny(DenialCode::Invalid, "the ticket has expired");
        }
        let sides = self.lock();
        let active = || sides.values().filter(|side| !matches!(side.hands, Hands::None) && !is_over(&side.state.borrow()));
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
        let Trip { ticket, spec, target, state } = trip;
        let (cancel, called_off) = watch::channel(None);
        let (releases, inbox) = mpsc::channel(INBOX);
        let post = Post::new(ticket.migration, state, self.parts.changes.clone());
        self.enter(&ticket, &post, Hands::Outbound { cancel, releases });
        let parts = self.parts.clone();
        let departure = Departure { parts, mover, ticket, spec, target, post, releases: inbox, cancel: called_off };
        tokio::spawn(departure.run(phase));
    }

    fn spawn_inbound(&self, mover: Arc<dyn Mover>, trip: Trip, phase: TargetPhase) {
        let Trip { ticket, spec, state, .. } = trip;
        let (orders, inbox) = mpsc::channel(INBOX);
        let (door, found) = watch::channel(None);
        let post = Post::new(ticket.migration, state, self.parts.changes.clone());
        self.enter(&ticket, &post, Hands::Inbound { orders, door: found });
        let parts = self.parts.clone();
        tokio::spawn(Arrival { parts, mover, ticket, spec, post, orders: inbox, door }.run(phase));
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
        let ended: Vec<_> = sides.iter().filter(|(_, s)| is_over(&s.state.borrow())).map(|(id, _)| *id).collect();
        for old in ended.iter().take(ended.len().saturating_sub(ENDED_MAX)) {
            sides.remove(old);
            let (parts, old) = (self.parts.clone(), *old);
            tokio::task::spawn_blocking(move || {
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
    state: SideState,
}

fn is_over(state: &SideState) -> bool {
    matches!(
        state,
        SideState::Outbound(OutboundState::Back { .. } | OutboundState::Released)
            | SideState::Inbound(InboundState::Running | InboundState::Discarded { .. })
    )
}

async fn order(
    orders: &mpsc::Sender<Order>,
    make: impl FnOnce(oneshot::Sender<Result<(), Denial>>) -> Order,
) -> Result<(), Denial> {
    let ended = || Denial { code: DenialCode::Conflict, text: "it has just ended: observe it".into() };
    let (reply, answer) = oneshot::channel();
    orders.send(make(reply)).await.map_err(|_| ended())?;
    answer.await.map_err(|_| ended())?
}
