//! What all tasks of a runner share: the way from a running supervisor to a report, and the leases on that way.

use super::{
    fence::Fences,
    settings::Settings,
    table::{Live, Table},
};
use crate::hypervisor::namespace::{
    folder::Folder,
    home::Home,
    lease::BootTime,
    process::Supervisor,
    request::Claim,
    supervise::{failed_to_start, never_ran},
};
use crate::text::describe;
use novacron_common::{
    ids::AttemptKey,
    record::{AttemptEnd, AttemptOutcome, AttemptReport},
    wire::LeasesGranted,
};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::{Notify, mpsc},
    task::{spawn, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) home: Home,
    pub(super) fences: Fences,
    pub(super) masked: Vec<PathBuf>,
    pub(super) table: Mutex<Table>,
    pub(super) lease_wanted: Notify,
    pub(super) reports: mpsc::Sender<AttemptReport>,
    /// The runner was dropped: its folder is no longer ours.
    pub(super) retired: CancellationToken,
}

impl Shared {
    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn folder(&self, attempt: AttemptKey) -> Folder {
        self.home.folder(&attempt.to_string())
    }

    /// Waits for the end of an attempt whose supervisor lives, on a task of its own.
    pub(super) fn watch(self: &Arc<Self>, claim: Claim, supervisor: Supervisor) {
        let supervisor = Arc::new(supervisor);
        if let Some(live) = self.table().live.get_mut(&claim.attempt) {
            live.supervisor = Some(Arc::clone(&supervisor));
        }
        // A kill that came before there was anybody to signal.
        let folder = self.folder(claim.attempt);
        if matches!(folder.kill_request(), Ok(Some(_))) {
            supervisor.nudge(&folder);
        }
        let shared = Arc::clone(self);
        spawn(async move {
            tokio::select! {
                () = supervisor.ended() => shared.report(claim).await,
                // A successor on the same folder may be at it already.
                () = shared.retired.cancelled() => {}
            }
        });
    }

    pub(super) async fn end_unstarted(self: &Arc<Self>, claim: Claim, end: AttemptEnd) {
        if let Err(error) = self.folder(claim.attempt).write_outcome(&end) {
            tracing::error!(attempt = %claim.attempt, %error, "could not write down a failed start");
        }
        self.report(claim).await;
    }

    /// Settles an attempt whose supervisor is gone, and reports it.
    async fn report(self: &Arc<Self>, claim: Claim) {
        let shared = Arc::clone(self);
        let settled = spawn_blocking(move || shared.settle(claim.attempt)).await;
        let end = settled.unwrap_or_else(|_| never_ran(AttemptOutcome::Lost));
        {
            let mut table = self.table();
            table.take(&claim.attempt);
            if table.live.is_empty() {
                self.home.sweep_groups(&[]);
            }
        }
        // Only a runner that is being dropped has no receiver; its successor finds the outcome on disk.
        let _closed =
            self.reports.send(AttemptReport { attempt: claim.attempt, epoch: claim.epoch, end }).await;
    }

    /// The outcome, once it is certain that nothing of the attempt lives: if its supervisor left none, it is lost.
    pub(super) fn settle(&self, attempt: AttemptKey) -> AttemptEnd {
        let folder = self.folder(attempt);
        self.home.sweep_group(&attempt.to_string());
        match folder.outcome() {
            Ok(Some(end)) => return end,
            Ok(None) => {}
            Err(error) => tracing::error!(%attempt, error = describe(&error), "the outcome cannot be read"),
        }
        let lost = never_ran(AttemptOutcome::Lost);
        if let Err(error) = folder.write_outcome(&lost) {
            tracing::error!(%attempt, error = describe(&error), "could not write down that an attempt is lost");
        }
        lost
    }

    /// Moves the deadlines of what was granted, and lets go on what waited for its first grant. A deadline that
    /// cannot be written is not announced: its attempt ends with the lease that it has.
    pub(super) fn renew(&self, granted: &LeasesGranted, asked_at: BootTime) {
        for attempt in &granted.0 {
            let lease_of = |live: &mut Live| live.lease.as_mut()?.renew(asked_at);
            let until = self.table().live.get_mut(attempt).and_then(lease_of);
            if let Some(until) = until
                && let Err(error) = self.folder(*attempt).write_lease(until)
            {
                tracing::error!(%attempt, error = describe(&error), "could not move the deadline of a lease");
                continue;
            }
            self.wake_from_lease(*attempt);
        }
    }

    /// Lets an attempt go on that waits for its first grant.
    pub(super) fn wake_from_lease(&self, attempt: AttemptKey) {
        if let Some(lease) = self.table().live.get(&attempt).and_then(|live| live.lease.as_ref()) {
            lease.announce();
        }
    }

    pub(super) fn sweep(&self) {
        let began = Instant::now();
        let keep: Vec<String> = self.table().live.keys().map(ToString::to_string).collect();
        self.home.sweep_groups(&keep);
        if began.elapsed() > Duration::from_secs(1) {
            tracing::warn!(took = ?began.elapsed(), "sweeping cgroups took long");
        }
    }

    pub(super) async fn end_for_want_of(self: &Arc<Self>, claim: Claim, reason: String) {
        self.end_unstarted(claim, failed_to_start(reason)).await;
    }
}

/// The report that a folder holds, if its attempt has ended.
pub(super) fn report_in(folder: &Folder) -> Option<AttemptReport> {
    let end = folder.outcome().ok()??;
    let claim = folder.request().ok()??.claim?;
    Some(AttemptReport { attempt: claim.attempt, epoch: claim.epoch, end })
}
