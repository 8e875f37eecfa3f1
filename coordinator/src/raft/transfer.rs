//! Handing leadership over on purpose, which openraft 0.9 does not know: the leader takes nothing more, falls silent
//! for as long as its followers' lease lasts, and asks the one that is to follow it to stand for election.
//!
//! Nobody votes while it believes in its leader (Raft dissertation, section 4.2.3), so the lease is the least that a
//! transfer costs; a crash costs the lease and an election time-out. Writes and reads that come meanwhile wait.

use super::{
    Ledger,
    commit::Missed,
    forward,
    leadership::{Metrics, leader_of, leads},
    ledger::Inner,
    rpc::{ForwardReply, ForwardRequest},
    settings::{ELECTION_MAX, LEASE},
    types::NodeId,
};
use novacron_common::{
    api::{Problem, ProblemCode},
    wire::CoordinatorAddress,
};
use novacron_runtime::time::{Instant, sleep, timeout, timeout_at};
use serde::{Deserialize, Serialize};
use std::{sync::atomic::Ordering, time::Duration};

/// How long the one that is to lead may take to have the whole log, while nothing is added to it.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(2);
/// A heartbeat that was under way when the leader fell silent may renew a lease this much later.
const LEASE_MARGIN: Duration = Duration::from_millis(20);
/// A candidate that was refused, because a lease had not run out yet, is asked again after this.
const CAMPAIGN_PERIOD: Duration = Duration::from_millis(150);
/// How long anybody may take to win, after the lease.
const ELECTION_DEADLINE: Duration = Duration::from_millis(1500);
/// How long the leader may take for all of it.
const TRANSFER_DEADLINE: Duration = Duration::from_secs(6);

/// A transfer that succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transferred {
    /// Who led.
    pub from: NodeId,
    /// Who leads.
    pub to: NodeId,
    /// For how long nothing could be committed.
    pub gap: Duration,
}

/// Leadership stays where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum TransferError {
    /// Nobody leads whom one could ask.
    #[error("no coordinator leads now")]
    NoLeader,
    /// Another transfer is under way.
    #[error("leadership is being transferred already")]
    UnderWay,
    /// It cannot lead.
    #[error("coordinator {0} is no voter")]
    NoVoter(NodeId),
    /// It leads already.
    #[error("coordinator {0} leads already")]
    LeadsAlready(NodeId),
    /// It does not answer, or none does.
    #[error("no other voter answers that could lead")]
    NobodyAnswers,
    /// It is too far behind.
    #[error("coordinator {0} does not get the log's end in time")]
    Behind(NodeId),
    /// Nobody was elected in time.
    #[error("coordinator {0} was not elected in time")]
    NotElected(NodeId),
}

impl From<TransferError> for Problem {
    fn from(error: TransferError) -> Self {
        let code = match error {
            TransferError::NoLeader => ProblemCode::Unavailable,
            _ => ProblemCode::Conflict,
        };
        Self::new(code, error.to_string()).fix("`novactl cluster show` tells who leads, votes and answers")
    }
}

impl Ledger {
    /// Makes another voter lead: `to`, or the most advanced one that answers. Any node may be asked.
    ///
    /// # Errors
    /// [`TransferError`]; then the old leader goes on.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<Transferred, TransferError> {
        let leader = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow();
            if leads(&metrics) { None } else { Some(leader_of(&metrics).ok_or(TransferError::NoLeader)?) }
        };
        match leader {
            None => self.inner.transfer(to).await,
            Some(leader) => self.inner.transfer_through(leader, to).await,
        }
    }
}

impl Inner {
    async fn transfer_through(
        &self,
        leader: CoordinatorAddress,
        to: Option<NodeId>,
    ) -> Result<Transferred, TransferError> {
        let deadline = Instant::now() + TRANSFER_DEADLINE;
        match forward::exchange(self, &leader, &ForwardRequest::Transfer { to }, deadline).await {
            Ok(ForwardReply::Transferred(done)) => done,
            Ok(_) | Err(Missed::Retry | Missed::Final(_)) => Err(TransferError::NoLeader),
        }
    }

    /// On the leader.
    pub async fn transfer(&self, to: Option<NodeId>) -> Result<Transferred, TransferError> {
        let to = self.successor(to)?;
        let pause = Pause::begin(self)?;
        let began = Instant::now();
        self.caught_up(to.node).await?;
        self.silent.store(true, Ordering::Release);
        sleep(LEASE + LEASE_MARGIN).await;
        let elected = timeout(ELECTION_DEADLINE, self.elected(&to)).await;
        drop(pause);
        let leader = elected.map_err(|_| TransferError::NotElected(to.node))?;
        // The new leader commits an entry of its own term; then it commits anything.
        let _ = timeout_at(Instant::now() + ELECTION_DEADLINE, self.linearizable()).await;
        let done = Transferred { from: self.node, to: leader, gap: began.elapsed() };
        tracing::info!(to = done.to, gap_ms = done.gap.as_millis(), "leadership was transferred");
        Ok(done)
    }

    fn successor(&self, to: Option<NodeId>) -> Result<CoordinatorAddress, TransferError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let node = choose(&metrics, self.node, to, |node| self.peers.answers(node))?;
        let member = metrics.membership_config.membership().get_node(&node);
        Ok(member.ok_or(TransferError::NoVoter(node))?.address(node))
    }

    /// Waits until `node` has the whole log, to which nothing is added.
    async fn caught_up(&self, node: NodeId) -> Result<(), TransferError> {
        let mut metrics = self.raft.metrics();
        let there = metrics.wait_for(|m| matched(m, node) >= m.last_log_index);
        match timeout(CATCH_UP_DEADLINE, there).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(TransferError::Behind(node)),
        }
    }

    /// Asks `to` to stand until somebody else leads.
    async fn elected(&self, to: &CoordinatorAddress) -> NodeId {
        loop {
            let deadline = Instant::now() + CAMPAIGN_PERIOD;
            let _ = forward::exchange(self, to, &ForwardRequest::Campaign, deadline).await;
            let mut metrics = self.raft.metrics();
            let other = |m: &Metrics| m.current_leader.is_some_and(|leader| leader != m.id);
            let found = timeout(CAMPAIGN_PERIOD, metrics.wait_for(other)).await;
            if let Ok(Ok(found)) = found
                && let Some(leader) = found.current_leader
            {
                return leader;
            }
        }
    }
}

/// While this lives, this node commits nothing and confirms no read; then it goes on as it was.
struct Pause<'a>(&'a Inner);

impl<'a> Pause<'a> {
    fn begin(inner: &'a Inner) -> Result<Self, TransferError> {
        match inner.paused.swap(true, Ordering::AcqRel) {
            true => Err(TransferError::UnderWay),
            false => Ok(Self(inner)),
        }
    }
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        self.0.silent.store(false, Ordering::Release);
        self.0.paused.store(false, Ordering::Release);
    }
}

fn matched(metrics: &Metrics, node: NodeId) -> Option<u64> {
    Some((*metrics.replication.as_ref()?.get(&node)?)?.index)
}

/// The voter that is to lead.
fn choose(
    metrics: &Metrics,
    own: NodeId,
    to: Option<NodeId>,
    answers: impl Fn(NodeId) -> bool,
) -> Result<NodeId, TransferError> {
    let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
    match to {
        Some(node) if node == own => Err(TransferError::LeadsAlready(node)),
        Some(node) if !voters.contains(&node) => Err(TransferError::NoVoter(node)),
        Some(node) if !answers(node) => Err(TransferError::NobodyAnswers),
        Some(node) => Ok(node),
        None => {
            let others = voters.into_iter().filter(|node| *node != own && answers(*node));
            others.max_by_key(|node| matched(metrics, *node)).ok_or(TransferError::NobodyAnswers)
        }
    }
}

/// Another node asks this one to stand for election, because it wants to lead no more.
pub(super) async fn campaign(inner: &Inner) -> ForwardReply {
    match inner.raft.trigger().elect().await {
        Ok(()) => ForwardReply::Standing,
        Err(_) => ForwardReply::Unavailable,
    }
}

/// How long a transfer takes at most, for those who wait for one before they stop.
pub const TRANSFER_MAX: Duration =
    CATCH_UP_DEADLINE.saturating_add(LEASE).saturating_add(ELECTION_DEADLINE).saturating_add(ELECTION_MAX);
