//! The types with which openraft is instantiated.

use novacron_common::{units::UnixMillis, wire::CoordinatorAddress};
use novacron_core::{Applied, Change, Command};
use serde::{Deserialize, Serialize};
use std::net::{Ipv4Addr, SocketAddr};

/// A Raft node number. 1 is the founder; numbers are never used again.
pub type NodeId = u64;

/// One log entry's payload: commands that were proposed at about the same time and share one disk sync
/// (group commit). Each is applied by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Commands(pub Vec<Command>);

/// What came of each of an entry's commands, in order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcomes(pub Vec<Applied>);

/// Where a coordinator is reached; part of Raft's membership, so that replication does not depend on the state
/// that it replicates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// QUIC.
    pub quic: SocketAddr,
    /// HTTP API.
    pub http: SocketAddr,
}

impl Member {
    /// Its addresses, as those of node `node`.
    pub(super) const fn address(self, node: NodeId) -> CoordinatorAddress {
        CoordinatorAddress { node, quic: self.quic, http: self.http }
    }
}

/// An address that nobody has; openraft wants a default and never dials it.
impl Default for Member {
    fn default() -> Self {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
        Self { quic: nowhere, http: nowhere }
    }
}

openraft::declare_raft_types!(
    /// NovaCron's instance of openraft.
    pub Types:
        D = Commands,
        R = Outcomes,
        NodeId = NodeId,
        Node = Member,
        Entry = openraft::Entry<Types>,
        SnapshotData = std::io::Cursor<Vec<u8>>,
        AsyncRuntime = super::runtime::Runtime,
);

/// The running node.
pub(crate) type Raft = openraft::Raft<Types>;
pub(crate) type Entry = openraft::Entry<Types>;
pub(crate) type LogId = openraft::LogId<NodeId>;
pub(crate) type Vote = openraft::Vote<NodeId>;
pub(crate) type StorageError = openraft::StorageError<NodeId>;
pub(crate) type StorageIoError = openraft::StorageIOError<NodeId>;
pub(crate) type StoredMembership = openraft::StoredMembership<NodeId, Member>;
pub(crate) type SnapshotMeta = openraft::SnapshotMeta<NodeId, Member>;

/// What one log entry did to the state. Sent to whoever subscribed, after it is applied.
#[derive(Debug, Clone)]
pub struct Committed {
    /// The entry's index in the log.
    pub index: u64,
    /// The entry's time stamp.
    pub at: UnixMillis,
    /// The rows that it wrote or removed.
    pub changes: Vec<Change>,
    /// The whole state was replaced by a snapshot: read everything anew.
    pub reset: bool,
}
