//! What agents observe and report, and what the ledger keeps of it. Shared by wire and ledger; bincode only.

mod attempt;
mod forecast;
mod host;
mod migration;
mod statistics;
mod strategy;
mod vm;
mod volume;

pub use attempt::{AttemptEnd, AttemptOutcome, AttemptReport, Output};
pub use forecast::{
    Basis, DirtyRate, Forecast, GuestMeasure, GuestTraits, Interval, LinkMeasure, PreflightFault,
    PreflightKind,
};
pub use host::{Accel, HostAddresses, HostCapacity, HostHello, HostStatus};
pub use migration::{
    DiskDigest, InboundState, MemoryTraffic, MigrationProgress, MigrationReport, OutboundState, SentPages,
    SideState, Ticket, TransferCounts,
};
pub use statistics::{DiskTraffic, NetworkTraffic, VmStatistics};
pub use strategy::{Climb, Limit, MoveLimits, Rung, Strategy, bytes_per_second};
pub use vm::{HealthState, Progress, VmAction, VmAssignment, VmObservation, VmState};
pub use volume::VolumeSeen;
