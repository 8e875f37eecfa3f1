//! How a process becomes a member: one-time tokens that carry the CA's fingerprint, and certificates.

use crate::{
    ids::{ClusterId, HostId, TokenId},
    spec::{Name, Sha256Digest},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use std::{fmt, net::SocketAddr, str::FromStr};

/// A one-time join token, as printed by `novactl host token`: everything that a new process needs to find the
/// cluster and to know that it is the right one. Never trust on first use.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// The ledger's record of it.
    pub id: TokenId,
    /// 256 random bits; the ledger keeps their SHA-256 only.
    pub secret: [u8; 32],
    /// SHA-256 of the CA certificate (DER).
    pub ca: Sha256Digest,
    /// Coordinators to ask.
    pub coordinators: Vec<SocketAddr>,
}

/// A text that is not a join token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not a join token: copy the whole line that `novactl host token` printed (nvj1.…)")]
pub struct BadJoinToken;

const TOKEN_PREFIX: &str = "nvj1.";
const TOKEN_TEXT_MAX: usize = 2048;

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = super::codec::encode(self).map_err(|_| fmt::Error)?;
        write!(f, "{TOKEN_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// Shows the id only: a token in a log would be a key in a log.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({})", self.id)
    }
}

impl FromStr for JoinToken {
    type Err = BadJoinToken;
    fn from_str(text: &str) -> Result<Self, BadJoinToken> {
        let text = text.trim();
        let body =
            text.strip_prefix(TOKEN_PREFIX).filter(|b| b.len() <= TOKEN_TEXT_MAX).ok_or(BadJoinToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| BadJoinToken)?;
        super::codec::decode(&bytes).map_err(|_| BadJoinToken)
    }
}

/// What the new process wants to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinPurpose {
    /// An agent. `rejoin` is the host's former id if its certificate ran out.
    Agent {
        /// The host's name.
        name: Name,
        /// The id that it had.
        rejoin: Option<HostId>,
    },
    /// One more coordinator.
    Coordinator {
        /// Its name.
        name: Name,
        /// Where the others reach it.
        quic: SocketAddr,
        /// Where its HTTP API is reached.
        http: SocketAddr,
    },
}

/// On a `Join` stream.
#[derive(Clone, Serialize, Deserialize)]
pub struct JoinRequest {
    /// The token's record.
    pub token: TokenId,
    /// The token's secret.
    pub secret: [u8; 32],
    /// What for.
    pub purpose: JoinPurpose,
    /// PKCS #10 (RFC 2986) in DER: the public key, and proof of the private one.
    pub csr: Vec<u8>,
}

/// On a `Renew` stream: the connection's certificate says who asks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RenewRequest {
    /// PKCS #10 in DER for a new key.
    pub csr: Vec<u8>,
}

/// Where a coordinator is reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CoordinatorAddress {
    /// Its Raft node number.
    pub node: u64,
    /// QUIC.
    pub quic: SocketAddr,
    /// HTTP API.
    pub http: SocketAddr,
}

/// The answer to both, when granted.
#[derive(Clone, Serialize, Deserialize)]
pub struct Enrolled {
    /// The cluster.
    pub cluster: ClusterId,
    /// The CA certificate (DER).
    pub ca: Vec<u8>,
    /// The member's certificate (DER).
    pub certificate: Vec<u8>,
    /// The host's id, for agents.
    pub host: Option<HostId>,
    /// The Raft node number, for coordinators.
    pub node: Option<u64>,
    /// The key that seals the CA's private key, for coordinators.
    pub seal_key: Option<[u8; 32]>,
    /// Every coordinator.
    pub coordinators: Vec<CoordinatorAddress>,
}

/// The answer, when not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum JoinDenied {
    /// No such token, or the wrong secret: the same answer, so that ids cannot be probed.
    #[error("the join token is unknown: make a new one with `novactl host token`")]
    UnknownToken,
    /// Too old.
    #[error("the join token has expired: make a new one with `novactl host token`")]
    Expired,
    /// A token works once.
    #[error("the join token was used before: make a new one with `novactl host token`")]
    Used,
    /// The token is for another role.
    #[error("the join token is for another role")]
    WrongRole,
    /// Another host has the name.
    #[error("the name {0} is taken by another host")]
    NameTaken(Name),
    /// The member was removed.
    #[error("this member was removed from the cluster: join again with a new token")]
    Removed,
    /// The request for a certificate cannot be used.
    #[error("the certificate request is malformed")]
    BadRequest,
    /// No quorum, or no leader yet.
    #[error("the coordinators cannot commit this now: {0}")]
    Unavailable(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_round_trips_and_its_debug_hides_the_secret() {
        let token = JoinToken {
            id: TokenId::from_u128(1),
            secret: [0xAB; 32],
            ca: Sha256Digest([7; 32]),
            coordinators: vec!["127.0.0.1:8091".parse().unwrap()],
        };
        assert_eq!(token.to_string().parse::<JoinToken>().unwrap(), token);
        assert!(!format!("{token:?}").contains("171"));
        for bad in ["", "nvj1.", "nvj1.!!!!", "nvj2.AAAA", &token.to_string()[..20]] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad:?} was taken");
        }
    }
}
