//! The target's side of one migration: one task, one sequence.
//!
//! ```text
//!  Prepare ─▶ Receive ─▶ Settle ─▶ Arrived ─▶ Resume ─▶ (Running)
//!     └──────────┼─────────┴──────────┴─▶ Discard ─▶ (Discarded)
//!                └─▶ Split ─▶ Resume, or Lost ─▶ (Lost)
//! ```
//!
//! Settle looks at what the hypervisor holds. An arrived guest is held: nothing but a Resume that carries a higher
//! epoch than the ticket lets it run, and from that moment on nothing discards it. One that comes by post-copy is let run
//! before all of it is here, and only after an Open with such an epoch: see [`split`].

mod split;

use super::{
    checkpoint::{Arriving, Stock},
    journal::{InboundMark, Record},
    lane::{cold, saved::Descriptors, target::LaneEvent},
    legacy::{Inheritance, Legacy, SavedArrival, SavedMigration},
    parts::{MigrationsParts, Post},
    ports::{Ear, Failure, Mover, Standing},
    road::{Berth, Quay, SharedEntrance},
    source::until_done,
};
use crate::{hypervisor::MachineFiles, text::describe};
use novacron_common::{
    ids::VmId,
    record::{DiskDigest, InboundState, SideState, Ticket, VmAction, VmAssignment},
    spec::{StopTerms, VmSpec},
    units::Epoch,
    wire::{Denial, DenialCode},
};
use novacron_runtime::{
    spawn_blocking,
    time::{Instant, sleep, timeout},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// How often an unused ticket's end is looked for.
const EXPIRY_EVERY: Duration = Duration::from_secs(1);
/// How long libvirt may take to show what it has said, or to remove a copy whose source went away.
const SETTLE_DEADLINE: Duration = Duration::from_secs(20);
const SETTLE_POLL: Duration = Duration::from_millis(50);
const RETRY: Duration = Duration::from_secs(1);

/// What a coordinator decides about an arrival.
pub(super) enum Order {
    /// The hand-over is committed: run it.
    Resume { epoch: Epoch, disk: Option<DiskDigest>, reply: oneshot::Sender<Result<(), Denial>> },
    /// The hand-over is committed in advance: it may run as soon as it goes over (post-copy).
    Open { epoch: Epoch, reply: oneshot::Sender<Result<(), Denial>> },
    /// The half that is here is all that is left of it: end it.
    Abandon { reason: String, reply: oneshot::Sender<Result<(), Denial>> },
    /// Remove it.
    Discard { reason: String, reply: oneshot::Sender<Result<(), Denial>> },
}

/// What is served while a copy arrives.
pub(super) struct Stage {
    quay: Quay,
    files: MachineFiles,
    /// What is kept of what it brings, for its gang.
    arriving: Option<Arriving>,
    /// The ticket is spent: its end means nothing any more.
    begun: bool,
    /// The hand-over that was committed in advance (post-copy).
    opened: Option<Epoch>,
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.quay.entrance.shut();
    }
}

/// A machine that has arrived.
pub(super) struct Landed {
    /// Whether it is to run after the hand-over.
    pub run: bool,
    /// Still served: libvirt's last words to the source go through it.
    pub stage: Option<Box<Stage>>,
}

/// Where an arrival is.
pub(super) enum TargetPhase {
    Prepare,
    /// A predecessor of this agent left the copy.
    GoOn(Box<Inheritance>),
    Receive(Box<Stage>),
    /// A copy may be here: look. The text says why, if it is not.
    Settle(Option<Box<Stage>>, String),
    Arrived(Landed),
    Resume(Landed, Epoch),
    /// It runs here under this epoch, and memory follows.
    Split(Option<Box<Stage>>, Epoch),
    /// That half ended, or is given up; why.
    Lost(Epoch, String),
    Discard(String),
    Ended,
}

/// One migration to this host.
pub(super) struct Arrival {
    pub parts: Arc<MigrationsParts>,
    pub legacy: Arc<Legacy>,
    pub mover: Arc<dyn Mover>,
    pub ticket: Ticket,
    pub spec: VmSpec,
    pub post: Post,
    pub orders: mpsc::Receiver<Order>,
    /// Where the registry finds the door for lanes.
    pub door: watch::Sender<Option<SharedEntrance>>,
    /// Of the hypervisor, once the guest may go over (post-copy).
    pub ear: Option<Box<dyn Ear>>,
}

impl Arrival {
    /// Runs to the end.
    pub(super) async fn run(mut self, from: TargetPhase) {
        let mut phase = from;
        loop {
            phase = match phase {
                TargetPhase::Prepare => self.prepare().await,
                TargetPhase::GoOn(left) => self.go_on(*left).await,
                TargetPhase::Receive(stage) => self.receive(stage).await,
                TargetPhase::Settle(stage, reason) => self.settle(stage, reason).await,
                TargetPhase::Arrived(landed) => self.arrived(landed).await,
                TargetPhase::Resume(landed, epoch) => self.resume(landed, epoch).await,
                TargetPhase::Split(stage, epoch) => self.split(stage, epoch).await,
                TargetPhase::Lost(epoch, reason) => self.lost(epoch, reason).await,
                TargetPhase::Discard(reason) => self.discard(reason).await,
                TargetPhase::Ended => return,
            };
        }
    }

    fn vm(&self) -> VmId {
        self.ticket.vm
    }

    fn show(&self, state: InboundState) {
        self.post.show(SideState::Inbound(state));
    }

    /// What is wanted of the machine once it is here: that it runs, or the next word is awaited.
    fn assignment(&self, epoch: Epoch, run: bool) -> VmAssignment {
        let Ticket { vm, generation, .. } = self.ticket;
        let action = if run { VmAction::Run } else { VmAction::Stop(StopTerms::AT_ONCE) };
        VmAssignment { vm, epoch, generation, spec: self.spec.clone(), action }
    }

    async fn note(&self, mark: InboundMark) {
        let record = Record::Inbound { ticket: self.ticket.clone(), spec: self.spec.clone(), mark };
        self.parts.note(self.ticket.migration, record).await;
    }

    async fn prepare(&mut self) -> TargetPhase {
        self.show(InboundState::Preparing);
        let made = {
            let orders = &mut self.orders;
            let (parts, mover) = (self.parts.clone(), self.mover.clone());
            let making = make_stage(&parts, &*mover, &self.ticket, &self.spec);
            tokio::pin!(making);
            loop {
                tokio::select! {
                    biased;
                    made = &mut making => break made.map_err(|error| describe(&*error)),
                    order = orders.recv() => match only_discard(order) {
                        Some(reason) => break Err(reason),
                        None => continue,
                    },
                }
            }
        };
        match made {
            Ok(stage) => {
                self.door.send_replace(Some(stage.quay.entrance.clone()));
                self.show(InboundState::Ready);
                TargetPhase::Receive(Box::new(stage))
            }
            Err(reason) => TargetPhase::Discard(reason),
        }
    }

    /// Goes on with a copy that a predecessor of this agent left.
    async fn go_on(&mut self, left: Inheritance) -> TargetPhase {
        match self.restore_stage(left).await {
            Ok(stage) => {
                tracing::info!(migration = %self.ticket.migration, "the copy goes on where the agent before left it");
                self.door.send_replace(Some(stage.quay.entrance.clone()));
                self.show(InboundState::Receiving);
                if stage.opened.is_some() {
                    self.lend_an_ear(&stage.files).await; // the one before went with its agent
                }
                TargetPhase::Receive(Box::new(stage))
            }
            Err(error) => {
                let reason =
                    format!("the agent was started again and could not go on: {}", describe(&*error));
                TargetPhase::Settle(None, reason)
            }
        }
    }

    async fn restore_stage(&self, left: Inheritance) -> Result<Stage, Failure> {
        let Inheritance { saved: SavedMigration::Inbound(saved), mut descriptors } = left else {
            return Err("a departure was left in place of an arrival".into());
        };
        let files = self.parts.files.prepare(self.vm(), &self.spec).await?;
        let document = self.mover.document(&self.parts.definition(self.vm(), &self.spec, files.clone()))?;
        // All of it was told: the copy begins only then.
        let stock = stock_of(&self.parts, &self.ticket, &files).await.inspect(|stock| stock.was_offered());
        let berth =
            Berth::Live { document, stock, sink: None, post_copy: self.spec.mobility.allows_post_copy() };
        let quay = self.parts.roads.receive_on(&self.ticket, berth, (&saved.door, &mut descriptors))?;
        Ok(Stage { quay, files, arriving: None, begun: true, opened: saved.opened })
    }

    /// Leaves the copy to the agent that is started in place of this one.
    async fn leave(&self, mut stage: Box<Stage>) -> TargetPhase {
        let mut descriptors = Descriptors::default();
        let door = stage.quay.entrance.leave(&mut descriptors).await;
        let saved = door.map(|door| SavedArrival { ticket: self.ticket.clone(), opened: stage.opened, door });
        if saved.is_some() {
            // Dropped, they would be removed.
            std::mem::forget(stage.quay.kept.take());
        }
        self.legacy
            .leave(saved.map(|saved| Inheritance { saved: SavedMigration::Inbound(saved), descriptors }));
        TargetPhase::Ended
    }

    async fn receive(&mut self, mut stage: Box<Stage>) -> TargetPhase {
        let legacy = self.legacy.clone();
        loop {
            tokio::select! {
                biased;
                // First: what was heard is not to be lost.
                Some(event) = stage.quay.events.recv() => match event {
                    LaneEvent::Begun => {
                        stage.begun = true;
                        self.show(InboundState::Receiving);
                    }
                    LaneEvent::Splits(may) => if let Some(epoch) = self.let_split(may, stage.opened).await {
                        return TargetPhase::Split(Some(stage), epoch);
                    },
                    // libvirt ends what it can, and says so on the control lane.
                    LaneEvent::Broke => {}
                    LaneEvent::Finished => return TargetPhase::Settle(Some(stage), "the copy is not complete".into()),
                    LaneEvent::Over { reason } => return TargetPhase::Settle(Some(stage), reason),
                    LaneEvent::Landed(landed) => return self.landed(stage, landed).await,
                },
                () = legacy.called(), if stage.begun && self.ticket.live => return self.leave(stage).await,
                order = self.orders.recv() => match order {
                    Some(Order::Open { epoch, reply }) => {
                        stage.opened = self.open(epoch, reply).or(stage.opened);
                        self.lend_an_ear(&stage.files).await;
                    }
                    other => if let Some(reason) = only_discard(other) {
                        return TargetPhase::Discard(reason);
                    },
                },
                () = sleep(EXPIRY_EVERY), if !stage.begun => if (self.parts.now)() > self.ticket.expires_at {
                    return TargetPhase::Discard("the ticket expired before the copy began".into());
                },
            }
        }
    }

    async fn landed(&self, stage: Box<Stage>, landed: Result<bool, String>) -> TargetPhase {
        let run = match landed {
            Ok(run) => run,
            Err(reason) => return TargetPhase::Discard(reason),
        };
        let definition = self.parts.definition(self.vm(), &self.spec, stage.files.clone());
        match self.mover.define(&definition).await {
            Ok(()) => TargetPhase::Arrived(Landed { run, stage: Some(stage) }),
            Err(error) => TargetPhase::Discard(describe(&error)),
        }
    }

    async fn settle(&mut self, stage: Option<Box<Stage>>, reason: String) -> TargetPhase {
        let deadline = Instant::now() + SETTLE_DEADLINE;
        loop {
            match self.mover.standing(self.vm()).await {
                Ok(standing) if is_complete(standing) => {
                    return TargetPhase::Arrived(Landed { run: true, stage });
                }
                Ok(Standing::Absent) => return TargetPhase::Discard(reason),
                // Not complete, so the source was never told that it is: it has its guest.
                Ok(Standing::Paused { .. }) if Instant::now() > deadline => {
                    return TargetPhase::Discard(reason);
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(vm = %self.vm(), reason = describe(&error), "arrival not seen yet");
                }
            }
            tokio::select! {
                biased;
                order = self.orders.recv() => if let Some(reason) = only_discard(order) {
                    return TargetPhase::Discard(reason);
                },
                () = sleep(SETTLE_POLL) => {}
            }
        }
    }

    async fn arrived(&mut self, mut landed: Landed) -> TargetPhase {
        let mark = InboundMark::Arrived { run: landed.run };
        match self.ticket.live {
            // Every millisecond is blackout, and a guest that is held here shows after a restart, too.
            true => {
                self.show(InboundState::Arrived);
                self.note(mark).await;
            }
            // Of a disk the journal alone says that all of it is here.
            false => {
                self.note(mark).await;
                self.show(InboundState::Arrived);
            }
        }
        loop {
            tokio::select! {
                biased;
                Some(_) = next_event(&mut landed.stage) => {} // the lanes end; nobody has to wait to say so
                order = self.orders.recv() => match order {
                    Some(Order::Resume { epoch, disk, reply }) => {
                        let verdict = self.may_run(epoch);
                        let may = verdict.is_ok();
                        // Comparing takes as long as the disk is large: what follows is for the coordinator to ask.
                        let _ = reply.send(verdict);
                        if may {
                            return match self.is_the_disk(disk).await {
                                Ok(()) => TargetPhase::Resume(landed, epoch),
                                Err(reason) => TargetPhase::Discard(reason),
                            };
                        }
                    }
                    None => return TargetPhase::Ended,
                    other => if let Some(reason) = only_discard(other) {
                        return TargetPhase::Discard(reason);
                    },
                },
            }
        }
    }

    fn may_run(&self, epoch: Epoch) -> Result<(), Denial> {
        if epoch > self.ticket.epoch {
            return Ok(());
        }
        let text = format!("the hand-over's {epoch} does not supersede the ticket's {}", self.ticket.epoch);
        Err(Denial { code: DenialCode::StaleEpoch, text })
    }

    async fn resume(&mut self, landed: Landed, epoch: Epoch) -> TargetPhase {
        // Every millisecond of this is blackout: the guest first, the ledger after. A crash in between is put right
        // by the coordinator, who asks again until it sees the guest run.
        self.run_noted_if_late(epoch, landed.run).await;
        share(landed.stage).await;
        self.ended(InboundState::Running).await;
        // It is of no use any more: when the machine leaves again another is made.
        let (checkpoints, vm) = (self.parts.checkpoints.clone(), self.vm());
        let _ = spawn_blocking(move || checkpoints.remove(vm)).await;
        TargetPhase::Ended
    }

    async fn run_noted_if_late(&self, epoch: Epoch, run: bool) {
        let step = self.try_run(epoch, run);
        tokio::pin!(step);
        if timeout(RETRY, &mut step).await.is_err() {
            self.note(InboundMark::Resuming { epoch, run }).await;
            step.await;
        }
    }

    async fn try_run(&self, epoch: Epoch, run: bool) {
        while let Err(error) = self.run_once(epoch, run).await {
            tracing::warn!(vm = %self.vm(), reason = describe(&*error), "the hand-over is committed, but the guest does not run yet");
            sleep(RETRY).await;
        }
    }

    async fn run_once(&self, epoch: Epoch, run: bool) -> Result<(), Failure> {
        if run {
            match self.mover.standing(self.vm()).await? {
                Standing::Running | Standing::Split { .. } => {}
                Standing::Stopped if !self.ticket.live => self.mover.start(self.vm()).await?,
                // Its process ended while it was held. Starting it would be a reboot that nobody asked for: as with
                // any guest that ends, its owner's restart policy says what follows.
                Standing::Stopped => {
                    tracing::warn!(vm = %self.vm(), "the guest ended on this host before it could run here");
                }
                _ => self.mover.resume(self.vm()).await?,
            }
        }
        Ok(self.parts.residents.arrived(self.assignment(epoch, run)).await?)
    }

    async fn discard(&mut self, reason: String) -> TargetPhase {
        tracing::info!(migration = %self.ticket.migration, reason, "the arrival is discarded");
        self.door.send_replace(None);
        self.note(InboundMark::Discarding { reason: reason.clone() }).await;
        {
            let remove = until_done("discard", || async {
                self.mover.undefine(self.ticket.vm).await?;
                self.parts.files.remove(self.ticket.vm).await
            });
            remove.await;
        }
        self.ended(InboundState::Discarded { reason }).await;
        TargetPhase::Ended
    }

    /// Written down before it is said: after that the coordinator asks no more, and a record that did not say so would
    /// stand in the way of the machine's next move for ever.
    async fn ended(&mut self, state: InboundState) {
        if self.spec.mobility.allows_post_copy() {
            self.ear = None;
            self.mover.forget_ear(self.vm());
        }
        let ended = Record::Ended(SideState::Inbound(state.clone()));
        self.parts.note(self.ticket.migration, ended).await;
        self.show(state);
    }
}

/// Ends the lanes. What they brought is there for the others of its gang before the first of them is let go.
async fn share(stage: Option<Box<Stage>>) {
    if let Some(arriving) = stage.and_then(|mut stage| stage.arriving.take()) {
        arriving.share().await;
    }
}

/// A copy is complete when libvirt keeps it: it becomes persistent in Finish. Running is not what we asked for, but
/// then it is somebody's guest, and not ours to cut.
fn is_complete(standing: Standing) -> bool {
    matches!(standing, Standing::Paused { persistent: true } | Standing::Stopped | Standing::Running)
}

/// A guest that has not arrived, or not gone over, can only be discarded: says why, if so.
fn only_discard(order: Option<Order>) -> Option<String> {
    match order {
        Some(Order::Resume { reply, .. } | Order::Open { reply, .. } | Order::Abandon { reply, .. }) => {
            let text = "the guest is not that far".to_owned();
            let _ = reply.send(Err(Denial { code: DenialCode::Conflict, text }));
            None
        }
        Some(Order::Discard { reason, reply }) => {
            let _ = reply.send(Ok(()));
            Some(reason)
        }
        None => Some("the agent stops".into()),
    }
}

async fn next_event(stage: &mut Option<Box<Stage>>) -> Option<LaneEvent> {
    match stage {
        Some(stage) => stage.quay.events.recv().await,
        None => None,
    }
}

async fn make_stage(
    parts: &MigrationsParts,
    mover: &dyn Mover,
    ticket: &Ticket,
    spec: &VmSpec,
) -> Result<Stage, Failure> {
    // What an earlier try left would be taken for a part of this one.
    parts.files.remove(ticket.vm).await?;
    let files = parts.files.prepare(ticket.vm, spec).await?;
    let checkpoints = &parts.checkpoints;
    let gang = ticket.gang.filter(|_| ticket.live);
    let (arriving, sink) = gang.and_then(|gang| checkpoints.arriving(gang)).unzip();
    let berth = if ticket.live {
        let document = mover.document(&parts.definition(ticket.vm, spec, files.clone()))?;
        let stock = stock_of(parts, ticket, &files).await;
        Berth::Live { document, stock, sink, post_copy: spec.mobility.allows_post_copy() }
    } else {
        Berth::Cold(cold::Landing::new(&files, spec))
    };
    Ok(Stage { quay: parts.roads.receive(ticket, berth)?, files, arriving, begun: false, opened: None })
}

/// What is held of the machine here. Reads files.
async fn stock_of(parts: &MigrationsParts, ticket: &Ticket, files: &MachineFiles) -> Option<Arc<Stock>> {
    let (checkpoints, vm, gang) = (parts.checkpoints.clone(), ticket.vm, ticket.gang);
    let image = files.backing.clone();
    spawn_blocking(move || checkpoints.stock(vm, gang, image.as_ref())).await.ok().flatten()
}
