//! The cluster, its health and its API tokens over HTTP.

use crate::{
    ids::{ClusterId, TokenId},
    units::UnixMillis,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One coordinator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CoordinatorView {
    /// Its Raft node number.
    pub node: u64,
    /// Its name; empty until the ledger has told it.
    pub name: String,
    /// QUIC.
    pub quic: String,
    /// HTTP API.
    pub http: String,
    /// Whether it votes.
    pub voter: bool,
    /// Whether it leads.
    pub leader: bool,
    /// Milliseconds since the answering coordinator last heard from it; `null` if never, 0 for itself.
    pub silent_ms: Option<u64>,
    /// How far its clock is ahead of the answering coordinator's, milliseconds; `null` if not known.
    pub clock_ahead_ms: Option<i64>,
}

/// A coordinator whose clock is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AlarmView {
    /// Its Raft node number.
    pub node: u64,
    /// What is wrong.
    pub cause: String,
    /// How far the majority's median is ahead of its clock, milliseconds; negative if behind.
    pub median_ahead_ms: i64,
    /// Since when.
    pub since: UnixMillis,
}

/// `POST /api/v1/cluster/transfer`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TransferRequest {
    /// The number or name of the coordinator that is to lead; the most advanced one if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Its answer, once the other leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransferView {
    /// Who led.
    pub from: u64,
    /// Who leads.
    pub to: u64,
    /// Milliseconds in which nothing could be committed.
    pub gap_ms: u64,
}

/// `GET /api/v1/cluster`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ClusterView {
    /// The cluster.
    pub id: ClusterId,
    /// This program's version.
    pub version: String,
    /// SHA-256 of the CA certificate, to be pinned.
    pub ca_fingerprint: String,
    /// The coordinator that answered.
    pub answered_by: u64,
    /// Every coordinator.
    pub coordinators: Vec<CoordinatorView>,
    /// The last log index that the answering coordinator has applied.
    pub applied: u64,
    /// Milliseconds since the answering coordinator last knew that a majority had nothing newer; `null` if it has
    /// heard from no majority since its start.
    pub stale_age_ms: Option<u64>,
    /// Coordinators whose clock is off.
    pub alarms: Vec<AlarmView>,
}

/// One thing that the service depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthCheck {
    /// `ledger`, `quorum`, `hosts`, …
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What is seen.
    pub detail: String,
}

/// `GET /health`, `/health/live`, `/health/ready`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `ok` or `degraded`.
    pub status: String,
    /// What it depends on.
    pub checks: Vec<HealthCheck>,
}

/// What an API token may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TokenRole {
    /// Everything.
    #[default]
    Admin,
    /// Look, but change nothing.
    Reader,
}

/// `POST /api/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenCreate {
    /// What it is for.
    pub name: String,
    /// What it may do (default `admin`).
    #[serde(default)]
    pub role: TokenRole,
}

/// Its answer: the only time that the secret is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenCreated {
    /// Its id.
    pub id: TokenId,
    /// `nva1.…`, to be sent as `Authorization: Bearer …`.
    pub token: String,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenView {
    /// Its id.
    pub id: TokenId,
    /// What it is for.
    pub name: String,
    /// What it may do.
    pub role: TokenRole,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// `POST /api/v1/ws/tickets`: for clients that cannot send a header with a WebSocket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct WsTicket {
    /// Give it as `?ticket=`: one use.
    pub ticket: String,
    /// Seconds that it is good for.
    pub expires_in: u32,
}
