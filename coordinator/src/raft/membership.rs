//! Keeps Raft's membership equal to the ledger's address book of coordinators. Only the leader acts; one step at
//! a time; the step is decided by a pure function of what is seen, so that a new leader goes on where the old
//! one stopped.

use super::{
    leadership::{self, Metrics},
    ledger::Inner,
    types::{Member, NodeId, Raft, Types},
};
use novacron_common::spec::Fault;
use novacron_core::{Refusal, State};
use novacron_runtime::time;
use openraft::{
    ChangeMembers,
    error::{ClientWriteError, RaftError},
    raft::ClientWriteResponse,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

/// How often the leader looks.
const PERIOD: Duration = Duration::from_millis(250);
/// How long to wait for voters that were not heard yet.
const HEARING: Duration = Duration::from_secs(2);
/// How long one step may take to be committed.
const STEP_DEADLINE: Duration = Duration::from_secs(10);
/// A learner votes once it is this close to the end of the log: it then catches up within a heartbeat or two.
const CLOSE_ENOUGH: u64 = 100;

/// A node of Raft's membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Node {
    voter: bool,
    /// Where it is dialled.
    member: Member,
    /// The last log index that it is known to have.
    matched: Option<u64>,
    /// Whether it was heard lately.
    answers: bool,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A change was left half-way (joint consensus, Raft section 6) by a leader that was lost: finish it.
    Settle,
    /// A new coordinator begins to receive the log.
    AddLearner(NodeId, Member),
    /// It has the log: it may vote.
    Promote(NodeId),
    /// It has the log: it votes in the place of one that was removed, in one step. Both majorities are those of the
    /// same number of voters all the way through, so that one that is dead already costs nothing more.
    Replace {
        /// Comes.
        new: NodeId,
        /// Goes.
        old: NodeId,
    },
    /// It is reached elsewhere now.
    Move(NodeId, Member),
    /// A voter was removed from the address book.
    RemoveVoter(NodeId),
    /// A learner was.
    RemoveLearner(NodeId),
}

/// What the leader sees.
struct Seen {
    wanted: BTreeMap<NodeId, Member>,
    nodes: BTreeMap<NodeId, Node>,
    last_log: u64,
    joint: bool,
}

impl Seen {
    fn new(state: &State, metrics: &Metrics, answers: impl Fn(NodeId) -> bool) -> Self {
        let wanted =
            state.coordinators().iter().map(|c| (c.node, Member { quic: c.quic, http: c.http })).collect();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let matched = |node: &NodeId| Some((*metrics.replication.as_ref()?.get(node)?)?.index);
        let nodes = membership
            .nodes()
            .map(|(node, at)| {
                let (voter, answers) = (voters.contains(node), answers(*node));
                (*node, Node { voter, member: *at, matched: matched(node), answers })
            })
            .collect();
        let joint = membership.get_joint_config().len() > 1;
        Self { wanted, nodes, last_log: metrics.last_log_index.unwrap_or(0), joint }
    }

    /// Additions first: a replaced coordinator's successor votes before its predecessor leaves.
    fn next(&self) -> Option<Step> {
        // Before the founder's first command there is no address book to follow.
        if self.wanted.is_empty() {
            return None;
        }
        if self.joint {
            return Some(Step::Settle);
        }
        self.relocation().or_else(|| self.promotion()).or_else(|| self.addition()).or_else(|| self.removal())
    }

    fn relocation(&self) -> Option<Step> {
        let moved = |(id, node): &(&NodeId, &Node)| self.wanted.get(id).is_some_and(|at| *at != node.member);
        let (id, _) = self.nodes.iter().find(moved)?;
        self.wanted.get(id).map(|at| Step::Move(*id, *at))
    }

    fn promotion(&self) -> Option<Step> {
        let ready =
            |node: &Node| !node.voter && node.matched.is_some_and(|m| m + CLOSE_ENOUGH >= self.last_log);
        let (new, _) = self.nodes.iter().find(|(id, node)| self.wanted.contains_key(id) && ready(node))?;
        let leaves = |(id, node): &(&NodeId, &Node)| node.voter && !self.wanted.contains_key(id);
        Some(match self.nodes.iter().find(leaves) {
            Some((old, _)) => Step::Replace { new: *new, old: *old },
            None => Step::Promote(*new),
        })
    }

    /// Whether somebody is on the way in who answers: then nobody leaves before.
    fn somebody_learns(&self) -> bool {
        self.nodes.iter().any(|(id, node)| !node.voter && node.answers && self.wanted.contains_key(id))
    }

    fn addition(&self) -> Option<Step> {
        let found = self.wanted.iter().find(|(id, _)| !self.nodes.contains_key(id));
        found.map(|(id, member)| Step::AddLearner(*id, *member))
    }

    fn removal(&self) -> Option<Step> {
        let (id, node) = self.nodes.iter().find(|(id, _)| !self.wanted.contains_key(id))?;
        let others_vote = self.nodes.iter().any(|(other, node)| other != id && node.voter);
        match node.voter {
            false => Some(Step::RemoveLearner(*id)),
            true if self.somebody_learns() => None,
            true if others_vote => Some(Step::RemoveVoter(*id)),
            // The last voter stays: without it nothing could be committed ever again.
            true => None,
        }
    }
}

/// Keeps at it until the node stops.
pub(super) async fn keep(inner: Arc<Inner>) {
    loop {
        time::sleep(PERIOD).await;
        let metrics = inner.raft.metrics().borrow().clone();
        if metrics.running_state.is_err() {
            return;
        }
        if !leadership::leads(&metrics) || inner.paused.load(Ordering::Acquire) {
            continue;
        }
        if let Some(step) =
            inner.machine.read(|state| Seen::new(state, &metrics, |node| inner.hears(node))).next()
        {
            take(&inner, step).await;
        }
    }
}

async fn take(inner: &Inner, step: Step) {
    tracing::info!(?step, "the coordinators change");
    // Its own removal would leave the others to find out by a time-out that they have no leader.
    if step == Step::RemoveVoter(inner.node)
        && let Err(error) = inner.transfer(None).await
    {
        tracing::warn!(%error, "the leader that leaves could not hand over");
    } else if step == Step::RemoveVoter(inner.node) {
        return;
    }
    // Without a quorum openraft would wait for ever; the next look begins anew.
    match time::timeout(STEP_DEADLINE, change(&inner.raft, &step)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::warn!(?step, %error, "the step was not taken; it will be tried again"),
        Err(_) => tracing::warn!(?step, "the step is not committed yet; is a majority up?"),
    }
}

fn replaced(mut voters: BTreeSet<NodeId>, new: NodeId, old: NodeId) -> BTreeSet<NodeId> {
    voters.remove(&old);
    voters.insert(new);
    voters
}

impl Inner {
    /// Whether `node` is this one, or was heard lately.
    fn hears(&self, node: NodeId) -> bool {
        node == self.node || self.peers.answers(node)
    }

    /// As [`Inner::can_do_without`]; a node that has just begun is given the time to hear the others.
    pub async fn can_soon_do_without(&self, node: NodeId) -> Result<(), Refusal> {
        let deadline = time::Instant::now() + HEARING;
        loop {
            match self.can_do_without(node) {
                Err(_) if time::Instant::now() < deadline => time::sleep(PERIOD).await,
                answer => return answer,
            }
        }
    }

    /// Whether the voters that answer decide without `node` too.
    fn can_do_without(&self, node: NodeId) -> Result<(), Refusal> {
        let voters: BTreeSet<NodeId> =
            self.raft.metrics().borrow().membership_config.membership().voter_ids().collect();
        let rest: Vec<NodeId> = voters.iter().copied().filter(|voter| *voter != node).collect();
        let answer = rest.iter().filter(|voter| self.hears(**voter)).count();
        if !voters.contains(&node) || rest.is_empty() || answer > rest.len() / 2 {
            return Ok(());
        }
        let left = rest.len();
        let silent = self.silent().into_iter().filter(|silent| silent.node != node);
        let details = silent.map(|s| Fault::new(format!("coordinator {}", s.node), s.to_string())).collect();
        Err(Refusal::conflict(format!(
            "without coordinator {node}, {answer} of the {left} that are left answer: no majority could decide anything"
        ))
        .fix("bring back whoever does not answer, or replace it first: `novactl cluster replace`")
        .details(details))
    }
}

type Changed = Result<ClientWriteResponse<Types>, RaftError<NodeId, ClientWriteError<NodeId, Member>>>;

async fn change(raft: &Raft, step: &Step) -> Changed {
    let (changes, retain) = match *step {
        Step::AddLearner(node, member) => return raft.add_learner(node, member, false).await,
        // Adding nobody leads from a joint configuration to its later half.
        Step::Settle => (ChangeMembers::AddVoterIds(BTreeSet::new()), true),
        Step::Promote(node) => (ChangeMembers::AddVoterIds([node].into()), true),
        // openraft warns of this one: safe here, because a node's number stands in its certificate, so that at a
        // wrong address nobody is taken for it.
        Step::Move(node, member) => (ChangeMembers::SetNodes([(node, member)].into()), true),
        Step::Replace { new, old } => {
            let voters = raft.metrics().borrow().membership_config.membership().voter_ids().collect();
            (ChangeMembers::ReplaceAllVoters(replaced(voters, new, old)), false)
        }
        Step::RemoveVoter(node) => (ChangeMembers::RemoveVoters([node].into()), false),
        Step::RemoveLearner(node) => (ChangeMembers::RemoveNodes([node].into()), false),
    };
    raft.change_membership(changes, retain).await
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAST: u64 = 1000;

    fn seen(wanted: &[NodeId], nodes: &[(NodeId, bool, Option<u64>)]) -> Seen {
        Seen {
            wanted: wanted.iter().map(|id| (*id, Member::default())).collect(),
            nodes: nodes
                .iter()
                .map(|(id, voter, matched)| {
                    let answers = matched.is_some();
                    (*id, Node { voter: *voter, member: Member::default(), matched: *matched, answers })
                })
                .collect(),
            last_log: LAST,
            joint: false,
        }
    }

    #[test]
    fn a_new_coordinator_learns_before_it_votes() {
        let voter = (1, true, Some(LAST));
        assert_eq!(seen(&[1, 2], &[voter]).next(), Some(Step::AddLearner(2, Member::default())));
        assert_eq!(seen(&[1, 2], &[voter, (2, false, None)]).next(), None);
        assert_eq!(seen(&[1, 2], &[voter, (2, false, Some(LAST - CLOSE_ENOUGH - 1))]).next(), None);
        assert_eq!(seen(&[1, 2], &[voter, (2, false, Some(LAST - 1))]).next(), Some(Step::Promote(2)));
        assert_eq!(seen(&[1, 2], &[voter, (2, true, Some(LAST))]).next(), None);
    }

    #[test]
    fn a_removed_coordinator_leaves_but_the_last_voter_stays() {
        let three = [(1, true, Some(LAST)), (2, true, Some(LAST)), (3, false, None)];
        assert_eq!(seen(&[2, 3], &three).next(), Some(Step::RemoveVoter(1)));
        assert_eq!(seen(&[1, 2], &three).next(), Some(Step::RemoveLearner(3)));
        assert_eq!(seen(&[2], &[(1, true, Some(LAST))]).next(), Some(Step::AddLearner(2, Member::default())));
        assert_eq!(seen(&[2], &[(1, true, Some(LAST)), (2, false, None)]).next(), None);
    }

    #[test]
    fn one_comes_in_anothers_place_in_one_step_and_nobody_leaves_before() {
        let learns = [(1, true, Some(LAST)), (2, true, Some(LAST)), (3, true, None), (4, false, Some(5))];
        assert_eq!(seen(&[1, 2, 4], &learns).next(), None, "it has not got the log yet");
        let ready = [(1, true, Some(LAST)), (2, true, Some(LAST)), (3, true, None), (4, false, Some(LAST))];
        assert_eq!(seen(&[1, 2, 4], &ready).next(), Some(Step::Replace { new: 4, old: 3 }));
        assert_eq!(replaced([1, 2, 3].into(), 4, 3), [1, 2, 4].into());
        let silent = [(1, true, Some(LAST)), (2, true, Some(LAST)), (3, true, None), (4, false, None)];
        assert_eq!(seen(&[1, 2, 4], &silent).next(), Some(Step::RemoveVoter(3)), "the new one is gone again");
    }

    #[test]
    fn a_coordinator_that_moved_is_dialled_where_it_is_now() {
        let mut seen = seen(&[1], &[(1, true, Some(LAST))]);
        let elsewhere = Member { quic: ([10, 0, 0, 1], 8091).into(), ..Member::default() };
        seen.wanted.insert(1, elsewhere);
        assert_eq!(seen.next(), Some(Step::Move(1, elsewhere)));
    }

    #[test]
    fn a_change_that_was_left_half_way_is_finished_first() {
        let half_way = Seen { joint: true, ..seen(&[1, 2], &[(1, true, Some(LAST))]) };
        assert_eq!(half_way.next(), Some(Step::Settle));
    }

    #[test]
    fn a_cluster_that_is_being_founded_is_left_alone() {
        assert_eq!(seen(&[], &[(1, true, Some(LAST))]).next(), None);
    }
}
