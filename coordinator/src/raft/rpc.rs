//! What coordinators say to each other on `Raft` and `Forward` streams.

use super::{
    transfer::{TransferError, Transferred},
    types::{LogId, NodeId, Types},
};
use novacron_common::units::UnixMillis;
use novacron_core::{Applied, CommandBody};
use openraft::{
    error::SnapshotMismatch,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse,
        VoteRequest, VoteResponse,
    },
};
use serde::{Deserialize, Serialize};

/// One Raft RPC.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RaftRequest {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<NodeId>),
    Snapshot(InstallSnapshotRequest<Types>),
}

impl RaftRequest {
    /// The node that a request claims to come from: the leader or candidate in its vote.
    pub fn sender(&self) -> Option<NodeId> {
        let vote = match self {
            Self::Append(request) => &request.vote,
            Self::Vote(request) => &request.vote,
            Self::Snapshot(request) => &request.vote,
        };
        vote.leader_id.voted_for()
    }
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum RaftReply {
    Append(AppendEntriesResponse<NodeId>),
    Vote(VoteResponse<NodeId>),
    Snapshot(InstallSnapshotResponse<NodeId>),
    /// A chunk of a snapshot came out of order.
    Mismatch(SnapshotMismatch),
    /// The node is stopping or its store has failed; the details are in its own log.
    Down,
}

/// What a follower asks of the leader.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ForwardRequest {
    /// Propose these; the leader stamps them.
    Propose(Vec<CommandBody>),
    /// Up to which index must I have applied, so that what I read is not stale?
    ReadIndex,
    /// What does your clock say? Any coordinator answers.
    Clock,
    /// Hand leadership over.
    Transfer {
        /// To whom; to anybody if left out.
        to: Option<NodeId>,
    },
    /// Stand for election: the leader wants to lead no more. Asked of a voter.
    Campaign,
    /// Would you vote for me? Asked of every voter before an election.
    Endorse {
        /// The end of the log of the one that asks.
        last_log: Option<LogId>,
    },
}

/// Its answer.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ForwardReply {
    /// What came of each.
    Applied {
        /// Where they are in the log.
        index: u64,
        /// In their order.
        outcomes: Vec<Applied>,
    },
    /// Up to this index.
    ReadIndex(u64),
    /// Not the leader (any more); nothing was proposed.
    NotLeader,
    /// Nothing was proposed: too many wait, or no quorum answers.
    Unavailable,
    /// It was proposed, and what came of it is not known.
    Unknown,
    /// It says so.
    Clock(UnixMillis),
    /// How it went.
    Transferred(Result<Transferred, TransferError>),
    /// It stands for election.
    Standing,
    /// Whether it would vote for the one that asks.
    Endorsed(bool),
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::wire::codec;

    const PAGE: &str = include_str!("../../../common/src/wire/PROTOCOL.md");

    #[test]
    fn questions_keep_their_numbers_and_are_in_the_protocols_page() {
        let numbered = [
            ("Propose(commands)", ForwardRequest::Propose(Vec::new())),
            ("ReadIndex", ForwardRequest::ReadIndex),
            ("Clock", ForwardRequest::Clock),
            ("Transfer { to }", ForwardRequest::Transfer { to: None }),
            ("Campaign", ForwardRequest::Campaign),
            ("Endorse { last_log }", ForwardRequest::Endorse { last_log: None }),
        ];
        for (number, (name, request)) in numbered.into_iter().enumerate() {
            let bytes = codec::encode(&request).unwrap();
            assert_eq!(usize::from(bytes[0]), number, "{request:?}");
            assert!(PAGE.contains(&format!("| `{name}` | {number} |")), "{name} is not in PROTOCOL.md");
        }
    }
}
