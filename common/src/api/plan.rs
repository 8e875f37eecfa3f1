//! A move that is only thought of: the answer to `POST /api/v1/vms/{id}/migrate?dry_run=true`.

use crate::{
    ids::{HostId, VmId},
    record::{DirtyRate, Forecast, MoveLimits, PreflightFault},
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Query of `POST /api/v1/vms/{id}/migrate`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct MigrateQuery {
    /// `true`: nothing is begun and nothing reserved; the answer is a `MigrationPlan`. It takes some seconds, for which the
    /// guest and the ways to the candidates are measured.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a move would take, host by host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MigrationPlan {
    /// What would move.
    pub vm: VmId,
    /// Its name.
    pub name: String,
    /// From where.
    pub source_host: HostId,
    /// Running or stopped.
    pub live: bool,
    /// What it would have to keep to.
    pub limits: MoveLimits,
    /// The guest.
    pub guest: PlannedGuest,
    /// Where it could go: the one that would be chosen first, then those that could take it, then the others.
    pub candidates: Vec<Candidate>,
}

/// The guest of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedGuest {
    /// Its memory, bytes.
    pub memory_bytes: u64,
    /// Of that in use, as libvirt tells; `null` if it does not.
    pub in_use_bytes: Option<u64>,
    /// What its disk holds beyond its template, bytes.
    pub disk_bytes: u64,
    /// How fast it writes to its memory, measured just now; `null` if that failed, or it does not run.
    pub dirty: Option<DirtyRate>,
    /// What could not be measured, and why.
    pub notes: Vec<String>,
}

/// A host of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Candidate {
    /// Which.
    pub host: HostId,
    /// Its name.
    pub name: String,
    /// Whether the move would go there: it was asked for, or the placement chooses it.
    pub chosen: bool,
    /// Whether nothing certain speaks against it.
    pub possible: bool,
    /// What speaks against it.
    pub faults: Vec<PreflightFault>,
    /// The way there, from the machine's host.
    pub link: PlannedLink,
    /// What the move would take; `null` if it is not possible.
    pub forecast: Option<Forecast>,
}

/// The way from the machine's host to a candidate.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedLink {
    /// Bytes a second; `null` if not measured.
    pub rate: Option<u64>,
    /// There and back, microseconds; `null` if not measured.
    pub round_trip_us: Option<u64>,
    /// Why something was not measured.
    pub note: Option<String>,
}

/// What a move took, beside its forecast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Actual {
    /// From the request to the end, milliseconds.
    pub total_ms: u64,
    /// How long the guest stood still, milliseconds: QEMU's own figure, which leaves out the hand-over. `null` if it gave none.
    pub blackout_ms: Option<u64>,
    /// What crossed the wire, bytes.
    pub wire_bytes: u64,
}
