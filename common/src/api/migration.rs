//! Migrations over HTTP.

use super::Actual;
use crate::{
    ids::{GangId, HostId, MigrationId, VmId},
    record::{Climb, Forecast, MemoryTraffic, MoveLimits},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use std::num::NonZeroU8;
use utoipa::ToSchema;

/// Where a migration is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum MigrationState {
    /// Committed; nothing was done yet.
    Pending,
    /// The target gets ready.
    Preparing,
    /// Disk and memory are copied; the guest runs on the source.
    Copying,
    /// The source is observed gone, the target holds the guest paused; or, before post-copy, both are ready for it. The
    /// hand-over is about to be committed.
    HandingOver,
    /// What is left on the source is removed; the guest runs on the target. In post-copy, the rest of its memory still
    /// follows.
    Finishing,
    /// Post-copy broke: a half of the guest is on each host, and neither can go on. Both are kept until the hosts reach
    /// each other again.
    Stranded,
    /// Fully there.
    Completed,
    /// What was begun is undone; the guest is on the source.
    Reverting,
    /// Fully back.
    Failed,
    /// Fully back, on request.
    Cancelled,
    /// Post-copy broke, and one half of the guest is gone. The machine is on the target, as after a loss of power.
    Lost,
}

impl MigrationState {
    /// Whether nothing more will happen.
    pub const fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled | Self::Lost)
    }
}

/// How it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MigrationStatus {
    /// Where it is.
    pub state: MigrationState,
    /// When it was asked for.
    pub start_time: UnixMillis,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_time: Option<UnixMillis>,
    /// 0 to 100.
    pub progress_pct: f32,
    /// For people.
    pub message: String,
}

/// A migration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MigrationView {
    /// Its id.
    pub id: MigrationId,
    /// What moves.
    pub vm: VmId,
    /// From where.
    pub source_host: HostId,
    /// To where.
    pub target_host: HostId,
    /// Running or stopped.
    pub live: bool,
    /// The machines with which it moves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gang: Option<GangId>,
    /// What it has to keep to.
    #[serde(default)]
    pub limits: MoveLimits,
    /// How far up the ladder of means it went to keep to that.
    #[serde(default)]
    pub climb: Climb,
    /// How it is.
    pub status: MigrationStatus,
    /// RAM and device state, bytes.
    pub memory_bytes: u64,
    /// How memory was sent, by the source's count.
    #[serde(default)]
    pub memory: MemoryTraffic,
    /// Disks, bytes.
    pub disk_bytes: u64,
    /// All lanes, bytes.
    pub total_bytes: u64,
    /// Bytes a second, now.
    pub rate: u64,
    /// Passes over RAM.
    pub iteration: u64,
    /// Pages that the guest dirties each second.
    pub dirty_pages_per_second: u64,
    /// Bytes still to be sent, as QEMU estimates.
    pub remaining_bytes: u64,
    /// Estimated time to the end, milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_ms: Option<u64>,
    /// QEMU's own figure for the pause, milliseconds (it leaves out the hand-over).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qemu_downtime_ms: Option<u64>,
    /// How often the link between the two hosts was lost and came back.
    #[serde(default)]
    pub cuts_survived: u32,
    /// On how many channels its memory crossed beside QEMU's main one, each on a connection of its own; absent: on that alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u8>, minimum = 1)]
    pub memory_channels: Option<NonZeroU8>,
    /// How much data of its disk was read on both hosts and was the same, bytes; once it has arrived, and if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared_bytes: Option<u64>,
    /// What it was expected to take when it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forecast: Option<Forecast>,
    /// What it took, once it has arrived.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<Actual>,
    /// Why the target was chosen, if the placement chose it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub placement: Option<String>,
}
