//! Supervisors, as processes of their own: each waits for its attempt's end, a kill, or the end of its lease.

use super::{Host, Running};
use novacron_agent::hypervisor::namespace::lease::BootTime;
use novacron_common::{
    ids::AttemptKey,
    record::{AttemptEnd, AttemptOutcome, AttemptReport, Output},
    spec::OnLeaseLost,
    units::{Epoch, UnixMillis},
    wire::AttemptStart,
};
use novacron_runtime::time::{Instant, sleep, sleep_until};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How long an attempt takes, milliseconds.
const WORK_MS: (u64, u64) = (5, 3000);
/// Some take so long that their lease runs out first, should it not be renewed.
const LONG_WORK_MS: (u64, u64) = (12_000, 28_000);
/// Of these, per cent.
const LONG: u64 = 30;
/// How late a supervisor may be that kills its attempt for want of a lease, milliseconds: see
/// `JobsConfig::lease_over`.
const KILLED_AFTER_MS: u64 = 1500;

impl Host {
    /// Starts an attempt under a supervisor.
    pub(super) fn launch(&self, start: &AttemptStart) {
        let attempt = start.attempt;
        self.history.attempt_started(attempt, self.id());
        let killed = Arc::new(Notify::new());
        let mut kept = self.kept();
        if kept.kills.contains(&attempt) {
            killed.notify_one();
        }
        let terms = start.lease.map(|lease| (lease, start.on_lease_lost));
        kept.running.insert(attempt, Running { epoch: start.epoch, killed: Arc::clone(&killed), terms });
        drop(kept);
        let dies = start.on_lease_lost == OnLeaseLost::Kill;
        let supervisor = self.clone().supervise(attempt, start.epoch, killed, dies);
        self.executor.spawn_on(self.metal, Box::pin(supervisor));
    }

    async fn supervise(self, attempt: AttemptKey, epoch: Epoch, killed: Arc<Notify>, dies: bool) {
        let over = self.history.lock().over;
        let (takes, ends_well) = self.executor.draw(|rng| {
            let (from, to) = if rng.percent(LONG) && !over { LONG_WORK_MS } else { WORK_MS };
            (rng.between(from, to), rng.percent(80))
        });
        let done_at = Instant::now() + Duration::from_millis(takes);
        let outcome = tokio::select! {
            biased;
            () = killed.notified() => AttemptOutcome::Killed,
            () = self.lease_lost(attempt), if dies => AttemptOutcome::LeaseLost,
            () = sleep_until(done_at) => AttemptOutcome::Exited(if ends_well { 0 } else { 1 }),
        };
        self.history.attempt_ended(attempt);
        self.settle(AttemptReport { attempt, epoch, end: end(outcome) });
    }

    /// As `LeaseHold`: looks at the deadline when its timer fires, and sets the timer anew or ends the tree.
    async fn lease_lost(&self, attempt: AttemptKey) {
        loop {
            let until = self.kept().until.get(&attempt).copied();
            match until.map(|until| until.since(BootTime::now())) {
                Some(left) if left > Duration::ZERO => sleep(left).await,
                Some(_) | None => break,
            }
        }
        let late = self.executor.draw(|rng| rng.below(KILLED_AFTER_MS));
        sleep(Duration::from_millis(late)).await;
    }

    /// An attempt has ended, or will never begin: its outcome is kept until it is acknowledged.
    pub(super) fn settle(&self, report: AttemptReport) {
        let attempt = report.attempt;
        let mut kept = self.kept();
        kept.running.remove(&attempt);
        kept.kills.remove(&attempt);
        kept.until.remove(&attempt);
        kept.outcomes.insert(attempt, report);
        drop(kept);
        self.ended.notify_one();
    }
}

/// How an attempt ended; its instants are nobody's business here.
pub(super) fn end(outcome: AttemptOutcome) -> AttemptEnd {
    AttemptEnd { outcome, started_at: None, ended_at: UnixMillis(0), output: Output::default(), result: None }
}
