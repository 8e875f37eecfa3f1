//! Getting a group of commands committed, here or through the leader, and the read barrier.
//!
//! A step that surely changed nothing is tried again until the deadline. One whose outcome is not known is not:
//! the caller hears [`LedgerError::Unknown`] and looks for itself.

use super::{
    LedgerError, forward,
    leadership::{leader_of, leads},
    ledger::Inner,
    peers::SILENCE_MAX,
    rpc::{ForwardReply, ForwardRequest},
    types::Commands,
};
use crate::identity::now;
use novacron_common::{
    planted::{self, Mistake},
    wire::CoordinatorAddress,
};
use novacron_core::{Applied, Command, CommandBody};
use novacron_runtime::time::{Instant, sleep, timeout_at};
use openraft::error::{ClientWriteError, RaftError};
use std::{sync::atomic::Ordering, time::Duration};

/// How long a proposal or a read may wait for a leader and a quorum. Longer than a fail-over takes.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// Pause between tries while nobody leads.
const RETRY: Duration = Duration::from_millis(25);

/// Where a group of commands is in the log, and what came of each.
pub(super) type Committed = (u64, Vec<Applied>);

/// How a try ended that did not succeed.
#[derive(Debug, Clone)]
pub(super) enum Missed {
    /// Nothing was changed: try again.
    Retry,
    /// Give up with this.
    Final(LedgerError),
}

enum Route {
    Here,
    Through(CoordinatorAddress),
    Nowhere,
}

impl Inner {
    /// Commits `bodies` as one entry. They are asked for at each try.
    pub async fn commit(
        &self,
        bodies: impl Fn() -> Vec<CommandBody> + Send,
    ) -> Result<Committed, LedgerError> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let tried = match self.route() {
                Route::Here => self.commit_here(bodies(), deadline).await,
                Route::Through(leader) => self.commit_through(leader, bodies(), deadline).await,
                Route::Nowhere => Err(Missed::Retry),
            };
            match tried {
                Ok(committed) => return Ok(committed),
                Err(Missed::Final(error)) => return Err(error),
                Err(Missed::Retry) => self.pause(deadline).await?,
            }
        }
    }

    /// Commits on this node, which must lead.
    pub async fn commit_here(
        &self,
        bodies: Vec<CommandBody>,
        deadline: Instant,
    ) -> Result<Committed, Missed> {
        if !matches!(self.route(), Route::Here) {
            return Err(Missed::Retry);
        }
        let at = now();
        let commands = Commands(bodies.into_iter().map(|body| Command { at, body }).collect());
        match timeout_at(deadline, self.raft.client_write(commands)).await {
            Ok(Ok(written)) => Ok((written.log_id.index, written.data.0)),
            _ if planted::is(Mistake::UnknownToldAsRefused) => Err(Missed::Final(self.no_leader())),
            // openraft answers so before and after the entry was appended: the entry may yet be committed.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) | Err(_) => {
                Err(Missed::Final(LedgerError::Unknown))
            }
            Ok(Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(_)))) => {
                Err(Missed::Final(LedgerError::Unknown))
            }
            Ok(Err(RaftError::Fatal(_))) => Err(Missed::Final(LedgerError::Stopped)),
        }
    }

    async fn commit_through(
        &self,
        leader: CoordinatorAddress,
        bodies: Vec<CommandBody>,
        deadline: Instant,
    ) -> Result<Committed, Missed> {
        let request = ForwardRequest::Propose(bodies);
        match forward::ask(self, leader, &request, deadline).await? {
            ForwardReply::Applied { index, outcomes } => Ok((index, outcomes)),
            ForwardReply::NotLeader => Err(Missed::Retry),
            ForwardReply::Unavailable => Err(Missed::Final(self.no_leader())),
            // Also the answer to another question.
            _ => Err(Missed::Final(LedgerError::Unknown)),
        }
    }

    /// See [`super::Ledger::linearizable`].
    pub async fn linearizable(&self) -> Result<(), LedgerError> {
        if planted::is(Mistake::ReadWithoutIndex) {
            return Ok(());
        }
        let began = Instant::now();
        let deadline = began + DEADLINE;
        loop {
            let tried = match self.route() {
                Route::Here => self.here.index().await,
                Route::Through(_) => self.through.index().await,
                Route::Nowhere => Err(Missed::Retry),
            };
            match tried {
                Ok(index) => {
                    self.applied(index, deadline).await?;
                    self.freshness.confirm(began);
                    return Ok(());
                }
                Err(Missed::Final(error)) => return Err(error),
                Err(Missed::Retry) => self.pause(deadline).await?,
            }
        }
    }

    /// The index up to which a state must be applied to be current; asks a quorum. For [`super::reads::run`] only:
    /// everybody else shares its rounds.
    pub async fn read_index(&self) -> Result<u64, Missed> {
        if planted::is(Mistake::ReadIndexWithoutQuorum) {
            return Ok(self.machine.applied_index());
        }
        // Asking the others would renew the lease that is to run out.
        if !matches!(self.route(), Route::Here) {
            return Err(Missed::Retry);
        }
        let deadline = Instant::now() + DEADLINE;
        match timeout_at(deadline, self.raft.get_read_log_id()).await {
            Ok(Ok((read, _))) => Ok(read.map_or(0, |log_id| log_id.index)),
            Ok(Err(RaftError::APIError(_))) => Err(Missed::Retry),
            Ok(Err(RaftError::Fatal(_))) => Err(Missed::Final(LedgerError::Stopped)),
            Err(_) => Err(Missed::Final(self.no_leader())),
        }
    }

    /// The same, through the leader.
    pub async fn read_index_through(&self) -> Result<u64, Missed> {
        let Route::Through(leader) = self.route() else { return Err(Missed::Retry) };
        let deadline = Instant::now() + DEADLINE;
        match forward::ask(self, leader, &ForwardRequest::ReadIndex, deadline).await {
            Ok(ForwardReply::ReadIndex(index)) => Ok(index),
            Ok(ForwardReply::Unavailable) => Err(Missed::Final(self.no_leader())),
            // Reading twice does no harm.
            Ok(_) | Err(Missed::Retry | Missed::Final(LedgerError::Unknown)) => Err(Missed::Retry),
            Err(Missed::Final(error)) => Err(Missed::Final(error)),
        }
    }

    /// Waits until this node has applied the entry at `index`.
    pub async fn applied(&self, index: u64, deadline: Instant) -> Result<(), LedgerError> {
        if self.machine.applied_index() >= index || planted::is(Mistake::ReadBeforeApplied) {
            return Ok(());
        }
        let mut metrics = self.raft.metrics();
        let reached = metrics.wait_for(|m| m.last_applied.is_some_and(|l| l.index >= index) || index == 0);
        match timeout_at(deadline, reached).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) => Err(LedgerError::Stopped),
            Err(_) => Err(self.no_leader()),
        }
    }

    /// Nothing can be committed or confirmed now, and who is missing for it.
    pub fn no_leader(&self) -> LedgerError {
        LedgerError::NoLeader(self.silent())
    }

    fn route(&self) -> Route {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        match leader_of(&metrics) {
            _ if self.paused.load(Ordering::Acquire) => Route::Nowhere,
            _ if leads(&metrics) => Route::Here,
            Some(leader) if leader.node != self.node => Route::Through(leader),
            _ => Route::Nowhere,
        }
    }

    async fn pause(&self, deadline: Instant) -> Result<(), LedgerError> {
        if self.raft.metrics().borrow().running_state.is_err() {
            return Err(LedgerError::Stopped);
        }
        if gives_up(deadline.saturating_duration_since(Instant::now()), || self.majority_is_silent()) {
            return Err(self.no_leader());
        }
        sleep(RETRY).await;
        Ok(())
    }
}

/// Whether a request with so much time left is answered that nobody leads. It first looks itself for as long as two
/// questions to the others take: what was heard of them before is no word on now, if this process had no processor for
/// a while, and of a member that has only just joined nothing can have been heard yet.
fn gives_up(left: Duration, majority_is_silent: impl FnOnce() -> bool) -> bool {
    left <= RETRY || (DEADLINE.saturating_sub(left) >= SILENCE_MAX && majority_is_silent())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_looks_for_itself_before_it_believes_that_nobody_can_lead() {
        let left = |waited: Duration| DEADLINE - waited;
        assert!(!gives_up(DEADLINE, || true), "the first failed try");
        assert!(!gives_up(left(SILENCE_MAX - RETRY), || true));
        assert!(gives_up(left(SILENCE_MAX), || true), "two questions had no answer meanwhile");
        assert!(!gives_up(left(SILENCE_MAX), || false), "a majority answers: it will lead");
        assert!(!gives_up(RETRY * 2, || false));
        assert!(gives_up(RETRY, || false), "no time for another try");
    }
}
