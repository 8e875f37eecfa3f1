//! A machine as its host sees it.

use crate::{
    ids::VmId,
    spec::{StopTerms, VmSpec},
    units::{ByteCount, Epoch, Generation, UnixMillis},
};
use serde::{Deserialize, Serialize};

/// Where a machine is in its life, as observed on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum VmState {
    /// Asked for; no host has reported it yet.
    Pending,
    /// Its images are fetched and its disk is made.
    Preparing,
    /// Its processors run.
    Running,
    /// Its processors are held (a migration's target, or an operator).
    Paused,
    /// It has been asked to shut down.
    Stopping,
    /// Defined, not running.
    Stopped,
    /// It could not be made or started; the message says why.
    Failed,
    /// The host that should have it says it does not.
    Missing,
    /// Its host is not heard from.
    Unknown,
}

/// Whether a machine that runs is well, by its health check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HealthState {
    /// It has not been found well yet, nor failed often enough.
    Starting,
    /// Its check succeeds.
    Healthy,
    /// Its check has failed as often as it may, and not succeeded since.
    Unhealthy,
}

/// What the coordinator wants of one machine on one host. Idempotent: sent again after every reconnect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmAssignment {
    /// Which.
    pub vm: VmId,
    /// The right to run it; an agent refuses an assignment below the highest epoch that it has seen.
    pub epoch: Epoch,
    /// The wish that it carries; within an epoch an agent refuses one below the highest that it has seen.
    pub generation: Generation,
    /// What it is.
    pub spec: VmSpec,
    /// What is wanted of it.
    pub action: VmAction,
}

impl VmAssignment {
    /// Whether `other` was committed after it.
    pub fn is_older_than(&self, other: &Self) -> bool {
        (self.epoch, self.generation) < (other.epoch, other.generation)
    }
}

/// What is wanted of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmAction {
    /// Make it if need be, and run it.
    Run,
    /// Make it if need be, and have it stopped.
    Stop(StopTerms),
    /// Stop and run again. `request` makes it once-only: the same number is never acted on twice.
    Restart {
        /// Raised by each request to restart.
        request: u64,
        /// How it is stopped.
        stop: StopTerms,
    },
    /// Stop it, and remove it with its disk.
    Delete,
}

/// How far a fetch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Progress {
    /// Bytes that are here.
    pub received: ByteCount,
    /// Bytes in all, where the source says so.
    pub total: Option<ByteCount>,
}

/// One machine on one host, now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmObservation {
    /// Which.
    pub vm: VmId,
    /// The epoch under which the host holds it.
    pub epoch: Epoch,
    /// The last wish that the host had heard when it saw this.
    pub generation: Generation,
    /// What it does.
    pub state: VmState,
    /// Whether it is well, where it is asked.
    pub health: Option<HealthState>,
    /// Why, where `state` and `health` alone do not say (at most 512 bytes).
    pub message: Option<String>,
    /// How far the fetch of an image is, while it is prepared.
    pub progress: Option<Progress>,
    /// The guest's addresses, as far as the host can see them.
    pub addresses: Vec<std::net::IpAddr>,
    /// The last restart request that was carried out.
    pub restarted: u64,
    /// Whether the guest has run since the host heard that it is to: if it is stopped now, it stopped by itself.
    pub ran: bool,
    /// Processor time used, in milliseconds, since it was started.
    pub cpu_ms: u64,
    /// Resident memory.
    pub memory: ByteCount,
    /// When `state` was entered, by the host's clock.
    pub since: UnixMillis,
}
