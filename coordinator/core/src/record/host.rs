//! A hypervisor host as the ledger keeps it.

use novacron_common::{
    api::HostState,
    ids::HostId,
    record::{HostCapacity, HostHello},
    spec::Name,
    units::{ByteCount, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// One host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRecord {
    /// Its id, which its certificate carries.
    pub id: HostId,
    /// The name it joined with; unique.
    pub name: Name,
    /// Whether it is heard from.
    pub state: HostState,
    /// Whether new machines are kept off it.
    pub cordoned: bool,
    /// How it last introduced itself; `None` until its first session.
    pub hello: Option<HostHello>,
    /// What it can hold now (the hello's, or a later report's).
    pub capacity: HostCapacity,
    /// One-minute load average in thousandths.
    pub load_millis: u32,
    /// RAM that is available.
    pub memory_available: ByteCount,
    /// Domains on it that are none of ours.
    pub foreign_domains: Vec<String>,
    /// When it was last heard from (by the proposer's clock).
    pub last_seen: Option<UnixMillis>,
    /// When it joined.
    pub joined_at: UnixMillis,
}

impl HostRecord {
    /// Whether its agent is connected.
    pub fn is_up(&self) -> bool {
        self.state == HostState::Up
    }
}
