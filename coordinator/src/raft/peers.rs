//! What this coordinator hears of each other one: whether it answers, and what its clock says. A small question to
//! everybody twice a second; who is silent is named where something cannot be done without them.

use super::{
    clock::{self, ClockSample, ClockVerdict},
    forward,
    ledger::Inner,
    rpc::{ForwardReply, ForwardRequest},
    types::{Member, NodeId},
};
use novacron_runtime::{
    task::JoinSet,
    time::{self, Instant},
};
use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// How often everybody is asked.
const PERIOD: Duration = Duration::from_millis(500);
/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(1);
/// Whoever was not heard for so long counts as unreachable: two questions in a row had no answer.
pub(super) const SILENCE_MAX: Duration = Duration::from_millis(1600);

/// A coordinator that does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Silent {
    /// Its number.
    pub node: NodeId,
    /// Where it was asked.
    pub at: std::net::SocketAddr,
    /// For how long; `None` if it was never heard.
    pub since: Option<Duration>,
}

impl fmt::Display for Silent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "coordinator {} ({}) ", self.node, self.at)?;
        match self.since {
            Some(since) => write!(f, "has not answered for {:.1} s", since.as_secs_f64()),
            None => write!(f, "has not answered yet"),
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Heard {
    at: Instant,
    sample: ClockSample,
}

/// What was heard last of each.
#[derive(Debug, Default)]
pub(super) struct Peers(Mutex<BTreeMap<NodeId, Heard>>);

impl Peers {
    fn with<R>(&self, look: impl FnOnce(&mut BTreeMap<NodeId, Heard>) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn hear(&self, node: NodeId, sample: ClockSample) {
        self.with(|heard| heard.insert(node, Heard { at: Instant::now(), sample }));
    }

    /// How long ago `node` was last heard.
    pub fn silence(&self, node: NodeId) -> Option<Duration> {
        self.with(|heard| heard.get(&node).map(|heard| heard.at.elapsed()))
    }

    /// Whether `node` has answered lately.
    pub fn answers(&self, node: NodeId) -> bool {
        self.silence(node).is_some_and(|silence| silence <= SILENCE_MAX)
    }

    /// How far the clock of `node` is ahead of ours, if it was compared lately.
    pub fn clock_ahead_ms(&self, node: NodeId) -> Option<i64> {
        let sample = self.recent().get(&node).copied()?;
        (!sample.is_vague()).then_some(sample.ahead_ms)
    }

    fn recent(&self) -> BTreeMap<NodeId, ClockSample> {
        self.with(|heard| {
            let recent = heard.iter().filter(|(_, heard)| heard.at.elapsed() <= SILENCE_MAX);
            recent.map(|(node, heard)| (*node, heard.sample)).collect()
        })
    }
}

impl Inner {
    /// Every other coordinator of the cluster, voter or not.
    pub fn others(&self) -> Vec<(NodeId, Member)> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let nodes = metrics.membership_config.membership().nodes();
        nodes.filter(|(node, _)| **node != self.node).map(|(node, member)| (*node, *member)).collect()
    }

    /// The other coordinators that do not answer now.
    pub fn silent(&self) -> Vec<Silent> {
        let silent = |(node, member): (NodeId, Member)| {
            let since = self.peers.silence(node);
            let gone = since.is_none_or(|since| since > SILENCE_MAX);
            gone.then_some(Silent { node, at: member.quic, since })
        };
        self.others().into_iter().filter_map(silent).collect()
    }

    /// How long ago `node` was last heard; zero for this one.
    pub fn silence(&self, node: NodeId) -> Option<Duration> {
        if node == self.node { Some(Duration::ZERO) } else { self.peers.silence(node) }
    }

    /// How far the clock of `node` is ahead of this node's, if that is known.
    pub fn clock_ahead_ms(&self, node: NodeId) -> Option<i64> {
        if node == self.node { Some(0) } else { self.peers.clock_ahead_ms(node) }
    }

    /// Whether so many voters have been silent that nobody can lead: waiting for the deadline would not help. A node
    /// that has just begun has not had the time to hear anybody, and neither has one whose cluster has just grown: see
    /// [`super::commit`].
    pub fn majority_is_silent(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let voters: Vec<NodeId> = metrics.membership_config.membership().voter_ids().collect();
        let heard = voters.iter().filter(|node| **node == self.node || self.peers.answers(**node)).count();
        self.began.elapsed() > SILENCE_MAX * 2 && heard <= voters.len() / 2
    }

    /// What the other voters say of this node's clock.
    pub fn clock(&self) -> ClockVerdict {
        let voters: Vec<NodeId> = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            metrics.membership_config.membership().voter_ids().collect()
        };
        clock::judge(self.node, &voters, &self.peers.recent())
    }
}

/// Asks everybody, again and again, until the node stops.
pub(super) async fn keep(inner: Arc<Inner>) {
    let mut questions = JoinSet::new();
    loop {
        // One that does not answer must not hold up the others; at most two questions to each are open.
        while questions.try_join_next().is_some() {}
        for (node, member) in inner.others() {
            questions.spawn(ask(inner.clone(), node, member));
        }
        time::sleep(PERIOD).await;
    }
}

async fn ask(inner: Arc<Inner>, node: NodeId, member: Member) {
    let address = member.address(node);
    let (asked, began) = (crate::identity::now(), Instant::now());
    let deadline = began + DEADLINE;
    if let Ok(ForwardReply::Clock(theirs)) =
        forward::exchange(&inner, &address, &ForwardRequest::Clock, deadline).await
    {
        inner.peers.hear(node, ClockSample::new(asked.0, theirs.0, began.elapsed()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_silent_for_long_does_not_count() {
        let peers = Peers::default();
        assert!(!peers.answers(2));
        peers.hear(2, ClockSample { ahead_ms: 7, uncertainty: Duration::ZERO });
        assert!(peers.answers(2));
        assert_eq!(peers.clock_ahead_ms(2), Some(7));
        let long_ago = Instant::now() - SILENCE_MAX - Duration::from_millis(1);
        peers.with(|heard| heard.get_mut(&2).unwrap().at = long_ago);
        assert!(!peers.answers(2));
        assert_eq!(peers.clock_ahead_ms(2), None);
        assert!(peers.silence(2) > Some(SILENCE_MAX));
    }

    #[test]
    fn a_silent_one_is_named_with_its_address() {
        let at = ([10, 0, 0, 2], 8091).into();
        let silent = Silent { node: 2, at, since: Some(Duration::from_millis(3210)) };
        assert_eq!(silent.to_string(), "coordinator 2 (10.0.0.2:8091) has not answered for 3.2 s");
        assert!(Silent { since: None, ..silent }.to_string().ends_with("has not answered yet"));
    }
}
