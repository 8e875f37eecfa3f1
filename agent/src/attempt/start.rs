//! From an admitted start command to a running supervisor.

use super::{admission::Fence, call, error::AttemptError, plan, record, runner::Admitted, shared::Shared};
use crate::{
    hypervisor::namespace::{
        folder::Folder,
        process::Supervisor,
        request::{Claim, Request, Work},
        supervise::never_ran,
    },
    text::describe,
};
use novacron_common::{
    record::AttemptOutcome,
    spec::{JobTarget, OnLeaseLost},
    wire::AttemptStart,
};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    task::{spawn, spawn_blocking},
    time::timeout,
};

/// Only libvirt's machines have a guest agent.
const NO_GUEST_AGENT: &str =
    "it runs no machines that have a guest agent (no [hypervisor] in its agent.toml)";

/// An attempt that is on disk, and what is to run it.
struct Prepared {
    folder: Folder,
    program: PathBuf,
}

impl Shared {
    /// Writes the attempt down and sets it going. What is refused has left nothing behind.
    pub(super) async fn start(
        self: Arc<Self>,
        start: AttemptStart,
        slot: u32,
    ) -> Result<Admitted, AttemptError> {
        let claim = Claim { attempt: start.attempt, epoch: start.epoch };
        let attempt = claim.attempt;
        let shared = Arc::clone(&self);
        let dies_with_lease = start.on_lease_lost == OnLeaseLost::Kill;
        let prepared = spawn_blocking(move || shared.prepare(&start, slot)).await;
        let prepared = prepared.unwrap_or_else(|cause| Err(AttemptError::BrokenOff { attempt, cause }));
        let prepared = prepared.inspect_err(|_| drop(self.table().take(&attempt)))?;
        // From here on it is on disk: whatever happens is its outcome, not a refusal.
        self.lease_wanted.notify_one();
        match self.first_grant(claim).filter(|_| dies_with_lease) {
            Some((granted, patience)) => {
                drop(spawn(self.launch_when(granted, patience, claim, prepared)));
            }
            None => self.launch(claim, prepared).await,
        }
        Ok(Admitted::Accepted)
    }

    fn first_grant(&self, claim: Claim) -> Option<(watch::Receiver<bool>, Duration)> {
        let table = self.table();
        let lease = table.live.get(&claim.attempt)?.lease.as_ref()?;
        Some((lease.granted(), lease.duration()))
    }

    /// A start command may have been on its way for any length of time, so the right to run is what was asked for
    /// after it came.
    async fn launch_when(
        self: Arc<Self>,
        mut granted: watch::Receiver<bool>,
        patience: Duration,
        claim: Claim,
        prepared: Prepared,
    ) {
        let granted = tokio::select! {
            granted = timeout(patience, granted.wait_for(|granted| *granted)) => granted.is_ok_and(|g| g.is_ok()),
            // A successor finds the folder without a supervisor, and settles it.
            () = self.retired.cancelled() => return,
        };
        match granted {
            true => self.launch(claim, prepared).await,
            false => self.end_unstarted(claim, never_ran(AttemptOutcome::LeaseLost)).await,
        }
    }

    async fn launch(self: &Arc<Self>, claim: Claim, prepared: Prepared) {
        let Prepared { folder, program } = prepared;
        let launched = spawn_blocking(move || Supervisor::start(&program, &folder)).await;
        match launched {
            Ok(Ok(supervisor)) => self.watch(claim, supervisor),
            Ok(Err(error)) => self.end_for_want_of(claim, describe(&error)).await,
            Err(error) => self.end_for_want_of(claim, describe(&error)).await,
        }
    }

    /// Everything that must be there before anything runs. The journal makes it durable; the folder follows.
    fn prepare(&self, start: &AttemptStart, slot: u32) -> Result<Prepared, AttemptError> {
        let attempt = start.attempt;
        let invalid = |cause| AttemptError::Invalid { attempt, cause };
        let request = Request {
            claim: Some(Claim { attempt, epoch: start.epoch }),
            work: self.work(start, slot)?,
            lease: plan::terms(start).map_err(invalid)?,
        };
        let raised = self.fences.raise(attempt.fire, Fence { epoch: start.epoch, number: attempt.number });
        let path = self.home.folder("fences").path().to_owned();
        raised.map_err(|cause| AttemptError::Fence { attempt, path, cause })?;
        let made = Folder::create_loosely(self.folder(attempt).path(), &request);
        let folder = made.inspect_err(|_| self.fences.close(attempt))?;
        let program = match request.work {
            Work::Call(_) => &self.settings.caller,
            Work::Nothing | Work::Record { .. } | Work::Isolated(_) | Work::Migratable(_) => {
                &self.settings.supervisor
            }
        };
        Ok(Prepared { folder, program: program.clone() })
    }

    fn work(&self, start: &AttemptStart, slot: u32) -> Result<Work, AttemptError> {
        let attempt = start.attempt;
        match &start.target {
            JobTarget::Noop => Ok(Work::Nothing),
            JobTarget::Record => Ok(Work::Record { line: record::line_of(start) }),
            JobTarget::Command(target) => {
                let cgroup = self.home.group_of(&attempt.to_string());
                let place = plan::Place {
                    cgroup,
                    id_slot: slot,
                    masked: self.masked.clone(),
                    roots: &self.settings.roots,
                };
                let isolated = plan::isolate(start, target, place);
                isolated.map(Work::Isolated).map_err(|cause| AttemptError::Invalid { attempt, cause })
            }
            JobTarget::Http(target) => {
                let variables = plan::variables(start);
                let call = call::plan(target, &variables, &self.settings.url_allow);
                let to =
                    call.map(call::Callee::Http).map_err(|cause| AttemptError::Call { attempt, cause })?;
                Ok(Work::Call(call::Call { to, timeout: Duration::from_millis(start.timeout_ms) }))
            }
            JobTarget::VmCommand(target) => {
                let uri = self.settings.libvirt_uri.as_deref();
                let uri = uri.ok_or(AttemptError::Unsupported { attempt, why: NO_GUEST_AGENT })?;
                let call = plan::in_guest(start, target, uri);
                let to = call.map(call::Callee::Guest);
                let to = to.map_err(|cause| AttemptError::Invalid { attempt, cause })?;
                Ok(Work::Call(call::Call { to, timeout: Duration::from_millis(start.timeout_ms) }))
            }
            JobTarget::Vm(_) => Err(AttemptError::Unsupported { attempt, why: "the coordinator does it" }),
        }
    }
}
