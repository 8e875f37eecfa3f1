//! Hosts over HTTP.

use crate::{
    ids::HostId,
    record::Accel,
    units::{ByteCount, UnixMillis},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Whether a host can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// Its agent is connected.
    Up,
    /// Its agent is not heard from.
    Down,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HostView {
    /// Its id.
    pub id: HostId,
    /// Its name.
    pub name: String,
    /// Whether it can be used.
    pub state: HostState,
    /// Whether new machines are kept off it.
    pub cordoned: bool,
    /// Where its agent serves QUIC.
    pub address: String,
    /// The agent's version.
    pub version: String,
    /// How KVM machines run there.
    pub accel: Accel,
    /// Logical processors.
    pub cpus: u32,
    /// RAM for machines.
    pub memory: ByteCount,
    /// RAM that machines placed there were promised.
    pub memory_reserved: ByteCount,
    /// Virtual CPUs that machines placed there were promised.
    pub cpus_reserved: u32,
    /// Disk for machines.
    pub storage: ByteCount,
    /// Disk that machines placed there were promised.
    pub storage_reserved: ByteCount,
    /// Machines placed there.
    pub vms: u32,
    /// Domains on it that are none of ours.
    pub foreign_domains: Vec<String>,
    /// One-minute load average.
    pub load: f32,
    /// When it was last heard from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_seen: Option<UnixMillis>,
}

/// Who a join token is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JoinTokenRole {
    /// A host's agent.
    #[default]
    Agent,
    /// One more coordinator.
    Coordinator,
}

/// `POST /api/v1/hosts/join-tokens`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinTokenCreate {
    /// For whom (default `agent`).
    #[serde(default)]
    pub role: JoinTokenRole,
    /// Seconds that it is good for (default 3600, at most a week).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u32>,
    /// The number of the coordinator in whose place the new one comes (coordinators only): as soon as the new one
    /// has the ledger, the old one is out, in one step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaces: Option<u64>,
}

/// Its answer: the only time that the token is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct JoinTokenCreated {
    /// `nvj1.…`: one use.
    pub token: String,
    /// After this it is worth nothing.
    pub expires_at: UnixMillis,
}
