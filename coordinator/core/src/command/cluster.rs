//! Commands about the cluster, its tokens and its templates.

use novacron_common::{
    api::{JoinTokenRole, TokenRole},
    ids::{ClusterId, HostId, TemplateId, TokenId},
    spec::{Name, Sha256Digest, TemplateSpec},
    units::UnixMillis,
    wire::JoinPurpose,
};
use serde::{Deserialize, Serialize};

/// See [`super::CommandBody::ClusterInit`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInit {
    /// The new cluster's id.
    pub cluster: ClusterId,
    /// The CA certificate (DER).
    pub ca_cert: Vec<u8>,
    /// The CA's private key, sealed under a key that never enters the ledger.
    pub sealed_ca_key: Vec<u8>,
}

/// Leaves the key out.
impl std::fmt::Debug for ClusterInit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterInit").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

/// See [`super::CommandBody::JoinTokenPut`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenPut {
    /// The new token's id.
    pub id: TokenId,
    /// SHA-256 of its secret.
    pub secret_sha256: Sha256Digest,
    /// For whom.
    pub role: JoinTokenRole,
    /// After this it is worth nothing.
    pub expires_at: UnixMillis,
    /// The coordinator in whose place the new one comes.
    pub replaces: Option<u64>,
}

/// See [`super::CommandBody::JoinTokenUse`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenUse {
    /// Which token.
    pub id: TokenId,
    /// SHA-256 of the secret that was shown.
    pub secret_sha256: Sha256Digest,
    /// What the new member wants to be.
    pub purpose: JoinPurpose,
    /// The id that it gets, if it is a new host.
    pub new_host: HostId,
}

/// See [`super::CommandBody::TokenPut`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenPut {
    /// The token's id.
    pub id: TokenId,
    /// What it is for.
    pub name: Name,
    /// What it may do.
    pub role: TokenRole,
    /// SHA-256 of its secret.
    pub secret_sha256: Sha256Digest,
}

/// See [`super::CommandBody::TemplatePut`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TemplatePut {
    /// The template's id, new or known.
    pub id: TemplateId,
    /// What it says.
    pub spec: TemplateSpec,
}
