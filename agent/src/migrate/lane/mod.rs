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
//! * [`offer`] tells the source what the target holds of the machine already;
//! * [`cold`] sends a stopped machine's disk as a file;
//! * [`relay`] copies bytes, and [`codec`] makes fewer of a memory lane's, [`packing`] several batches at once, within its
//!   [`budget`].

mod budget;
pub mod codec;
pub mod cold;
pub mod control;
pub mod offer;
pub mod packing;
pub mod relay;
pub mod road;
pub mod sockets;
pub mod source;
pub mod target;

use novacron_codec::{Kind, Stats};
use novacron_common::{
    record::{MemoryTraffic, SentPages, TransferCounts},
    wire::LaneKind,
};
use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// Bytes by lane, both directions, counted while they pass; and how the encoders of memory lanes sent theirs.
#[derive(Debug, Default)]
pub struct Counters {
    memory: AtomicU64,
    encoded: Mutex<BTreeMap<u8, Stats>>,
    disk: AtomicU64,
    control: AtomicU64,
    held: AtomicU64,
}

impl Counters {
    /// The counter of one kind.
    pub fn of(&self, kind: LaneKind) -> &AtomicU64 {
        match kind {
            LaneKind::Control => &self.control,
            LaneKind::Memory => &self.memory,
            LaneKind::Disk => &self.disk,
            LaneKind::Held => &self.held,
        }
    }

    /// Memory lane `lane` has sent so much until now.
    pub fn encoded(&self, lane: u8, stats: &Stats) {
        self.encoded.lock().unwrap_or_else(PoisonError::into_inner).insert(lane, *stats);
    }

    fn traffic(&self) -> MemoryTraffic {
        let encoded = self.encoded.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = Stats::default();
        encoded.values().for_each(|stats| all.add(stats));
        MemoryTraffic {
            written_bytes: all.plain,
            wire_bytes: all.wire,
            raw: sent(all.raw),
            zero: sent(all.zero),
            reference: sent(all.reference),
            delta: sent(all.delta),
            held: sent(all.held),
            offer_bytes: self.held.load(Ordering::Relaxed),
            other_bytes: all.other_bytes,
            compressed_from_bytes: all.compressed_from,
            compressed_to_bytes: all.compressed_to,
        }
    }

    /// All of them, now. What an offer took is memory's: it is sent so that less memory is.
    pub fn read(&self) -> TransferCounts {
        let memory = self.traffic();
        TransferCounts {
            memory_bytes: self.memory.load(Ordering::Relaxed) + memory.offer_bytes,
            memory,
            disk_bytes: self.disk.load(Ordering::Relaxed),
            control_bytes: self.control.load(Ordering::Relaxed),
        }
    }
}

fn sent(kind: Kind) -> SentPages {
    let Kind { pages, bytes } = kind;
    SentPages { pages, bytes }
}
