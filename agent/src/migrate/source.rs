//! The source's side of one migration: one task, one sequence.
//!
//! ```text
//!  Connect ─▶ Copy ─▶ Observe ─┬─▶ Gone ─▶ Release ─▶ (Released)
//!     └─────────────────▲      └─▶ Back ─▶ (Back)
//! ```
//!
//! However Connect and Copy end, Observe looks at what the hypervisor holds and goes on from there. A restarted
//! agent begins at Observe or Gone, as its journal says. The guest runs on here in every case but Gone, and Gone is
//! only ever said of a machine whose processors do not exist here any more.

use super::{
    journal::{OutboundMark, Record},
    lane::{
        Counters, cold,
        source::{Opener, SourceLanes},
    },
    outcome::{Sight, Verdict, judge},
    parts::{MigrationsParts, Post},
    ports::{Failure, Mover, Standing},
    progress::Meter,
};
use crate::{
    hypervisor::{HvError, libvirt::xml::DISK_TARGET},
    text::describe,
};
use novacron_common::{
    ids::VmId,
    record::{MigrationReport, OutboundState, SideState, Ticket},
    spec::VmSpec,
    units::Epoch,
    wire::{Denial, DenialCode, LaneKind},
};
use std::{
    future::Future,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{MissedTickBehavior, interval, sleep, sleep_until, timeout},
};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long the hypervisor may take to end a copy that was called off; then its connections are cut.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take after that, before it is looked at anyway.
const CUT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a guest is given to shut down before a cold move.
const STOP_GRACE: Duration = Duration::from_secs(60);
const OBSERVE_MIN: Duration = Duration::from_millis(20);
const OBSERVE_MAX: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_secs(2);

/// The hand-over is committed: remove what is left.
pub(super) struct Release {
    pub epoch: Epoch,
    pub reply: oneshot::Sender<Result<(), Denial>>,
}

/// How a copy ended, as far as its call says.
#[derive(Debug, Default)]
pub(super) struct Ending {
    /// It was reported to have succeeded.
    pub sent: bool,
    /// Why not.
    pub reason: String,
    /// Somebody wanted it so.
    pub cancelled: bool,
    pub report: MigrationReport,
}

/// Where a departure is.
pub(super) enum SourcePhase {
    Connect,
    Copy(Way),
    Observe(Ending),
    Gone(MigrationReport),
    Release(Epoch),
    Back(Ending),
    Ended,
}

/// How the machine travels.
pub(super) enum Way {
    Live(SourceLanes, Option<&'static str>),
    Cold(Opener, Option<std::path::PathBuf>),
}

/// One migration away from this host.
pub(super) struct Departure {
    pub parts: Arc<MigrationsParts>,
    pub mover: Arc<dyn Mover>,
    pub ticket: Ticket,
    pub spec: VmSpec,
    /// Where the target serves QUIC; not known any more after a restart, and not needed then.
    pub target: Option<SocketAddr>,
    pub post: Post,
    pub releases: mpsc::Receiver<Release>,
    /// Set once, with the reason, when it is called off.
    pub cancel: watch::Receiver<Option<String>>,
}

impl Departure {
    /// Runs to the end.
    pub(super) async fn run(mut self, from: SourcePhase) {
        let mut phase = from;
        loop {
            phase = match phase {
                SourcePhase::Connect => self.connect().await,
                SourcePhase::Copy(way) => self.copy(way).await,
                SourcePhase::Observe(ending) => self.observe(ending).await,
                SourcePhase::Gone(report) => self.gone(report).await,
                SourcePhase::Release(epoch) => self.release(epoch).await,
                SourcePhase::Back(ending) => self.back(ending).await,
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
            made = self.make_way() => made,
            reason = called_off(&mut cancel) => return SourcePhase::Observe(Ending::cancelled(reason)),
        };
        match made {
            Ok(way) => SourcePhase::Copy(way),
            Err(error) => SourcePhase::Observe(Ending::failed(describe(&*error))),
        }
    }

    async fn make_way(&self) -> Result<Way, Failure> {
        let target = self.target.ok_or("the target's address is not known")?;
        let files = self.parts.files.prepare(self.vm(), &self.spec).await?;
        let opener = Opener::dial(self.parts.endpoint.clone(), target, self.ticket.clone()).await?;
        if !self.ticket.live {
            return Ok(Way::Cold(opener, files.disk));
        }
        let sockets = self.parts.sockets.make(self.ticket.migration)?;
        Ok(Way::Live(SourceLanes::serve(sockets, opener)?, files.disk.map(|_| DISK_TARGET)))
    }

    async fn copy(&mut self, way: Way) -> SourcePhase {
        let began = Instant::now();
        let mut ending = match &way {
            Way::Live(lanes, disk) => self.copy_live(lanes, *disk).await,
            Way::Cold(opener, disk) => self.copy_cold(opener, disk.as_deref()).await,
        };
        ending.report.copy_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        match way {
            Way::Live(lanes, _) => lanes.close().await,
            Way::Cold(opener, _) => opener.close().await,
        }
        SourcePhase::Observe(ending)
    }

    async fn copy_live(&mut self, lanes: &SourceLanes, disk: Option<&'static str>) -> Ending {
        let (mover, vm) = (self.mover.clone(), self.vm());
        let (mut copy, mut cancel) = (Copy::new(), self.cancel.clone());
        let send = mover.send(vm, lanes.sockets().route(disk));
        tokio::pin!(send);
        let mut tick = interval(PROGRESS_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let outcome = loop {
            let (goes_on, cut_at) = (copy.why.is_none(), copy.cut_at);
            tokio::select! {
                outcome = &mut send => break outcome.map_err(|error| describe(&error)),
                reason = called_off(&mut cancel), if goes_on => {
                    self.abort(&mut copy, Why::Cancelled(reason)).await;
                }
                reason = lanes.closed(), if goes_on => {
                    self.abort(&mut copy, Why::Failed(format!("the link to the target broke: {reason}"))).await;
                }
                () = sleep_until(cut_at.into()), if !goes_on => {
                    if copy.cut(lanes).await { break Err("the hypervisor did not end the copy in time".into()) }
                }
                _ = tick.tick() => self.progress(&mut copy, lanes.counters()).await,
            }
        };
        let explain = |said: String| lanes.trouble().map_or(said.clone(), |trouble| format!("{trouble} ({said})"));
        copy.ending(outcome.map_err(explain), lanes.counters())
    }

    async fn abort(&self, copy: &mut Copy, why: Why) {
        copy.why = Some(why);
        copy.cut_at = Instant::now() + ABORT_DEADLINE;
        let aborted = timeout(ABORT_DEADLINE, self.mover.abort(self.vm())).await;
        if let Ok(Err(error)) = aborted {
            // "Broken pipe" was seen from an abort that worked: what counts is what is observed.
            tracing::info!(migration = %self.ticket.migration, reason = describe(&error), "abort");
        }
    }

    async fn progress(&self, copy: &mut Copy, counters: &Counters) {
        let copied = self.mover.copied(self.vm()).await.ok().flatten();
        let now = Instant::now();
        let progress = copy.meter.read(now, counters.read(), copied);
        if copy.why.is_none() && copy.meter.is_stalled(now) {
            return self.abort(copy, Why::Failed("no byte has moved for too long".into())).await;
        }
        self.show(OutboundState::Copying(progress));
    }

    async fn copy_cold(&mut self, opener: &Opener, disk: Option<&std::path::Path>) -> Ending {
        let counters = Counters::default();
        let mut cancel = self.cancel.clone();
        let outcome = {
            let work = async {
                let ran = self.halt().await.map_err(|e| describe(&e))?;
                let stream = opener.open(LaneKind::Disk).await.map_err(|e| describe(&e))?;
                let cargo = cold::Cargo { disk, ran, counter: counters.of(LaneKind::Disk) };
                cold::send(stream, cargo).await.map_err(|e| describe(&e))
            };
            let shown = self.show_cold(disk, &counters);
            tokio::select! {
                outcome = work => outcome,
                reason = called_off(&mut cancel) => return Ending::cancelled(reason),
                never = shown => match never {},
            }
        };
        let report = MigrationReport { counts: counters.read(), ..MigrationReport::default() };
        let sent = outcome.is_ok();
        Ending { sent, reason: outcome.err().unwrap_or_default(), cancelled: false, report }
    }

    /// Stops the machine for a cold move, and says whether it ran.
    async fn halt(&self) -> Result<bool, HvError> {
        let ran = self.mover.standing(self.vm()).await? != Standing::Stopped;
        self.mover.stop(self.vm(), STOP_GRACE).await?;
        Ok(ran)
    }

    async fn show_cold(&self, disk: Option<&std::path::Path>, counters: &Counters) -> std::convert::Infallible {
        let length = disk.and_then(|d| std::fs::metadata(d).ok()).map_or(0, |m| m.len());
        let mut meter = Meter::default();
        loop {
            let processed = counters.of(LaneKind::Disk).load(Ordering::Relaxed);
            let remaining = length.saturating_sub(processed);
            let copied = super::ports::Copied { processed, remaining, iteration: 1, ..Default::default() };
            self.show(OutboundState::Copying(meter.read(Instant::now(), counters.read(), Some(copied))));
            sleep(PROGRESS_EVERY).await;
        }
    }

    /// Looks until what is seen decides.
    async fn observe(&mut self, ending: Ending) -> SourcePhase {
        let mut pause = OBSERVE_MIN;
        loop {
            match self.look(&ending).await {
                Ok(Verdict::Gone) => return SourcePhase::Gone(ending.report),
                Ok(Verdict::Back) => return SourcePhase::Back(ending),
                Ok(Verdict::Wait) => {}
                Err(error) => {
                    tracing::warn!(migration = %self.ticket.migration, reason = describe(&*error), "outcome not seen yet");
                }
                Ok(Verdict::Abort | Verdict::Resume) => {} // done by look; look again
            }
            sleep(pause).await;
            pause = (pause * 2).min(OBSERVE_MAX);
        }
    }

    async fn look(&self, ending: &Ending) -> Result<Verdict, Failure> {
        let vm = self.vm();
        let standing = self.mover.standing(vm).await?;
        let copying = self.mover.copied(vm).await?.is_some();
        let verdict = judge(Sight { standing, copying, sent: ending.sent, live: self.ticket.live });
        match verdict {
            Verdict::Abort => self.mover.abort(vm).await?,
            Verdict::Resume => self.mover.resume(vm).await?,
            Verdict::Gone | Verdict::Back | Verdict::Wait => {}
        }
        Ok(verdict)
    }

    async fn gone(&mut self, report: MigrationReport) -> SourcePhase {
        self.show(OutboundState::Gone(report.clone()));
        self.parts.note(self.ticket.migration, self.record(OutboundMark::Gone(report))).await;
        loop {
            // Without a registry there is nobody left who could release it.
            let Some(release) = self.releases.recv().await else { return SourcePhase::Ended };
            if release.epoch <= self.ticket.epoch {
                let text = format!("the hand-over's {} does not supersede {}", release.epoch, self.ticket.epoch);
                let _ = release.reply.send(Err(Denial { code: DenialCode::StaleEpoch, text }));
                continue;
            }
            self.parts.note(self.ticket.migration, self.record(OutboundMark::Releasing(release.epoch))).await;
            let _ = release.reply.send(Ok(()));
            return SourcePhase::Release(release.epoch);
        }
    }

    async fn release(&mut self, epoch: Epoch) -> SourcePhase {
        until_done("release", || self.remove(epoch)).await;
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
        let Ending { reason, cancelled, .. } = ending;
        let reason = if reason.is_empty() { "the machine stayed on its host".to_owned() } else { reason };
        tracing::info!(migration = %self.ticket.migration, reason, cancelled, "the machine is back");
        until_done("give back", || async {
            Ok(self.parts.residents.give_back(self.vm(), self.ticket.migration).await?)
        })
        .await;
        let state = OutboundState::Back { reason, cancelled };
        self.parts.note(self.ticket.migration, ended(state.clone())).await;
        self.show(state);
        SourcePhase::Ended
    }
}

fn ended(state: OutboundState) -> Record {
    Record::Ended(SideState::Outbound(state))
}

/// Tries until it works: what is to be undone or finished is not given up.
pub(super) async fn until_done<F: Future<Output = Result<(), Failure>>>(doing: &'static str, step: impl Fn() -> F) {
    while let Err(error) = step().await {
        tracing::warn!(doing, reason = describe(&*error), "will be tried again");
        sleep(RETRY).await;
    }
}

async fn called_off(cancel: &mut watch::Receiver<Option<String>>) -> String {
    let reason = cancel.wait_for(Option::is_some).await.ok().and_then(|reason| reason.clone());
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

impl Ending {
    fn cancelled(reason: String) -> Self {
        Self { reason, cancelled: true, ..Self::default() }
    }

    pub(super) fn failed(reason: String) -> Self {
        Self { reason, ..Self::default() }
    }
}

enum Why {
    Cancelled(String),
    Failed(String),
}

/// A live copy that is under way.
struct Copy {
    meter: Meter,
    /// Why it was called off, once it was.
    why: Option<Why>,
    /// Then: when its connections are cut.
    cut_at: Instant,
    cut: bool,
}

impl Copy {
    fn new() -> Self {
        Self { meter: Meter::default(), why: None, cut_at: Instant::now(), cut: false }
    }

    /// Cuts the connections of a copy that does not end; says whether that was done before, to no avail.
    async fn cut(&mut self, lanes: &SourceLanes) -> bool {
        if !std::mem::replace(&mut self.cut, true) {
            lanes.close().await;
            self.cut_at = Instant::now() + CUT_DEADLINE;
            return false;
        }
        true
    }

    fn ending(self, outcome: Result<(), String>, counters: &Counters) -> Ending {
        let last = self.meter.last();
        let report = MigrationReport {
            counts: counters.read(),
            copy_ms: 0,
            qemu_downtime_ms: last.downtime_ms,
            iterations: last.iteration,
        };
        let sent = outcome.is_ok();
        let (reason, cancelled) = match (self.why, outcome) {
            (Some(Why::Cancelled(reason)), _) => (reason, true),
            (Some(Why::Failed(reason)), _) | (None, Err(reason)) => (reason, false),
            (None, Ok(())) => (String::new(), false),
        };
        Ending { sent, reason, cancelled, report }
    }
}
