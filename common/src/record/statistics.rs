//! What a machine has used since it was started.

use crate::units::{ByteCount, UnixMillis};
use serde::{Deserialize, Serialize};

/// What is counted of a machine; zeros where it does not run. The counters begin with its start and grow: what it uses in a
/// second is the difference of two, over the difference of their `at`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct VmStatistics {
    /// When they were read, by the host's clock.
    pub at: UnixMillis,
    /// Processor time, milliseconds.
    pub cpu_ms: u64,
    /// Resident memory, bytes. That of a namespace machine includes the files that it has in the page cache.
    pub memory: ByteCount,
    /// Processes and threads; null for a KVM machine, whose guest alone knows.
    pub processes: Option<u64>,
    /// Of its own disk; null where it has none.
    pub disk: Option<DiskTraffic>,
    /// Of its network cards together; null where it has none.
    pub network: Option<NetworkTraffic>,
}

impl VmStatistics {
    /// Of a machine that does not run.
    pub const fn none(at: UnixMillis) -> Self {
        Self { at, cpu_ms: 0, memory: ByteCount(0), processes: None, disk: None, network: None }
    }
}

/// What went between a machine and its disk.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct DiskTraffic {
    /// Bytes read.
    pub read: ByteCount,
    /// Requests to read.
    pub reads: u64,
    /// Bytes written.
    pub written: ByteCount,
    /// Requests to write.
    pub writes: u64,
}

/// What went between a machine and its network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct NetworkTraffic {
    /// Bytes received.
    pub received: ByteCount,
    /// Packets received.
    pub packets_received: u64,
    /// Bytes sent.
    pub sent: ByteCount,
    /// Packets sent.
    pub packets_sent: u64,
}
