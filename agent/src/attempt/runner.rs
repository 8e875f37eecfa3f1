//! The agent's side of all attempts on this host.

use super::{
    error::{AttemptError, OpenError},
    fence::Fences,
    lease::{self, Next},
    record,
    settings::Settings,
    shared::{Shared, report_in},
    table::Table,
};
use crate::{
    hypervisor::namespace::{
        folder::{Folder, FolderError},
        home::Home,
        lease::BootTime,
    },
    text::describe,
};
use novacron_common::{
    ids::{AttemptKey, VmId},
    record::AttemptReport,
    spec::StopTerms,
    units::Epoch,
    wire::{AttemptStart, LeasesGranted},
};
use std::{
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{Notify, mpsc},
    task::{spawn, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

/// Reports on their way. When it is full, watchers wait: nothing is lost, as every report is on disk.
const REPORTS_MAX: usize = 256;

/// Most reports that [`AttemptRunner::unacknowledged`] gives at once.
const UNACKNOWLEDGED_MAX: usize = 256;

/// The answer to a start or kill that was not refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admitted {
    /// It is on disk and under way; the end will be a report.
    Accepted,
    /// It was so before.
    AlreadySo,
}

/// Runs attempts. Dropping it, or killing the process that holds it, ends none of them.
pub struct AttemptRunner {
    shared: Arc<Shared>,
    reports: Mutex<Option<mpsc::Receiver<AttemptReport>>>,
}

impl AttemptRunner {
    /// Opens the attempts below `data_dir`: adopts those that run, settles those whose supervisor is gone, and
    /// sweeps what ended attempts left behind.
    ///
    /// # Errors
    /// [`OpenError`] if the folder cannot be used.
    pub async fn open(data_dir: &Path, settings: Settings) -> Result<Self, OpenError> {
        let home = Home::open(data_dir.join("attempts"))?;
        let path = data_dir.join("attempts/fences");
        let fault = |cause| OpenError::Fences { path: path.clone(), cause };
        let fences = Fences::open(&path).map_err(fault)?;
        record::set_aside(&data_dir.join("attempts")).map_err(OpenError::Record)?;
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        let masked = [Some(data_dir.to_owned()), data_dir.canonicalize().ok()];
        let shared = Arc::new(Shared {
            home,
            fences,
            masked: masked.into_iter().flatten().collect(),
            table: Mutex::new(Table::new(settings.live_max)),
            lease_wanted: Notify::new(),
            reports: sender,
            retired: CancellationToken::new(),
            settings,
        });
        shared.take_over_all().await.map_err(fault)?;
        shared.sweep();
        Ok(Self { shared, reports: Mutex::new(Some(receiver)) })
    }

    /// Reports of attempts as they end, from now on; those that ended earlier are in [`Self::unacknowledged`].
    /// The first caller gets the channel.
    pub fn reports(&self) -> Option<mpsc::Receiver<AttemptReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts an attempt, once. It is on disk when this returns. One that dies with its lease runs as soon as that is
    /// granted for the first time.
    ///
    /// # Errors
    /// [`AttemptError`]: it was not started, and will not be.
    pub async fn start(&self, start: AttemptStart) -> Result<Admitted, AttemptError> {
        let attempt = start.attempt;
        let admitted = self.shared.table().admit(&start, &self.shared.fences)?;
        let Some(slot) = admitted else { return Ok(Admitted::AlreadySo) };
        // On its own task: a caller who gives up half-way must not leave an attempt that nobody watches.
        let shared = Arc::clone(&self.shared);
        let started = spawn(async move { shared.start(start, slot).await }).await;
        started.unwrap_or_else(|cause| Err(AttemptError::BrokenOff { attempt, cause }))
    }

    /// Ends an attempt and every process of it. Its report will say so, unless it ended by itself before.
    ///
    /// # Errors
    /// [`AttemptError`] if it is not known here, or was started under a higher epoch.
    pub async fn kill(&self, attempt: AttemptKey, epoch: Epoch) -> Result<Admitted, AttemptError> {
        let (started, supervisor) = match self.shared.table().live.get(&attempt) {
            Some(live) => (live.epoch, live.supervisor.clone()),
            None if self.shared.folder(attempt).path().exists() => return Ok(Admitted::AlreadySo),
            None => return Err(AttemptError::Unknown { attempt }),
        };
        if epoch < started {
            return Err(AttemptError::Stale { attempt, asked: epoch, seen: started });
        }
        let folder = self.shared.folder(attempt);
        let written = spawn_blocking(move || folder.write_kill_request(StopTerms::AT_ONCE)).await;
        written.map_err(|cause| AttemptError::BrokenOff { attempt, cause })??;
        match supervisor {
            Some(supervisor) => supervisor.nudge(&self.shared.folder(attempt)),
            // A supervisor that is only now being started looks for the request before it runs anything.
            None => self.shared.wake_from_lease(attempt),
        }
        Ok(Admitted::Accepted)
    }

    /// The attempts that run here now, with the epochs under which they were started.
    pub fn running(&self) -> Vec<(AttemptKey, Epoch)> {
        self.shared.table().live.iter().map(|(key, live)| (*key, live.epoch)).collect()
    }

    /// Whether this attempt runs here now.
    pub fn is_running(&self, attempt: AttemptKey) -> bool {
        self.shared.table().live.contains_key(&attempt)
    }

    /// One whose command runs inside this machine now.
    pub async fn inside(&self, vm: VmId) -> Option<AttemptKey> {
        let shared = Arc::clone(&self.shared);
        let running = self.running();
        let runs_inside = move |attempt: &AttemptKey| match shared.folder(*attempt).request() {
            Ok(request) => request.is_some_and(|request| request.machine() == Some(vm)),
            Err(error) => {
                tracing::warn!(%attempt, error = describe(&error), "could not see what an attempt does");
                false
            }
        };
        let running = running.into_iter().map(|(attempt, _)| attempt);
        spawn_blocking(move || running.into_iter().find(runs_inside)).await.unwrap_or_default()
    }

    /// The folder of an attempt, for whoever shows what it prints. It need not exist.
    pub fn folder(&self, attempt: AttemptKey) -> Folder {
        self.shared.folder(attempt)
    }

    /// What is to be done about leases at this moment.
    pub fn next_of_leases(&self, now: BootTime) -> Next {
        lease::next(self.shared.table().live.iter(), now)
    }

    /// Wakes when an attempt wants its first lease.
    pub async fn lease_wanted(&self) {
        self.shared.lease_wanted.notified().await;
    }

    /// The leader has granted these in answer to a request that was sent at `asked_at`.
    pub async fn renewed(&self, granted: LeasesGranted, asked_at: BootTime) {
        let shared = Arc::clone(&self.shared);
        // An error is a panic in there, which is logged; the leases then run out, which is safe.
        let _done = spawn_blocking(move || shared.renew(&granted, asked_at)).await;
    }

    /// Ends that nobody has acknowledged, at most 256 at once: acknowledge them and ask again.
    ///
    /// # Errors
    /// [`FolderError`] if the attempts cannot be listed.
    pub async fn unacknowledged(&self) -> Result<Vec<AttemptReport>, FolderError> {
        let shared = Arc::clone(&self.shared);
        let read = spawn_blocking(move || {
            let names = shared.home.names()?;
            let reports = names.iter().filter_map(|name| report_in(&shared.home.folder(name)));
            Ok(reports.take(UNACKNOWLEDGED_MAX).collect())
        });
        read.await.unwrap_or_else(|_| Ok(Vec::new()))
    }

    /// The report is committed somewhere safe: forget the attempt (but not its epoch).
    ///
    /// # Errors
    /// [`AttemptError`] if its folder cannot be removed. One that runs is left alone.
    pub async fn acknowledge(&self, attempt: AttemptKey) -> Result<(), AttemptError> {
        if self.shared.table().live.contains_key(&attempt) {
            return Ok(());
        }
        let shared = Arc::clone(&self.shared);
        let removed = spawn_blocking(move || {
            shared.folder(attempt).remove()?;
            shared.fences.close(attempt);
            Ok::<_, FolderError>(())
        });
        Ok(removed.await.map_err(|cause| AttemptError::BrokenOff { attempt, cause })??)
    }
}

impl Drop for AttemptRunner {
    fn drop(&mut self) {
        self.shared.retired.cancel();
    }
}
