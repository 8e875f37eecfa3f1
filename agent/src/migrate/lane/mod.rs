//! Lanes: the connections of one migration, carried over one QUIC link between the two agents.
//!
//! ```text
//!  libvirtd, QEMU ──unix──▶ source agent ══ QUIC: one stream a connection ══▶ target agent ──unix──▶ libvirtd, QEMU
//! ```
//!
//! * [`sockets`]: the UNIX sockets, who may connect, and where they are;
//! * [`source`] listens on them and opens a lane for each connection;
//! * [`target`] checks the ticket of each lane and connects it onwards, the control lane through the filter;
//! * [`control`] is the control lane there;
//! * [`cold`] sends a stopped machine's disk as a file;
//! * [`relay`] copies bytes, and [`codec`] makes fewer of a memory lane's, within its [`budget`].

mod budget;
pub mod codec;
pub mod cold;
pub mod control;
pub mod relay;
pub mod sockets;
pub mod source;
pub mod target;

use novacron_common::{record::TransferCounts, wire::LaneKind};
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes by lane, both directions, counted while they pass.
#[derive(Debug, Default)]
pub struct Counters {
    memory: AtomicU64,
    disk: AtomicU64,
    control: AtomicU64,
}

impl Counters {
    /// The counter of one kind.
    pub fn of(&self, kind: LaneKind) -> &AtomicU64 {
        match kind {
            LaneKind::Control => &self.control,
            LaneKind::Memory => &self.memory,
            LaneKind::Disk => &self.disk,
        }
    }

    /// All of them, now.
    pub fn read(&self) -> TransferCounts {
        TransferCounts {
            memory_bytes: self.memory.load(Ordering::Relaxed),
            disk_bytes: self.disk.load(Ordering::Relaxed),
            control_bytes: self.control.load(Ordering::Relaxed),
        }
    }
}
