//! The copy itself: the hypervisor is asked to send, watched, and stopped if need be. How it ended is only a hint;
//! the sequence looks for itself.

use super::{Begun, Departure, called_off};
use crate::{
    hypervisor::HvError,
    migrate::{
        climb::{Ladder, Look, Step},
        journal::OutboundMark,
        link::keeper::LinkCondition,
        ports::{Copied, GuestProcess, Mover, Push, Standing},
        progress::Meter,
        road::{ColdRoad, LiveRoad},
    },
    text::describe,
};
use novacron_common::{
    ids::VmId,
    record::{MigrationProgress, MigrationReport, MoveLimits, OutboundState},
    units::Epoch,
};
use novacron_runtime::time::{Interval, interval, sleep, sleep_until, timeout};
use std::{
    convert::Infallible,
    path::Path,
    pin::Pin,
    time::{Duration, Instant},
};

/// How often progress is shown.
const PROGRESS_EVERY: Duration = Duration::from_millis(500);
/// How long the hypervisor may take to end a copy that was called off; then its connections are cut.
const ABORT_DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take after that, before it is looked at anyway.
const CUT_DEADLINE: Duration = Duration::from_secs(20);
/// How long a guest is given to shut down before a cold move.
const STOP_GRACE: Duration = Duration::from_secs(60);
/// How often a copy that was taken over is looked at, and how often it must be seen to be over.
const OVER_EVERY: Duration = Duration::from_millis(200);
const OVER_TIMES: u32 = 3;

/// The hypervisor's call, until it returns.
pub(super) type Epilogue = Pin<Box<dyn Future<Output = Result<(), HvError>> + Send>>;

/// How a copy ended, as far as its call says.
#[derive(Debug, Default)]
pub(in crate::migrate) struct Ending {
    /// A copy may have begun.
    pub begun: bool,
    /// It was reported to have succeeded.
    pub sent: bool,
    /// Why not.
    pub reason: String,
    /// Somebody wanted it so.
    pub cancelled: bool,
    /// The target has said that it is complete, and the process that ran it here has ended or was killed.
    pub left: bool,
    /// The target was let run it, before all of its memory had crossed (post-copy).
    pub split: bool,
    /// The hand-over was committed in advance, so that the machine may go over (post-copy).
    pub given_away: bool,
    pub report: MigrationReport,
}

impl Departure {
    /// The copy, and what of the hypervisor's call is not over yet if it was seen before that the machine has left. `None` if a
    /// successor goes on with it.
    pub(super) async fn copy_live(
        &mut self,
        road: &dyn LiveRoad,
        disk: Option<&'static str>,
        began: Instant,
        begun: Begun,
    ) -> Option<(Ending, Option<Epilogue>)> {
        let (mover, legacy, vm) = (self.mover.clone(), self.legacy.clone(), self.vm());
        let post_copy = self.spec.mobility.allows_post_copy();
        let (mut copy, mut cancel) = (Copy::new(self.limits, post_copy, began), self.cancel.clone());
        tokio::select! {
            biased;
            reason = called_off(&mut cancel) => return Some((Ending::cancelled(reason), None)),
            () = road.offer_heard() => {}
            reason = road.over() => return Some((Ending::failed(reason), None)),
        }
        let push = Push {
            pause_ms: copy.ladder.climb().pause_ms,
            slowdown_pct: self.limits.max_slowdown_pct,
            post_copy: post_copy && self.limits.may_split(),
            channels: road.channels(),
        };
        let route = road.route(disk);
        let mut send: Epilogue = match begun {
            Begun::Now => Box::pin(async move { mover.send(vm, route, push).await }),
            Begun::Before(_) => Box::pin(async move { over(&*mover, vm).await }),
        };
        let process = self.parts.processes.of(vm);
        let process = process.as_deref();
        let ended = ended(process);
        tokio::pin!(ended);
        let complete = road.finished();
        tokio::pin!(complete);
        let mut tick = interval(PROGRESS_EVERY);
        let outcome = loop {
            let (goes_on, cut_at) = (copy.why.is_none(), copy.cut_at);
            let stays = copy.stage.runs_here();
            tokio::select! {
                biased;
                outcome = &mut send => break outcome.map_err(|error| describe(&error)),
                () = &mut complete, if !copy.complete => {
                    copy.complete = true;
                    if goes_on && copy.stage != Stage::Split && self.see_off(process).await {
                        return Some((copy.left(road), Some(send)));
                    }
                }
                () = &mut ended, if copy.is_complete() || copy.stage == Stage::Split => {
                    if copy.is_complete() { return Some((copy.left(road), Some(send))) }
                    // The target's libvirtd waits for the rest of the memory, and this host's for its word, for ever.
                    break Err("its process on the source ended".to_owned());
                }
                reason = called_off(&mut cancel), if goes_on && stays && !copy.complete => {
                    self.abort(&mut copy, Why::Cancelled(reason)).await;
                }
                () = legacy.called(), if goes_on && copy.stage == Stage::Passes => return None,
                Some(said) = self.splits.recv(), if goes_on => self.go_over(said, &mut copy).await,
                asked = road.at_its_end() => self.at_its_end(asked, &mut copy).await,
                reason = road.over(), if goes_on && !copy.complete => {
                    self.abort(&mut copy, Why::Failed(reason)).await;
                }
                () = sleep_until(cut_at.into()), if !goes_on => {
                    if copy.cut(road) { break Err("the hypervisor did not end the copy in time".into()) }
                }
                // The last word must not wait for statistics: that would be blackout.
                () = time_to_look(&mut tick, road, copy.condition) => {
                    let step = tokio::select! {
                        biased;
                        outcome = &mut send => break outcome.map_err(|error| describe(&error)),
                        step = self.progress(&mut copy, road) => step,
                    };
                    // Not broken off: a pause that comes after the end would hold a guest that is back.
                    self.take(step, &mut copy).await;
                }
            }
        };
        let explain =
            |said: String| road.trouble().map_or(said.clone(), |trouble| format!("{trouble} ({said})"));
        Some((copy.ending(outcome.map_err(explain), road), None))
    }

    /// The target has all of the guest, which never runs here again, whatever becomes of libvirtd. That is written down, and
    /// its process killed: libvirtd does it gently, which takes the longer the more memory there is, and the guest waits.
    async fn see_off(&mut self, process: Option<&dyn GuestProcess>) -> bool {
        let Some(process) = process else { return false };
        let (migration, record) = (self.ticket.migration, self.record(OutboundMark::Complete));
        if let Err(error) = self.parts.write(migration, record).await {
            tracing::error!(%migration, reason = describe(&*error), "that it is complete could not be written down");
            return false;
        }
        self.complete = true;
        process.kill().inspect_err(|error| tracing::error!(%migration, %error, "killing its process")).is_ok()
    }

    async fn abort(&self, copy: &mut Copy, why: Why) {
        copy.why = Some(why);
        copy.cut_at = Instant::now() + ABORT_DEADLINE;
        self.ask_to_end(copy.cut_at).await;
    }

    /// Has the hypervisor end the copy; an answer is awaited until `deadline`.
    async fn ask_to_end(&self, deadline: Instant) {
        let patience = deadline.saturating_duration_since(Instant::now());
        let aborted = timeout(patience, self.mover.abort(self.vm())).await;
        if let Ok(Err(error)) = aborted {
            // "Broken pipe" was seen from an abort that worked: what counts is what is observed.
            tracing::info!(migration = %self.ticket.migration, reason = describe(&error), "abort");
        }
    }

    /// Looks how far it is, and says what follows.
    async fn progress(&self, copy: &mut Copy, road: &dyn LiveRoad) -> Step {
        copy.condition = road.condition();
        let copied = self.mover.copied(self.vm()).await.ok().flatten();
        let now = Instant::now();
        let mut progress = copy.meter.read(now, road.counts(), copied);
        (progress.link_lost, progress.cuts) = (copy.condition.lost, copy.condition.cuts);
        progress.climb = copy.ladder.climb();
        copy.progress = progress.clone();
        if !copy.stage.runs_here() {
            // From here on it only goes forward.
            if copy.stage == Stage::Split {
                self.show(OutboundState::Split(progress));
            }
            return Step::GoOn;
        }
        if copy.why.is_none() && copy.meter.is_stalled(now) {
            return Step::GiveUp("no byte has moved for too long".into());
        }
        // Without new figures the last ones serve: a deadline passes all the same.
        let step = match copy.why {
            None => copy.ladder.look(copy.meter.last().at(now - copy.began)),
            Some(_) => {
                // It may have been asked before it had begun the copy, and then there was nothing to end.
                if copied.is_some() {
                    self.ask_to_end(copy.cut_at).await;
                }
                Step::GoOn
            }
        };
        progress.climb = copy.ladder.climb();
        self.show(match copy.stage {
            Stage::Poised => OutboundState::Poised(progress),
            _ => OutboundState::Copying(progress),
        });
        step
    }

    async fn take(&self, step: Step, copy: &mut Copy) {
        let vm = self.vm();
        match step {
            Step::GoOn => {}
            Step::AllowPause(ms) => {
                tracing::info!(migration = %self.ticket.migration, ms, "a longer pause is allowed");
                if let Err(error) = self.mover.allow_pause(vm, ms).await {
                    // The copy goes on with the pause that it has, and the ladder with its rounds.
                    tracing::warn!(migration = %self.ticket.migration, reason = describe(&error), "it was not");
                }
            }
            Step::Hold => {
                tracing::info!(migration = %self.ticket.migration, "the guest is held until the rest is sent");
                if let Err(error) = self.mover.hold(vm).await {
                    let reason = format!("the guest could not be held: {}", describe(&error));
                    self.abort(copy, Why::Failed(reason)).await;
                }
            }
            Step::GoOver => {
                tracing::info!(migration = %self.ticket.migration, "ready to go over: waits for the hand-over");
                copy.stage = Stage::Poised;
                copy.progress.climb = copy.ladder.climb();
                self.show(OutboundState::Poised(copy.progress.clone()));
            }
            Step::GiveUp(_) if copy.complete => {}
            Step::GiveUp(reason) => self.abort(copy, Why::Failed(reason)).await,
        }
    }

    pub(super) async fn copy_cold(&mut self, road: &dyn ColdRoad, disk: Option<&Path>) -> Ending {
        let mut cancel = self.cancel.clone();
        let outcome = {
            let work = async {
                let ran = self.halt().await.map_err(|e| describe(&e))?;
                road.send(disk, ran).await.map_err(|e| describe(&*e))
            };
            let shown = self.show_cold(disk, road);
            tokio::select! {
                biased;
                outcome = work => outcome,
                reason = called_off(&mut cancel) => return Ending::cancelled(reason),
                never = shown => match never {},
            }
        };
        let cuts = road.condition().cuts;
        let report = MigrationReport { counts: road.counts(), cuts, ..MigrationReport::default() };
        let sent = outcome.is_ok();
        Ending { begun: true, sent, reason: outcome.err().unwrap_or_default(), report, ..Ending::default() }
    }

    /// Stops the machine for a cold move, and says whether it ran.
    async fn halt(&self) -> Result<bool, HvError> {
        let ran = self.mover.standing(self.vm()).await? != Standing::Stopped;
        self.mover.stop(self.vm(), STOP_GRACE).await?;
        Ok(ran)
    }

    async fn show_cold(&self, disk: Option<&Path>, road: &dyn ColdRoad) -> Infallible {
        let length = disk.and_then(|d| std::fs::metadata(d).ok()).map_or(0, |m| m.len());
        let mut meter = Meter::default();
        loop {
            let counts = road.counts();
            let processed = counts.disk_bytes;
            let remaining = length.saturating_sub(processed);
            let copied = Copied { processed, remaining, iteration: 1, ..Default::default() };
            let mut progress = meter.read(Instant::now(), counts, Some(copied));
            let condition = road.condition();
            (progress.link_lost, progress.cuts) = (condition.lost, condition.cuts);
            self.show(OutboundState::Copying(progress));
            let _ = timeout(PROGRESS_EVERY, road.changed(condition)).await;
        }
    }
}

impl Ending {
    pub(super) fn cancelled(reason: String) -> Self {
        Self { reason, cancelled: true, ..Self::default() }
    }

    pub(super) fn failed(reason: String) -> Self {
        Self { reason, ..Self::default() }
    }

    /// Nobody knows how it ended, as the agent was not there.
    pub(in crate::migrate) fn unseen(reason: String) -> Self {
        Self { begun: true, reason, ..Self::default() }
    }

    /// Nor whether its process was ended; but the target had said that it is complete.
    pub(in crate::migrate) fn unseen_complete(reason: String) -> Self {
        Self { sent: true, ..Self::unseen(reason) }
    }

    /// Nor of a guest that may have gone over.
    pub(in crate::migrate) fn unseen_given_away(reason: String) -> Self {
        Self { given_away: true, ..Self::unseen(reason) }
    }

    /// Nor of one that went over.
    pub(in crate::migrate) fn unseen_split(reason: String) -> Self {
        Self { split: true, ..Self::unseen_given_away(reason) }
    }
}

/// Waits for the end of the process; for ever if it cannot be seen.
async fn ended(process: Option<&dyn GuestProcess>) {
    match process {
        Some(process) => process.ended().await,
        None => std::future::pending().await,
    }
}

/// Waits until a copy that nobody waits for any more is over: the hypervisor goes on with it when its client has gone. How it
/// ended is for the sequence to see.
async fn over(mover: &dyn Mover, vm: VmId) -> Result<(), HvError> {
    let mut seen_over = 0;
    while seen_over < OVER_TIMES {
        sleep(OVER_EVERY).await;
        seen_over = match mover.copied(vm).await {
            Ok(None) => seen_over + 1,
            Ok(Some(_)) | Err(_) => 0,
        };
    }
    Err(HvError::failed(format!("migrate {vm}"), Unseen))
}

/// The one who was told is gone.
#[derive(Debug, thiserror::Error)]
#[error("how it ended was told to the agent before this one")]
struct Unseen;

/// After an interval, or at once when the link was lost or is back.
async fn time_to_look(tick: &mut Interval, road: &dyn LiveRoad, seen: LinkCondition) {
    tokio::select! {
        biased;
        () = tick.tick() => {}
        () = road.changed(seen) => {}
    }
}

impl Copied {
    fn at(self, at: Duration) -> Look {
        let Self { processed: sent, remaining, iteration, throttle_pct, .. } = self;
        Look { at, sent, remaining, iteration, throttle_pct }
    }
}

enum Why {
    Cancelled(String),
    Failed(String),
}

/// How far a copy is on its way to post-copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Pass after pass.
    Passes,
    /// Pass after pass, and the hand-over is awaited.
    Poised,
    /// The hand-over is committed with this epoch, and the hypervisor was told to send the guest over.
    Going(Epoch),
    /// It went over.
    Split,
}

impl Stage {
    /// Whether the guest certainly runs here.
    fn runs_here(self) -> bool {
        matches!(self, Self::Passes | Self::Poised)
    }
}

/// A live copy that is under way.
pub(super) struct Copy {
    began: Instant,
    meter: Meter,
    ladder: Ladder,
    pub(super) stage: Stage,
    /// The hand-over is committed in advance, and that is written down.
    pub(super) given_away: bool,
    /// The target's libvirtd has said that it is. What is left to do is done on this host, and is not broken off: the process
    /// that ends now has left, and would be taken for one that was shut down.
    complete: bool,
    /// As it was shown last.
    pub(super) progress: MigrationProgress,
    /// Why it was called off, once it was.
    why: Option<Why>,
    /// Then: when its connections are cut.
    cut_at: Instant,
    cut: bool,
    /// How the link fared when it was last shown.
    condition: LinkCondition,
}

impl Copy {
    fn new(limits: MoveLimits, post_copy: bool, began: Instant) -> Self {
        Self {
            began,
            meter: Meter::default(),
            ladder: Ladder::new(limits, post_copy),
            stage: Stage::Passes,
            given_away: false,
            complete: false,
            progress: MigrationProgress::default(),
            why: None,
            cut_at: Instant::now(),
            cut: false,
            condition: LinkCondition::default(),
        }
    }

    /// Cuts the connections of a copy that does not end; says whether that was done before, to no avail.
    fn cut(&mut self, road: &dyn LiveRoad) -> bool {
        if !std::mem::replace(&mut self.cut, true) {
            road.close();
            self.cut_at = Instant::now() + CUT_DEADLINE;
            return false;
        }
        true
    }

    /// The target has said so, and nobody has called it off. Before that its process's end is that of a guest which crashed.
    fn is_complete(&self) -> bool {
        self.complete && self.why.is_none()
    }

    /// Nothing can let the machine run here again: its target has said that it is complete, and its process has ended or was killed.
    fn left(self, road: &dyn LiveRoad) -> Ending {
        Ending { left: true, ..self.ending(Ok(()), road) }
    }

    fn ending(self, outcome: Result<(), String>, road: &dyn LiveRoad) -> Ending {
        let last = self.meter.last();
        let mut report = MigrationReport {
            counts: road.counts(),
            copy_ms: 0,
            qemu_downtime_ms: last.downtime_ms,
            iterations: last.iteration,
            cuts: road.condition().cuts,
            climb: self.ladder.climb(),
            disk: None,
            channels: road.channels(),
        };
        let sent = outcome.is_ok();
        if sent {
            // It was given up, and arrived before that was heeded.
            report.climb.limit = None;
        }
        let (reason, cancelled) = match (self.why, outcome) {
            (Some(Why::Cancelled(reason)), _) => (reason, true),
            (Some(Why::Failed(reason)), _) | (None, Err(reason)) => (reason, false),
            (None, Ok(())) => (String::new(), false),
        };
        let (split, given_away) = (self.stage == Stage::Split, self.given_away);
        Ending { begun: true, sent, reason, cancelled, left: false, split, given_away, report }
    }
}
