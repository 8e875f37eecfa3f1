//! The agent's side of all attempts on this host.

use super::{
    admission::Fence,
    error::{AttemptError, OpenError},
    fence::Fences,
    plan,
    table::{Live, Table},
};
use crate::hypervisor::namespace::{
    folder::{Folder, FolderError},
    home::Home,
    process::Supervisor,
    request::{Claim, Isolated, KillRequest, Request},
    supervise::{failed_to_start, never_ran},
};
use crate::text::describe;
use novacron_common::{
    ids::AttemptKey,
    record::{AttemptEnd, AttemptOutcome, AttemptReport},
    spec::{JobTarget, Root},
    units::Epoch,
    wire::AttemptStart,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::{spawn, spawn_blocking},
};

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

struct Shared {
    home: Home,
    exe: PathBuf,
    masked: Vec<PathBuf>,
    table: Mutex<Table>,
    reports: mpsc::Sender<AttemptReport>,
}

impl AttemptRunner {
    /// Opens the attempts below `data_dir`: adopts those that run, settles those whose supervisor is gone, and
    /// sweeps what ended attempts left behind. `supervisor_exe` is run as `supervisor_exe supervise FOLDER`.
    ///
    /// # Errors
    /// [`OpenError`] if the folder cannot be used.
    pub async fn open(data_dir: &Path, supervisor_exe: PathBuf) -> Result<Self, OpenError> {
        let home = Home::open(data_dir.join("attempts"))?;
        let path = data_dir.join("attempts/fences");
        let fences = Fences::open(&path).map_err(|cause| OpenError::Fences { path: path.clone(), cause })?;
        let (sender, receiver) = mpsc::channel(REPORTS_MAX);
        let masked = [Some(data_dir.to_owned()), data_dir.canonicalize().ok()];
        let shared = Arc::new(Shared {
            home,
            exe: supervisor_exe,
            masked: masked.into_iter().flatten().collect(),
            table: Mutex::new(Table { fences, live: Default::default() }),
            reports: sender,
        });
        for name in shared.home.names()? {
            let found = shared.take_over(&name).await;
            found.map_err(|cause| OpenError::Fences { path: path.clone(), cause })?;
        }
        shared.sweep();
        Ok(Self { shared, reports: Mutex::new(Some(receiver)) })
    }

    /// Reports of attempts as they end, from now on; those that ended earlier are in [`Self::unacknowledged`].
    /// The first caller gets the channel.
    pub fn reports(&self) -> Option<mpsc::Receiver<AttemptReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Starts an attempt, once. It is on disk when this returns.
    ///
    /// # Errors
    /// [`AttemptError`]: it was not started, and will not be.
    pub async fn start(&self, start: AttemptStart) -> Result<Admitted, AttemptError> {
        let attempt = start.attempt;
        let Some(slot) = self.shared.table().admit(&start)? else { return Ok(Admitted::AlreadySo) };
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
        let written = spawn_blocking(move || folder.write_kill_request(KillRequest { grace_ms: 0 })).await;
        written.map_err(|cause| AttemptError::BrokenOff { attempt, cause })??;
        // A supervisor that is only now being started looks for the request before it runs anything.
        if let Some(supervisor) = supervisor {
            supervisor.nudge(&self.shared.folder(attempt));
        }
        Ok(Admitted::Accepted)
    }

    /// The attempts that run here now, with the epochs under which they were started.
    pub fn running(&self) -> Vec<(AttemptKey, Epoch)> {
        self.shared.table().live.iter().map(|(key, live)| (*key, live.epoch)).collect()
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
        let folder = self.shared.folder(attempt);
        let removed = spawn_blocking(move || folder.remove()).await;
        Ok(removed.map_err(|cause| AttemptError::BrokenOff { attempt, cause })??)
    }
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folder(&self, attempt: AttemptKey) -> Folder {
        self.home.folder(&attempt.to_string())
    }

    async fn start(self: Arc<Self>, start: AttemptStart, slot: u32) -> Result<Admitted, AttemptError> {
        let (attempt, epoch) = (start.attempt, start.epoch);
        let shared = Arc::clone(&self);
        let prepared = spawn_blocking(move || shared.prepare(&start, slot)).await;
        let prepared = prepared.unwrap_or_else(|cause| Err(AttemptError::BrokenOff { attempt, cause }));
        let folder = match prepared {
            Ok(folder) => folder,
            Err(error) => {
                self.table().live.remove(&attempt);
                return Err(error);
            }
        };
        // From here on it is on disk: whatever happens is its outcome, not a refusal.
        let (shared, at) = (Arc::clone(&self), folder.clone());
        let launched = spawn_blocking(move || Supervisor::start(&shared.exe, &at)).await;
        match launched {
            Ok(Ok(supervisor)) => self.watch(Claim { attempt, epoch }, supervisor, slot),
            Ok(Err(error)) => self.end_unstarted(Claim { attempt, epoch }, describe(&error)).await,
            Err(error) => self.end_unstarted(Claim { attempt, epoch }, describe(&error)).await,
        }
        Ok(Admitted::Accepted)
    }

    /// Everything durable, before anything runs.
    fn prepare(&self, start: &AttemptStart, slot: u32) -> Result<Folder, AttemptError> {
        let attempt = start.attempt;
        let isolated = self.isolated(start, slot)?;
        let raised =
            self.table().fences.raise(attempt.fire, Fence { epoch: start.epoch, number: attempt.number });
        let path = self.home.folder("fences").path().to_owned();
        raised.map_err(|cause| AttemptError::Fence { attempt, path, cause })?;
        let request = Request { claim: Some(Claim { attempt, epoch: start.epoch }), isolated };
        Ok(Folder::create(self.folder(attempt).path(), &request)?)
    }

    fn isolated(&self, start: &AttemptStart, slot: u32) -> Result<Option<Isolated>, AttemptError> {
        let target = match &start.target {
            JobTarget::Noop => return Ok(None),
            JobTarget::Command(target) if target.root == Root::Host && target.stdin.is_none() => target,
            JobTarget::Record
            | JobTarget::Command(_)
            | JobTarget::VmCommand(_)
            | JobTarget::Vm(_)
            | JobTarget::Http(_) => return Err(AttemptError::Unsupported { attempt: start.attempt }),
        };
        let cgroup = self.home.group_of(&start.attempt.to_string());
        let place = plan::Place { cgroup, id_slot: slot, masked: self.masked.clone() };
        let isolated = plan::isolate(start, target, place);
        isolated.map(Some).map_err(|cause| AttemptError::Invalid { attempt: start.attempt, cause })
    }

    fn watch(self: &Arc<Self>, claim: Claim, supervisor: Supervisor, slot: u32) {
        let supervisor = Arc::new(supervisor);
        let live = Live { epoch: claim.epoch, slot, supervisor: Some(Arc::clone(&supervisor)) };
        self.table().live.insert(claim.attempt, live);
        // A kill that came before there was anybody to signal.
        let folder = self.folder(claim.attempt);
        if matches!(folder.kill_request(), Ok(Some(_))) {
            supervisor.nudge(&folder);
        }
        let shared = Arc::clone(self);
        spawn(async move {
            supervisor.ended().await;
            shared.report(claim).await;
        });
    }

    async fn end_unstarted(self: &Arc<Self>, claim: Claim, reason: String) {
        if let Err(error) = self.folder(claim.attempt).write_outcome(&failed_to_start(reason)) {
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
            table.live.remove(&claim.attempt);
            if table.live.is_empty() {
                self.home.sweep_groups(&[]);
            }
        }
        // Only a runner that is being dropped has no receiver; its successor finds the outcome on disk.
        let _closed =
            self.reports.send(AttemptReport { attempt: claim.attempt, epoch: claim.epoch, end }).await;
    }

    /// The outcome, once it is certain that nothing of the attempt lives: if its supervisor left none, it is lost.
    fn settle(&self, attempt: AttemptKey) -> AttemptEnd {
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

    /// One folder that an earlier life of the agent left.
    async fn take_over(self: &Arc<Self>, name: &str) -> std::io::Result<()> {
        let folder = self.home.folder(name);
        let request = match folder.request() {
            Ok(Some(Request { claim: Some(claim), isolated })) => (claim, isolated),
            Ok(_) => {
                // Its maker ended before the request was durable: nothing was started, and nobody was told so.
                drop(folder.remove());
                return Ok(());
            }
            Err(error) => {
                tracing::error!(name, error = describe(&error), "left an attempt alone that cannot be read");
                return Ok(());
            }
        };
        let (claim, isolated) = request;
        self.table().note_fence(claim.attempt, claim.epoch)?;
        match Supervisor::adopt(&folder).await {
            Ok(Some(supervisor)) => {
                tracing::info!(attempt = %claim.attempt, "adopted a running attempt");
                self.watch(claim, supervisor, isolated.map_or(0, |isolated| isolated.id_slot));
            }
            Ok(None) => drop(self.settle(claim.attempt)),
            Err(error) => {
                tracing::error!(attempt = %claim.attempt, error = describe(&error), "could not adopt")
            }
        }
        Ok(())
    }

    fn sweep(&self) {
        let began = Instant::now();
        let keep: Vec<String> = self.table().live.keys().map(ToString::to_string).collect();
        self.home.sweep_groups(&keep);
        if began.elapsed() > Duration::from_secs(1) {
            tracing::warn!(took = ?began.elapsed(), "sweeping cgroups took long");
        }
    }
}

/// The report that a folder holds, if its attempt has ended.
fn report_in(folder: &Folder) -> Option<AttemptReport> {
    let end = folder.outcome().ok()??;
    let claim = folder.request().ok()??.claim?;
    Some(AttemptReport { attempt: claim.attempt, epoch: claim.epoch, end })
}
