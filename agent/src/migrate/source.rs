//! The source's side of one migration: one task, one sequence.
//!
//! ```text
//!  Connect ─▶ Copy ─▶ Observe ─┬─▶ Gone ───────────▶ Release ─▶ (Released)
//!     └─────────────────▲      ├─▶ Back ─▶ (Back)       ▲
//!                       └───── └─▶ Stranded, Lost ──────┘
//! ```
//!
//! From Gone it is Back, too, if the target lost the machine before it ran there: the coordinator then gives it to this host
//! under a higher epoch, and says so to the owner of its machines.
//!
//! A copy of which the target has said that it is complete, and whose process was seen to end here, is Gone without
//! another look: libvirt takes 0.2 s longer to say so.
//!
//! However Connect and Copy end, Observe looks at what the hypervisor holds and goes on from there. A restarted
//! agent begins at Observe or Gone, as its journal says. The guest runs on here in every case but Gone, and Gone is
//! only ever said of a machine whose processors do not exist here any more.
//!
//! A guest that goes over before all of its memory has (post-copy) does so within Copy ([`split`]). If that breaks, a half
//! of it is here and is kept: Stranded, until it is seen to be complete there or the coordinator lets it go. Or that half
//! ends, too: Lost.

mod copy;
mod reunion;
mod split;
mod witness;

pub(super) use copy::Ending;
use copy::Epilogue;
pub use witness::QemuProcesses;

use super::{
    checkpoint::Draft,
    journal::{OutboundMark, Record},
    lane::saved::Descriptors,
    legacy::{Inheritance, Legacy, SavedDeparture, SavedMigration},
    outcome::{Sight, Verdict, judge},
    parts::{MigrationsParts, Post},
    ports::{Failure, Mover, Residents},
    road::{ColdRoad, Destination, LiveRoad},
};
use crate::{hypervisor::libvirt::xml::DISK_TARGET, text::describe};
use novacron_common::{
    ids::{MigrationId, VmId},
    planted::{self, Mistake},
    record::{MigrationReport, MoveLimits, OutboundState, SideState, Ticket},
    spec::VmSpec,
    units::Epoch,
    wire::{Denial, DenialCode},
};
use novacron_runtime::{
    spawn,
    task::JoinHandle,
    time::{sleep, timeout},
};
use std::{
    future::Future,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::{mpsc, oneshot, watch};

const OBSERVE_MIN: Duration = Duration::from_millis(20);
const OBSERVE_MAX: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(2);
/// How long the hypervisor may tidy up behind a machine that was seen to leave.
const EPILOGUE_DEADLINE: Duration = Duration::from_secs(20);

/// The hand-over is committed: send it over (post-copy), or remove what is left.
pub(super) struct Committed {
    pub epoch: Epoch,
    pub reply: oneshot::Sender<Result<(), Denial>>,
}

/// Where a departure is.
pub(super) enum SourcePhase {
    Connect,
    /// A predecessor of this agent left the copy.
    GoOn(Box<Inheritance>),
    Copy(Way, Begun),
    Observe(Ending),
    Gone(MigrationReport),
    Release(Epoch),
    Back(Ending),
    Returning(OutboundState),
    Stranded(Ending),
    Lost(String),
    Ended,
}

/// How the machine travels.
pub(super) enum Way {
    Live(Box<dyn LiveRoad>, Option<&'static str>),
    Cold(Box<dyn ColdRoad>, Option<PathBuf>),
}

/// What of a copy was done before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begun {
    /// Nothing: the hypervisor is to be asked.
    Now,
    /// It has been under way for so long.
    Before(Duration),
}

/// One migration away from this host.
pub(super) struct Departure {
    pub parts: Arc<MigrationsParts>,
    pub legacy: Arc<Legacy>,
    pub mover: Arc<dyn Mover>,
    pub ticket: Ticket,
    pub spec: VmSpec,
    /// Where the target serves QUIC; not known any more after a restart, and not needed then.
    pub target: Option<SocketAddr>,
    /// What a live copy must keep to.
    pub limits: MoveLimits,
    pub post: Post,
    /// The hand-over is committed in advance: the guest may go over (post-copy).
    pub splits: mpsc::Receiver<Committed>,
    pub releases: mpsc::Receiver<Committed>,
    /// Set once, with the reason, when it is called off.
    pub cancel: watch::Receiver<Option<String>>,
    /// What is being kept of its memory; thrown away unless the machine leaves.
    pub draft: Option<Draft>,
    /// Ends the connections when the hypervisor's call has returned.
    pub epilogue: Option<JoinHandle<()>>,
    /// It is written down that the target has all of the guest.
    pub complete: bool,
}

impl Departure {
    /// Runs to the end.
    pub(super) async fn run(mut self, from: SourcePhase) {
        let mut phase = from;
        loop {
            phase = match phase {
                SourcePhase::Connect => self.connect().await,
                SourcePhase::GoOn(left) => self.go_on(*left).await,
                SourcePhase::Copy(way, begun) => self.copy(way, begun).await,
                SourcePhase::Observe(ending) => self.observe(ending).await,
                SourcePhase::Gone(report) => self.gone(report).await,
                SourcePhase::Release(epoch) => self.release(epoch).await,
                SourcePhase::Back(ending) => self.back(ending).await,
                SourcePhase::Returning(back) => self.returning(back).await,
                SourcePhase::Stranded(ending) => self.stranded(ending).await,
                SourcePhase::Lost(reason) => self.lost(reason).await,
                SourcePhase::Ended => return,
            };
        }
    }

    fn vm(&self) -> VmId {
        self.ticket.vm
    }

    fn show(&self, state: OutboundState) {
        self.post.show(SideState::Outbound(state));
    }

    fn record(&self, mark: OutboundMark) -> Record {
        Record::Outbound { ticket: self.ticket.clone(), spec: self.spec.clone(), mark }
    }

    async fn connect(&mut self) -> SourcePhase {
        self.show(OutboundState::Connecting);
        let mut cancel = self.cancel.clone();
        let made = tokio::select! {
            biased;
            made = self.make_way() => made,
            reason = called_off(&mut cancel) => return SourcePhase::Observe(Ending::cancelled(reason)),
        };
        match made {
            Ok(way) => SourcePhase::Copy(way, Begun::Now),
            Err(error) => SourcePhase::Observe(Ending::failed(describe(&*error))),
        }
    }

    async fn make_way(&mut self) -> Result<Way, Failure> {
        let target = self.target.ok_or("the target's address is not known")?;
        let files = self.parts.files.prepare(self.vm(), &self.spec).await?;
        let bandwidth_mbit = self.limits.bandwidth_mbit;
        let to = Destination { target, bandwidth_mbit, several: !self.spec.mobility.allows_post_copy() };
        let roads = &self.parts.roads;
        if !self.ticket.live {
            return Ok(Way::Cold(roads.lead_cold(&self.ticket, to).await?, files.disk));
        }
        let (draft, sink) = self.parts.checkpoints.begin(self.vm()).unzip();
        self.draft = draft;
        let road = roads.lead_live(&self.ticket, to, sink).await?;
        Ok(Way::Live(road, files.disk.map(|_| DISK_TARGET)))
    }

    /// Goes on with a copy that a predecessor of this agent left.
    async fn go_on(&mut self, left: Inheritance) -> SourcePhase {
        let Inheritance { saved: SavedMigration::Outbound(saved), mut descriptors } = left else {
            return SourcePhase::Observe(Ending::unseen("the source's agent restarted".into()));
        };
        self.limits = saved.limits;
        let files = self.parts.files.prepare(self.vm(), &self.spec).await;
        let road = files.and_then(|files| {
            let left = (&saved.lanes, &mut descriptors);
            let road = self.parts.roads.lead_on(&self.ticket, self.limits.bandwidth_mbit, left)?;
            Ok(Way::Live(road, files.disk.map(|_| DISK_TARGET)))
        });
        match road {
            Ok(way) => {
                tracing::info!(migration = %self.ticket.migration, "the copy goes on where the agent before left it");
                SourcePhase::Copy(way, Begun::Before(Duration::from_millis(saved.elapsed_ms)))
            }
            Err(error) => {
                let reason =
                    format!("the agent was started again and could not go on: {}", describe(&*error));
                SourcePhase::Observe(Ending::unseen(reason))
            }
        }
    }

    /// Leaves the copy to the agent that is started in place of this one.
    async fn leave(&self, way: Way, elapsed: Duration) -> SourcePhase {
        let mut descriptors = Descriptors::default();
        let lanes = match way {
            Way::Live(road, _) => road.leave(&mut descriptors).await,
            Way::Cold(..) => None,
        };
        let (ticket, limits) = (self.ticket.clone(), self.limits);
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        let saved = lanes.map(|lanes| SavedDeparture { ticket, limits, elapsed_ms, lanes });
        self.legacy
            .leave(saved.map(|saved| Inheritance { saved: SavedMigration::Outbound(saved), descriptors }));
        SourcePhase::Ended
    }

    async fn copy(&mut self, way: Way, begun: Begun) -> SourcePhase {
        let began = match begun {
            Begun::Now => Instant::now(),
            Begun::Before(elapsed) => Instant::now().checked_sub(elapsed).unwrap_or_else(Instant::now),
        };
        let copied = match &way {
            Way::Live(road, disk) => self.copy_live(&**road, *disk, began, begun).await,
            Way::Cold(road, disk) => Some((self.copy_cold(&**road, disk.as_deref()).await, None)),
        };
        let Some((mut ending, epilogue)) = copied else { return self.leave(way, began.elapsed()).await };
        ending.begun = true;
        ending.report.copy_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.close(way, epilogue);
        if ending.left { SourcePhase::Gone(ending.report) } else { SourcePhase::Observe(ending) }
    }

    /// Ends the connections, once the hypervisor has no more use for them.
    fn close(&mut self, way: Way, epilogue: Option<Epilogue>) {
        self.epilogue = Some(spawn(async move {
            if let Some(epilogue) = epilogue {
                let _the_machine_has_left = timeout(EPILOGUE_DEADLINE, epilogue).await;
            }
            match way {
                Way::Live(road, _) => road.close(),
                Way::Cold(road, _) => road.close(),
            }
        }));
    }

    /// Waits until the hypervisor has no more use for the connections of the copy.
    async fn tidied_up(&mut self) {
        if let Some(epilogue) = self.epilogue.take() {
            let _ended = epilogue.await;
        }
    }

    /// Looks until what is seen decides.
    async fn observe(&mut self, ending: Ending) -> SourcePhase {
        if planted::is(Mistake::GoneUnseen) && ending.begun {
            return SourcePhase::Gone(ending.report);
        }
        let mut pause = OBSERVE_MIN;
        loop {
            match self.look(&ending).await {
                Ok(Verdict::Gone) => return SourcePhase::Gone(ending.report),
                Ok(Verdict::Back) => return SourcePhase::Back(ending),
                Ok(Verdict::Stranded) => return SourcePhase::Stranded(ending),
                Ok(Verdict::Lost) => return SourcePhase::Lost(ending.reason),
                Ok(Verdict::Wait) => {}
                Err(error) => {
                    tracing::warn!(migration = %self.ticket.migration, reason = describe(&*error), "outcome not seen yet");
                }
                Ok(Verdict::Abort | Verdict::Resume | Verdict::Halt) => {} // done by look; look again
            }
            sleep(pause).await;
            pause = (pause * 2).min(OBSERVE_MAX);
        }
    }

    async fn look(&self, ending: &Ending) -> Result<Verdict, Failure> {
        let vm = self.vm();
        let standing = self.mover.standing(vm).await?;
        let copying = self.mover.copied(vm).await?.is_some();
        let verdict = judge(Sight {
            standing,
            copying,
            begun: ending.begun,
            sent: ending.sent,
            live: self.ticket.live,
            split: ending.split,
        });
        match verdict {
            Verdict::Abort => self.mover.abort(vm).await?,
            Verdict::Resume => self.mover.resume(vm).await?,
            Verdict::Halt => {
                tracing::error!(migration = %self.ticket.migration, "the hypervisor let a guest run that went over: it is ended here");
                self.mover.stop(vm, Duration::ZERO).await?;
            }
            Verdict::Gone | Verdict::Back | Verdict::Stranded | Verdict::Lost | Verdict::Wait => {}
        }
        Ok(verdict)
    }

    async fn gone(&mut self, report: MigrationReport) -> SourcePhase {
        let report = self.with_disk(report).await;
        let (id, record) = (self.ticket.migration, self.record(OutboundMark::Gone(report.clone())));
        // First written down: once it is said the hand-over may be committed, and an agent that is started again must not
        // take a domain that libvirt has not forgotten yet for a machine that stayed. Where that fails, libvirt goes first.
        if !self.complete
            && let Err(error) = self.parts.write(id, record.clone()).await
        {
            tracing::error!(migration = %id, reason = describe(&*error), "that it is gone could not be written down");
            self.tidied_up().await;
        }
        self.show(OutboundState::Gone(report));
        if self.complete {
            self.parts.note(id, record).await;
        }
        let stays = stays(self.parts.residents.clone(), self.vm(), self.ticket.migration);
        tokio::select! {
            biased;
            next = self.released() => next,
            () = stays => {
                let reason = "the target lost the machine before it ran there, and it was given back to this host";
                SourcePhase::Back(Ending::failed(reason.to_owned()))
            }
        }
    }

    /// Waits until what is left here is of no use any more.
    async fn released(&mut self) -> SourcePhase {
        loop {
            // Without a registry there is nobody left who could release it.
            let Some(release) = self.releases.recv().await else { return SourcePhase::Ended };
            let Some(release) = self.current(release) else { continue };
            self.parts.note(self.ticket.migration, self.record(OutboundMark::Releasing(release.epoch))).await;
            let _ = release.reply.send(Ok(()));
            return SourcePhase::Release(release.epoch);
        }
    }

    /// What the coordinator says of a hand-over that supersedes the ticket; of another it is told so.
    fn current(&self, said: Committed) -> Option<Committed> {
        if said.epoch > self.ticket.epoch {
            return Some(said);
        }
        let text = format!("the hand-over's {} does not supersede {}", said.epoch, self.ticket.epoch);
        let _ = said.reply.send(Err(Denial { code: DenialCode::StaleEpoch, text }));
        None
    }

    async fn release(&mut self, epoch: Epoch) -> SourcePhase {
        self.tidied_up().await; // what libvirt still has in its hands is not torn from them
        until_done("release", || self.remove(epoch)).await;
        if let Some(draft) = self.draft.take() {
            draft.seal().await;
        }
        self.parts.note(self.ticket.migration, ended(OutboundState::Released)).await;
        self.show(OutboundState::Released);
        SourcePhase::Ended
    }

    async fn remove(&self, epoch: Epoch) -> Result<(), Failure> {
        self.parts.residents.left(self.vm(), epoch).await?;
        self.mover.undefine(self.vm()).await?;
        self.parts.files.remove(self.vm()).await
    }

    async fn back(&mut self, ending: Ending) -> SourcePhase {
        let Ending { reason, cancelled, given_away, report, .. } = ending;
        self.draft = None;
        let reason = if reason.is_empty() { "the machine stayed on its host".to_owned() } else { reason };
        tracing::info!(migration = %self.ticket.migration, reason, cancelled, "the machine is back");
        self.tidied_up().await; // its sockets go before anybody hears that it stayed
        let state = OutboundState::Back { reason, cancelled, climb: report.climb };
        if given_away {
            return SourcePhase::Returning(state);
        }
        until_done("give back", || async {
            // Only a machine that travels stopped is stopped for it.
            let halted = !self.ticket.live;
            Ok(self.parts.residents.give_back(self.vm(), self.ticket.migration, halted).await?)
        })
        .await;
        self.parts.note(self.ticket.migration, ended(state.clone())).await;
        self.show(state);
        SourcePhase::Ended
    }

    /// By the ledger the machine is the target's, until the coordinator hears that it stayed: nobody starts it here before.
    async fn returning(&mut self, back: OutboundState) -> SourcePhase {
        let migration = self.ticket.migration;
        self.parts.note(migration, self.record(OutboundMark::Returning(back.clone()))).await;
        self.show(back.clone());
        stays(self.parts.residents.clone(), self.vm(), migration).await;
        self.parts.note(migration, ended(back)).await;
        SourcePhase::Ended
    }
}

fn ended(state: OutboundState) -> Record {
    Record::Ended(SideState::Outbound(state))
}

/// Tries until it works: what is to be undone or finished is not given up.
pub(super) async fn until_done<F: Future<Output = Result<(), Failure>>>(
    doing: &'static str,
    step: impl Fn() -> F,
) {
    while let Err(error) = step().await {
        tracing::warn!(doing, reason = describe(&*error), "will be tried again");
        sleep(RETRY).await;
    }
}

/// Waits until the coordinator has decided that a machine which had gone is this host's after all: then nobody will release it.
async fn stays(residents: Arc<dyn Residents>, vm: VmId, migration: MigrationId) {
    if let Err(denial) = residents.settled(vm, migration).await {
        tracing::warn!(%migration, %denial, "whether the machine is this host's again is not known");
        std::future::pending().await
    }
}

async fn called_off(cancel: &mut watch::Receiver<Option<String>>) -> String {
    let reason = cancel.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}
