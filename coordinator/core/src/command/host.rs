//! Commands about hosts.

use novacron_common::{
    ids::HostId,
    record::HostCapacity,
    units::{ByteCount, Incarnation, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// See [`super::CommandBody::HostSeen`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostSeen {
    /// Which.
    pub host: HostId,
    /// The agent's life that reports.
    pub incarnation: Incarnation,
    /// What it can hold now.
    pub capacity: HostCapacity,
    /// One-minute load average in thousandths.
    pub load_millis: u32,
    /// RAM that is available.
    pub memory_available: ByteCount,
    /// Domains on it that are none of ours.
    pub foreign_domains: Vec<String>,
}

/// See [`super::CommandBody::HostDown`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDown {
    /// Which.
    pub host: HostId,
    /// Nothing was heard since. If the ledger knows of a later sign of life, the command changes nothing.
    pub silent_since: UnixMillis,
}

/// See [`super::CommandBody::HostCordon`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostCordon {
    /// Which.
    pub host: HostId,
    /// Whether new machines are kept off.
    pub cordoned: bool,
}

/// See [`super::CommandBody::HostRemove`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRemove {
    /// Which.
    pub host: HostId,
    /// Remove it although machines, attempts or migrations are on it: the operator vouches that it is off and
    /// stays off. Its machines lose their place and, with the host, their disks: given another place, they begin
    /// from their template.
    pub force: bool,
}
