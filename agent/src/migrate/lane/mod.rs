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
//! * [`connection`] is a socket with its lane, and [`saved`] all of them as an agent leaves them to its successor;
//! * [`relay`] copies bytes, and [`codec`] makes fewer of a memory lane's, [`packing`] several batches at once, within its
//!   [`budget`].

mod budget;
pub mod codec;
pub mod cold;
pub mod connection;
pub mod control;
pub mod offer;
pub mod packing;
pub mod relay;
pub mod road;
pub mod saved;
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
    /// What a predecessor sent of memory.
    before: MemoryTraffic,
    disk: AtomicU64,
    control: AtomicU64,
    held: AtomicU64,
}

impl Counters {
    /// That go on behind what a predecessor counted.
    pub fn behind(before: TransferCounts) -> Self {
        let TransferCounts { memory_bytes, memory, disk_bytes, control_bytes } = before;
        Self {
            memory: AtomicU64::new(memory_bytes - memory.offer_bytes.min(memory_bytes)),
            encoded: Mutex::default(),
            before: memory,
            disk: AtomicU64::new(disk_bytes),
            control: AtomicU64::new(control_bytes),
            held: AtomicU64::new(memory.offer_bytes),
        }
    }

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
        let before = &self.before;
        MemoryTraffic {
            written_bytes: before.written_bytes + all.plain,
            wire_bytes: before.wire_bytes + all.wire,
            raw: sent(before.raw, all.raw),
            zero: sent(before.zero, all.zero),
            reference: sent(before.reference, all.reference),
            delta: sent(before.delta, all.delta),
            held: sent(before.held, all.held),
            offer_bytes: self.held.load(Ordering::Relaxed),
            other_bytes: before.other_bytes + all.other_bytes,
            compressed_from_bytes: before.compressed_from_bytes + all.compressed_from,
            compressed_to_bytes: before.compressed_to_bytes + all.compressed_to,
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

fn sent(before: SentPages, kind: Kind) -> SentPages {
    SentPages { pages: before.pages + kind.pages, bytes: before.bytes + kind.bytes }
}
