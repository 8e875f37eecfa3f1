//! The cluster itself, its members and their tokens, and images' definitions.

use novacron_common::{
    api::{JoinTokenRole, TokenRole},
    ids::{ClusterId, TemplateId, TokenId},
    spec::{Name, Sha256Digest, TemplateSpec},
    units::UnixMillis,
    wire::CoordinatorAddress,
};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// The cluster; one row.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterRecord {
    /// Its id.
    pub id: ClusterId,
    /// The CA certificate (DER).
    pub ca_cert: Vec<u8>,
    /// The CA's private key, sealed under a key that is not in the ledger.
    pub sealed_ca_key: Vec<u8>,
    /// The number that the next coordinator gets; numbers are never used again.
    pub next_node: u64,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// Leaves the key out.
impl std::fmt::Debug for ClusterRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterRecord")
            .field("id", &self.id)
            .field("next_node", &self.next_node)
            .finish_non_exhaustive()
    }
}

/// One coordinator in the address book.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorRecord {
    /// Its Raft node number.
    pub node: u64,
    /// Its name.
    pub name: Name,
    /// QUIC.
    pub quic: SocketAddr,
    /// HTTP API.
    pub http: SocketAddr,
}

impl CoordinatorRecord {
    /// As the wire carries it.
    pub const fn address(&self) -> CoordinatorAddress {
        CoordinatorAddress { node: self.node, quic: self.quic, http: self.http }
    }
}

/// One join token. Its secret is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRecord {
    /// Its id.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_sha256: Sha256Digest,
    /// For whom.
    pub role: JoinTokenRole,
    /// After this it is worth nothing.
    pub expires_at: UnixMillis,
    /// The coordinator in whose place the new one comes.
    pub replaces: Option<u64>,
    /// When it was used: it works once.
    pub used_at: Option<UnixMillis>,
}

/// One API token. Its secret is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiTokenRecord {
    /// Its id.
    pub id: TokenId,
    /// What it is for.
    pub name: Name,
    /// What it may do.
    pub role: TokenRole,
    /// SHA-256 of its secret.
    pub secret_sha256: Sha256Digest,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// One image definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplateRecord {
    /// Its id.
    pub id: TemplateId,
    /// What it says.
    pub spec: TemplateSpec,
    /// When it was made.
    pub created_at: UnixMillis,
}

/// The ledger's own clock; one row.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockRecord {
    /// The latest stamp of any command: the ledger's time never runs backwards, whoever leads.
    pub stamp: UnixMillis,
}
