//! What an earlier life of the agent left: supervisors that run on, outcomes that nobody has read, and attempts that
//! went down with the host.

use super::{admission::Fence, lease::LiveLease, shared::Shared, table::Live};
use crate::{
    hypervisor::namespace::{
        folder::Folder,
        process::Supervisor,
        request::{Claim, Request, Work},
    },
    text::describe,
};
use std::{io, sync::Arc};

impl Shared {
    /// Looks through every folder, and then through the journal for what has none.
    pub(super) async fn take_over_all(self: &Arc<Self>) -> io::Result<()> {
        for name in self.home.names().map_err(io::Error::other)? {
            self.take_over(&name).await?;
        }
        self.settle_vanished();
        Ok(())
    }

    async fn take_over(self: &Arc<Self>, name: &str) -> io::Result<()> {
        let folder = self.home.folder(name);
        let request = match folder.request() {
            Ok(Some(request @ Request { claim: Some(_), .. })) => request,
            Ok(_) => {
                drop(folder.remove());
                return Ok(());
            }
            // Damaged with the host: then nobody runs it, and the journal says what becomes of it.
            Err(error) => {
                tracing::error!(name, error = describe(&error), "a request of an attempt cannot be read");
                remove_unless_supervised(&folder);
                return Ok(());
            }
        };
        let Some(claim) = request.claim else { return Ok(()) };
        if self.fences.of(&claim.attempt.fire).is_none_or(|seen| seen.epoch < claim.epoch) {
            self.fences
                .raise(claim.attempt.fire, Fence { epoch: claim.epoch, number: claim.attempt.number })?;
        }
        match Supervisor::adopt(&folder).await {
            Ok(Some(supervisor)) => self.adopt(claim, &request, supervisor),
            Ok(None) => drop(self.settle(claim.attempt)),
            Err(error) => {
                tracing::error!(attempt = %claim.attempt, error = describe(&error), "could not adopt");
            }
        }
        Ok(())
    }

    fn adopt(self: &Arc<Self>, claim: Claim, request: &Request, supervisor: Supervisor) {
        tracing::info!(attempt = %claim.attempt, "adopted a running attempt");
        let slot = request.work.isolated().map(|isolated| isolated.id_slot);
        let lease = request.lease.map(LiveLease::of);
        self.table().put(claim.attempt, Live { epoch: claim.epoch, slot, supervisor: None, lease });
        self.watch(claim, supervisor);
    }

    /// What was accepted and has left no folder: the host stopped before the folder was on disk, or the agent before
    /// it was made. Nothing of it runs, and whoever gave it to us has to be told.
    fn settle_vanished(&self) {
        for (attempt, epoch) in self.fences.unclosed() {
            if self.folder(attempt).path().exists() {
                continue;
            }
            tracing::warn!(%attempt, "an attempt that was accepted has left no trace: it is lost");
            if let Err(error) = self.note_lost(Claim { attempt, epoch }) {
                tracing::error!(%attempt, error = describe(&error), "could not write down that it is lost");
            }
        }
    }

    fn note_lost(&self, claim: Claim) -> Result<(), crate::hypervisor::namespace::folder::FolderError> {
        let request = Request { claim: Some(claim), work: Work::Nothing, lease: None };
        Folder::create(self.folder(claim.attempt).path(), &request)?;
        let _lost = self.settle(claim.attempt);
        Ok(())
    }
}

/// Whoever holds its lock may be a supervisor of another version, which runs on.
fn remove_unless_supervised(folder: &Folder) {
    if let Ok(Some(_lock)) = folder.try_lock() {
        drop(folder.remove());
    }
}
