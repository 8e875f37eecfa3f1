//! The ledger as operators see it: members, terms, indexes.

use super::{Ledger, leadership, types::NodeId};
use std::{net::SocketAddr, time::Duration};

/// One coordinator in Raft's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemberStatus {
    /// Its number.
    pub node: NodeId,
    /// QUIC.
    pub quic: SocketAddr,
    /// HTTP API.
    pub http: SocketAddr,
    /// Whether it votes, in both halves of a change under way; a learner only receives.
    pub voter: bool,
    /// Whether it leads, as far as this node knows.
    pub leader: bool,
    /// How long ago this node last heard from it; `None` if never, zero for itself.
    pub silence: Option<Duration>,
    /// How far its clock is ahead of this node's, milliseconds, if that is known.
    pub clock_ahead_ms: Option<i64>,
}

/// This node's place in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerStatus {
    /// Its number.
    pub node: NodeId,
    /// Raft's term.
    pub term: u64,
    /// Whether it leads and a majority answers it.
    pub leads: bool,
    /// Who leads, as far as this node knows.
    pub leader: Option<NodeId>,
    /// The last log index that is applied.
    pub applied: u64,
    /// The last log index that is on disk.
    pub last_log: u64,
    /// Milliseconds since a majority last answered; `None` on a node that does not lead.
    pub quorum_silence_ms: Option<u64>,
    /// Whether Raft runs: it stops for good when its store fails.
    pub running: bool,
}

impl Ledger {
    /// The membership in force, in the order of numbers.
    pub fn members(&self) -> Vec<MemberStatus> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let membership = metrics.membership_config.membership();
        let status = |(node, member): (&NodeId, &super::Member)| MemberStatus {
            node: *node,
            quic: member.quic,
            http: member.http,
            voter: membership.get_joint_config().iter().all(|voters| voters.contains(node)),
            leader: metrics.current_leader == Some(*node),
            silence: self.inner.silence(*node),
            clock_ahead_ms: self.inner.clock_ahead_ms(*node),
        };
        membership.nodes().map(status).collect()
    }

    /// Whether `node` is in the membership in force, as voter or learner.
    pub fn has_member(&self, node: NodeId) -> bool {
        self.inner.raft.metrics().borrow().membership_config.membership().get_node(&node).is_some()
    }

    /// This node's place in the log.
    pub fn status(&self) -> LedgerStatus {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        LedgerStatus {
            node: metrics.id,
            term: metrics.current_term,
            leads: leadership::leads(&metrics),
            leader: metrics.current_leader,
            applied: self.inner.machine.applied_index(),
            last_log: metrics.last_log_index.unwrap_or(0),
            quorum_silence_ms: metrics.millis_since_quorum_ack,
            running: metrics.running_state.is_ok(),
        }
    }
}
