//! Who leads, as the rest of the coordinator sees it.
//!
//! openraft says "leader" as soon as the votes are counted. The reconcilers may act only once this node's state
//! has everything that former leaders acknowledged, so [`Leadership::Leader`] is published after a read barrier.

use super::{
    ledger::Inner,
    settings::{self, HEARTBEAT},
    types::{Member, NodeId, Raft},
};
use novacron_common::{
    planted::{self, Mistake},
    wire::CoordinatorAddress,
};
use novacron_runtime::time::sleep;
use openraft::{RaftMetrics, ServerState};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::watch;

/// Pause before the read barrier is tried again, while no quorum answers.
const BARRIER_RETRY: Duration = Duration::from_millis(50);

/// Whether this coordinator leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leadership {
    /// It does, and its state is up to date.
    Leader {
        /// Raft's term.
        term: u64,
    },
    /// It does not.
    Follower {
        /// Who does, if known.
        leader: Option<CoordinatorAddress>,
    },
}

impl Leadership {
    /// Whether this coordinator leads.
    pub const fn is_leader(&self) -> bool {
        matches!(self, Self::Leader { .. })
    }
}

pub(super) type Metrics = RaftMetrics<NodeId, Member>;

/// A leader that has not heard from a majority for this long may have been replaced: four leases, so that a slow disk does not
/// count as silence.
const QUORUM_SILENCE_MAX_MS: u64 = 4 * settings::LEASE.as_millis() as u64;

/// Whether this node leads and a majority still answers it. openraft's leader does not step down by itself when
/// it is cut off; what it proposed then would only hang.
pub(super) fn leads(metrics: &Metrics) -> bool {
    let alone = metrics.membership_config.voter_ids().count() <= 1;
    let heard = metrics.millis_since_quorum_ack.is_some_and(|ms| ms < QUORUM_SILENCE_MAX_MS);
    metrics.state == ServerState::Leader && (alone || heard)
}

/// The leader as `metrics` know it, which may be this node.
pub(super) fn leader_of(metrics: &Metrics) -> Option<CoordinatorAddress> {
    let node = metrics.current_leader?;
    Some(metrics.membership_config.membership().get_node(&node)?.address(node))
}

/// While this node leads, tells the others so again and again; until it stops. openraft's own heartbeats come no more often
/// than its requests may last.
pub(super) async fn tell(inner: Arc<Inner>) {
    loop {
        sleep(HEARTBEAT).await;
        let (leads, stopped) = {
            let metrics = inner.raft.metrics();
            let metrics = metrics.borrow();
            (metrics.state == ServerState::Leader, metrics.running_state.is_err())
        };
        if stopped {
            return;
        }
        if leads && !inner.silent.load(Ordering::Acquire) {
            // That it has stopped meanwhile is seen at the next look.
            let _ = inner.raft.trigger().heartbeat().await;
        }
    }
}

/// Publishes who leads until the node stops.
pub(super) async fn watch(raft: Raft, publish: watch::Sender<Leadership>) {
    let mut metrics = raft.metrics();
    loop {
        let seen = metrics.borrow_and_update().clone();
        if leads(&seen) {
            lead(&raft, &publish, seen.current_term).await;
        } else {
            set(&publish, Leadership::Follower { leader: leader_of(&seen).filter(|l| l.node != seen.id) });
        }
        if seen.running_state.is_err() || metrics.changed().await.is_err() {
            set(&publish, Leadership::Follower { leader: None });
            return;
        }
    }
}

async fn lead(raft: &Raft, publish: &watch::Sender<Leadership>, term: u64) {
    let leads = Leadership::Leader { term };
    if *publish.borrow() == leads {
        return;
    }
    // Not yet, and no longer for a former term.
    set(publish, Leadership::Follower { leader: None });
    if planted::is(Mistake::FiredAgainByNextLeader) || barrier(raft, term).await {
        tracing::info!(term, "this coordinator leads");
        set(publish, leads);
    }
}

fn set(publish: &watch::Sender<Leadership>, next: Leadership) {
    publish.send_if_modified(|now| {
        let changed = *now != next;
        *now = next;
        changed
    });
}

/// Waits until everything committed before is applied here; `false` if leadership was lost meanwhile.
async fn barrier(raft: &Raft, term: u64) -> bool {
    let mut metrics = raft.metrics();
    let mut lost = std::pin::pin!(async move {
        // The guard that `wait_for` answers with must not live across an await.
        let _ = metrics.wait_for(|m| !leads(m) || m.current_term != term).await;
    });
    loop {
        tokio::select! {
            biased;
            passed = raft.ensure_linearizable() => match passed {
                Ok(_) => return true,
                Err(_) => sleep(BARRIER_RETRY).await,
            },
            () = &mut lost => return false,
        }
    }
}
