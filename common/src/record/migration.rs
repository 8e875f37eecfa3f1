//! A migration as each of its two sides sees it.

use super::Climb;
use crate::{
    ids::{GangId, HostId, MigrationId, VmId},
    units::{ByteCount, Epoch, Generation, UnixMillis},
};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU8;
use utoipa::ToSchema;

/// The right to move one VM once, from one host to another. Issued by the coordinator with the commit that
/// starts the migration, held by both agents, spent by the first lane that presents it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The migration it is for.
    pub migration: MigrationId,
    /// The VM it is for.
    pub vm: VmId,
    /// The only host that may present it.
    pub source: HostId,
    /// The only host that may honour it.
    pub target: HostId,
    /// The epoch under which the source runs the VM.
    pub epoch: Epoch,
    /// The wish that its target takes over with the VM.
    pub generation: Generation,
    /// Whether the guest runs while it moves.
    pub live: bool,
    /// The machines with which it moves.
    pub gang: Option<GangId>,
    /// 256 random bits.
    pub secret: [u8; 32],
    /// After this it is worth nothing.
    pub expires_at: UnixMillis,
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ticket({} {} {}→{})", self.migration, self.vm, self.source, self.target)
    }
}

/// How far the source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboundState {
    /// This host knows nothing of it.
    Unknown,
    /// Lanes are opened and sockets are served.
    Connecting,
    /// libvirt copies disk and memory; the guest runs here.
    Copying(MigrationProgress),
    /// The copy does not converge, and waits for the hand-over to be committed before it goes over (post-copy). The guest
    /// still runs here, and is copied on.
    Poised(MigrationProgress),
    /// The guest went over: it runs at the target, and the rest of its memory follows (post-copy). Its processors never
    /// run here again.
    Split(MigrationProgress),
    /// That broke: this half is kept until the other can be reached.
    Stranded {
        /// How, for people.
        reason: String,
    },
    /// This half ended before all of it had crossed: nobody has the whole of the guest any more.
    Lost {
        /// How, for people.
        reason: String,
    },
    /// The copy ended and this host's domain is gone or shut off: observed, not inferred.
    Gone(MigrationReport),
    /// It ended and the guest still runs (or is stopped) here, as before.
    Back {
        /// Why, for people.
        reason: String,
        /// Whether it was cancelled on request.
        cancelled: bool,
        /// How far up the ladder it went.
        climb: Climb,
    },
    /// The hand-over is known here and what was left is cleaned up.
    Released,
}

/// How far the target is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum InboundState {
    /// This host knows nothing of it.
    Unknown,
    /// Images are fetched and disks are made.
    Preparing,
    /// Sockets are served and the filter is armed.
    Ready,
    /// The guest arrives.
    Receiving,
    /// The guest runs here, and the rest of its memory is still on the source (post-copy).
    Split,
    /// That broke: this half is kept until the other can be reached. The guest stands still as soon as it needs what is
    /// not here.
    Stranded {
        /// How, for people.
        reason: String,
    },
    /// What was here ended, or was given up, before all of it had arrived. The machine is here, stopped.
    Lost {
        /// How, for people.
        reason: String,
    },
    /// The guest is here, complete and paused.
    Arrived,
    /// The guest runs here under its new epoch.
    Running,
    /// It ended and nothing of it is left here.
    Discarded {
        /// Why, for people.
        reason: String,
    },
}

/// One side's word on one migration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SideState {
    /// From the source.
    Outbound(OutboundState),
    /// From the target.
    Inbound(InboundState),
}

/// How far the copy is (libvirt's job statistics and the relay's own counts).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationProgress {
    /// 0 to 1000.
    pub permille: u16,
    /// Counted by the relay.
    pub counts: TransferCounts,
    /// Bytes still to be sent, as QEMU estimates.
    pub remaining_bytes: u64,
    /// The relay's rate over the last second, in bytes a second.
    pub rate: u64,
    /// Passes over RAM so far.
    pub iteration: u64,
    /// Pages that the guest dirties each second.
    pub dirty_pages_per_second: u64,
    /// Estimated time to the end, milliseconds.
    pub remaining_ms: Option<u64>,
    /// The link between the two agents is lost just now, and waited for.
    pub link_lost: bool,
    /// How often it was lost and came back.
    pub cuts: u32,
    /// How far up the ladder it is.
    pub climb: Climb,
}

/// Pages of a machine's memory that were sent one way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SentPages {
    /// How many.
    pub pages: u64,
    /// What they took before compression, bytes.
    pub bytes: u64,
}

/// How a machine's memory was sent, a page that was sent again counted again. See `agent/codec/CODEC.md`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MemoryTraffic {
    /// What QEMU wrote, bytes.
    pub written_bytes: u64,
    /// What crossed the wire for it, bytes.
    pub wire_bytes: u64,
    /// As they are.
    pub raw: SentPages,
    /// Pages of zeros.
    pub zero: SentPages,
    /// As a reference to a page that was sent before.
    pub reference: SentPages,
    /// As edits of the version that was sent before.
    pub delta: SentPages,
    /// As a reference to one that the target held before the migration began.
    pub held: SentPages,
    /// What the target took to tell what it holds, bytes.
    pub offer_bytes: u64,
    /// What is no page: headers, commands, the state of devices; bytes.
    pub other_bytes: u64,
    /// What went into compression, of all kinds, bytes.
    pub compressed_from_bytes: u64,
    /// What came out of it, bytes.
    pub compressed_to_bytes: u64,
}

impl MemoryTraffic {
    /// The kinds of pages by name.
    pub const fn kinds(&self) -> [(&'static str, SentPages); 5] {
        [
            ("raw", self.raw),
            ("zero", self.zero),
            ("reference", self.reference),
            ("delta", self.delta),
            ("held", self.held),
        ]
    }
}

/// Bytes by lane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransferCounts {
    /// RAM and device state, and what the target told of what it holds.
    pub memory_bytes: u64,
    /// How that was sent; nothing on the target's side, which does not choose.
    pub memory: MemoryTraffic,
    /// Disks.
    pub disk_bytes: u64,
    /// libvirt's control connection.
    pub control_bytes: u64,
}

impl TransferCounts {
    /// All lanes together.
    pub fn total(&self) -> u64 {
        self.memory_bytes + self.disk_bytes + self.control_bytes
    }
}

/// What a disk holds over the image below it, for comparison with its copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskDigest {
    /// Of its content, by places in the disk.
    pub sha256: [u8; 32],
    /// How much of that is data, and was read.
    pub data: ByteCount,
}

/// What the source reports at the end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationReport {
    /// Counted by the relay.
    pub counts: TransferCounts,
    /// From the first lane to the source observed gone, milliseconds.
    pub copy_ms: u64,
    /// QEMU's own figure for the pause, milliseconds (it leaves out the hand-over).
    pub qemu_downtime_ms: Option<u64>,
    /// Passes over RAM.
    pub iterations: u64,
    /// How often the link between the two agents was lost and came back.
    pub cuts: u32,
    /// How far up the ladder it went.
    pub climb: Climb,
    /// What its disk held when it had left, if that was to be compared.
    pub disk: Option<DiskDigest>,
    /// On how many channels memory crossed beside the main one.
    pub channels: Option<NonZeroU8>,
}
