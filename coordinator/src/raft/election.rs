//! When this node stands for election.
//!
//! openraft draws its election time-out once for a node's life, looks at it every 150 ms, and waits 800 ms more after
//! it was refused for a shorter log: as a rule a fail-over lost its first election to that, and took 1.6 s. So the
//! timer is ours, and nobody stands in vain: a node first asks who would vote for it (pre-vote, Raft dissertation,
//! section 9.6), which changes no term and deposes no leader. One that hears no leader either and has the longer log
//! stands at once when it is asked.

use super::{
    forward,
    leadership::leads,
    ledger::Inner,
    rpc::{ForwardReply, ForwardRequest},
    runtime::Runtime,
    settings::{ELECTION_MAX, ELECTION_MIN, LEASE},
    types::{LogId, NodeId, StorageError, Vote},
};
use novacron_common::wire::CoordinatorAddress;
use novacron_runtime::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use openraft::{AsyncRuntime, ServerState, storage::RaftLogStorage};
use rand::Rng;
use std::{collections::BTreeSet, ops::Range, sync::Arc, time::Duration};

/// How long the others may take to say whether they would vote. A majority of answers ends the wait.
const ENDORSE_DEADLINE: Duration = Duration::from_millis(300);
/// A node that was not endorsed asks again after this, and up to twice this by chance.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// Where this node stands in Raft now.
#[derive(Debug, Clone, Copy)]
struct Position {
    vote: Vote,
    /// When it last heard from the leader that it follows, or gave its vote; `None` since its start.
    heard: Option<Instant>,
}

impl Position {
    /// For how long after it heard it votes for nobody else.
    fn lease(&self) -> Duration {
        if self.vote.is_committed() { LEASE } else { Duration::ZERO }
    }

    /// Whether the lease of the leader that it follows still runs.
    fn is_led(&self, now: Instant) -> bool {
        self.vote.is_committed() && self.heard.is_some_and(|heard| now <= heard + LEASE)
    }
}

/// Whether a node would vote for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Endorsement {
    Given,
    /// It hears a leader, or leads.
    Led,
    /// Its own log is longer.
    Better,
}

fn endorsement(is_led: bool, own: Option<LogId>, candidate: Option<LogId>) -> Endorsement {
    match is_led {
        true => Endorsement::Led,
        false if own > candidate => Endorsement::Better,
        false => Endorsement::Given,
    }
}

/// Whether `nodes` are a majority of each of the configurations (there are two while members change).
fn is_quorum(configurations: &[BTreeSet<NodeId>], nodes: &BTreeSet<NodeId>) -> bool {
    configurations.iter().all(|voters| voters.intersection(nodes).count() * 2 > voters.len())
}

/// Stands for election whenever nobody leads, until the node stops.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut patience = by_chance(ELECTION_MIN..ELECTION_MAX);
    while inner.follows().await {
        let Some(position) = inner.position().await else { return };
        let waits_until = position.heard.unwrap_or(inner.began) + position.lease() + patience;
        let left = waits_until.saturating_duration_since(Instant::now());
        if !left.is_zero() && !inner.is_alone() {
            let asked = timeout(left, inner.should_stand.notified()).await.is_ok();
            // Without having been asked, it looks first whether it has heard somebody meanwhile.
            if !asked {
                continue;
            }
        }
        if inner.is_endorsed().await {
            patience = by_chance(ELECTION_MIN..ELECTION_MAX);
            if inner.raft.trigger().elect().await.is_err() {
                return;
            }
        }
        sleep(by_chance(ASK_AGAIN..2 * ASK_AGAIN)).await;
    }
}

fn by_chance(range: Range<Duration>) -> Duration {
    Runtime::thread_rng().gen_range(range)
}

impl Inner {
    /// Returns once this node is a voter that does not lead; `false` if it stops.
    async fn follows(&self) -> bool {
        let mut metrics = self.raft.metrics();
        metrics.wait_for(|m| matches!(m.state, ServerState::Follower | ServerState::Candidate)).await.is_ok()
    }

    async fn position(&self) -> Option<Position> {
        let look = |state: &openraft::RaftState<_, _, _>| Position {
            vote: *state.vote_ref(),
            heard: state.vote_last_modified(),
        };
        self.raft.with_raft_state(look).await.ok()
    }

    async fn last_log(&self) -> Result<Option<LogId>, StorageError> {
        Ok(self.log.clone().get_log_state().await?.last_log_id)
    }

    fn configurations(&self) -> Vec<BTreeSet<NodeId>> {
        self.raft.metrics().borrow().membership_config.membership().get_joint_config().clone()
    }

    fn is_alone(&self) -> bool {
        is_quorum(&self.configurations(), &BTreeSet::from([self.node]))
    }

    /// Asks the other voters whether they would vote for this node; returns as soon as a majority would.
    async fn is_endorsed(self: &Arc<Self>) -> bool {
        let configurations = self.configurations();
        let mut endorsed = BTreeSet::from([self.node]);
        let Ok(last_log) = self.last_log().await else { return false };
        let mut asked = JoinSet::new();
        let votes = |node: &NodeId| configurations.iter().any(|voters| voters.contains(node));
        for (node, member) in self.others().into_iter().filter(|(node, _)| votes(node)) {
            asked.spawn(ask(self.clone(), member.address(node), last_log));
        }
        while !is_quorum(&configurations, &endorsed) {
            let Some(answer) = asked.join_next().await else { return false };
            endorsed.extend(answer.ok().flatten());
        }
        true
    }
}

/// The voter, if it would vote for this node.
async fn ask(inner: Arc<Inner>, voter: CoordinatorAddress, last_log: Option<LogId>) -> Option<NodeId> {
    let request = ForwardRequest::Endorse { last_log };
    let answer = forward::exchange(&inner, &voter, &request, Instant::now() + ENDORSE_DEADLINE).await;
    matches!(answer, Ok(ForwardReply::Endorsed(true))).then_some(voter.node)
}

/// Another voter asks whether this node would vote for it.
pub(super) async fn answer(inner: &Inner, candidate: Option<LogId>) -> ForwardReply {
    let (Some(position), Ok(own)) = (inner.position().await, inner.last_log().await) else {
        return ForwardReply::Unavailable;
    };
    let is_led = leads(&inner.raft.metrics().borrow()) || position.is_led(Instant::now());
    let endorsement = endorsement(is_led, own, candidate);
    if endorsement == Endorsement::Better {
        inner.should_stand.notify_one();
    }
    ForwardReply::Endorsed(endorsement == Endorsement::Given)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openraft::CommittedLeaderId;

    fn log(term: u64, index: u64) -> Option<LogId> {
        Some(LogId::new(CommittedLeaderId::new(term, 1), index))
    }

    #[test]
    fn a_node_endorses_who_has_all_that_it_has_and_only_while_nobody_leads() {
        assert_eq!(endorsement(false, log(2, 10), log(2, 10)), Endorsement::Given);
        assert_eq!(
            endorsement(false, log(2, 10), log(3, 4)),
            Endorsement::Given,
            "a later term is the longer log"
        );
        assert_eq!(endorsement(false, None, log(1, 1)), Endorsement::Given);
        assert_eq!(endorsement(false, log(2, 10), log(2, 9)), Endorsement::Better);
        assert_eq!(endorsement(false, log(1, 1), None), Endorsement::Better);
        assert_eq!(endorsement(true, log(2, 10), log(2, 11)), Endorsement::Led);
        assert_eq!(endorsement(true, log(2, 10), log(2, 9)), Endorsement::Led, "it has no reason to stand");
    }

    #[test]
    fn while_members_change_both_configurations_must_agree() {
        let nodes = |nodes: &[NodeId]| nodes.iter().copied().collect::<BTreeSet<_>>();
        assert!(is_quorum(&[nodes(&[1, 2, 3])], &nodes(&[1, 3])));
        assert!(!is_quorum(&[nodes(&[1, 2, 3])], &nodes(&[1, 4, 5])));
        assert!(!is_quorum(&[nodes(&[1, 2])], &nodes(&[1])));
        assert!(is_quorum(&[nodes(&[1])], &nodes(&[1])));
        assert!(!is_quorum(&[nodes(&[1, 2, 3]), nodes(&[1, 4, 5])], &nodes(&[1, 2])));
        assert!(is_quorum(&[nodes(&[1, 2, 3]), nodes(&[1, 4, 5])], &nodes(&[1, 2, 5])));
    }

    #[test]
    fn a_leaders_lease_ends_and_a_candidate_has_none() {
        let now = Instant::now();
        let led = Position { vote: Vote::new_committed(3, 1), heard: Some(now) };
        assert!(led.is_led(now) && led.is_led(now + LEASE));
        assert!(!led.is_led(now + LEASE + Duration::from_millis(1)));
        let voted = Position { vote: Vote::new(4, 2), heard: Some(now) };
        assert!(!voted.is_led(now));
        assert_eq!((led.lease(), voted.lease()), (LEASE, Duration::ZERO));
        assert!(!Position { vote: Vote::new_committed(3, 1), heard: None }.is_led(now), "it has just begun");
    }
}
