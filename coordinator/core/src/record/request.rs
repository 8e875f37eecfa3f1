//! What the ledger keeps of requests themselves: idempotency keys with their answers, tickets for WebSockets, and
//! alarms about coordinators.

use crate::applied::Applied;
use novacron_common::{api::TokenRole, spec::Sha256Digest, units::UnixMillis};
use serde::{Deserialize, Serialize};

/// What an `Idempotency-Key` is filed under: SHA-256 of the caller's token id and the key, so that callers cannot
/// meet in each other's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestKey(pub [u8; 32]);

/// One request that was made with an `Idempotency-Key` and changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// What it is found by.
    pub key: RequestKey,
    /// SHA-256 of method, path, query and body: the same key with another request is a mistake.
    pub fingerprint: Sha256Digest,
    /// What came of its command; written together with what the command did.
    pub outcome: Applied,
    /// The answer as it was sent; `None` if the coordinator ended before it could be kept, or it was too long.
    pub answer: Option<Answer>,
    /// When it was committed.
    pub at: UnixMillis,
}

impl RequestRecord {
    /// About how many bytes it takes.
    pub fn weight(&self) -> usize {
        OVERHEAD + self.answer.as_ref().map_or(0, |answer| answer.sealed.len())
    }
}

/// Bytes of a [`RequestRecord`] without its answer, roughly.
const OVERHEAD: usize = 256;

/// An HTTP answer. Sealed under the cluster's seal key, because some answers hold a secret (a new token).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The body, sealed.
    pub sealed: Vec<u8>,
}

/// One ticket for a WebSocket that nobody has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketRecord {
    /// SHA-256 of the ticket, its key.
    pub digest: Sha256Digest,
    /// The rights of whoever asked for it.
    pub role: TokenRole,
    /// After this it is worth nothing.
    pub expires_at: UnixMillis,
}

/// A coordinator whose clock is off: while it leads, nothing fires.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlarmRecord {
    /// Its Raft node number, the key.
    pub node: u64,
    /// How far the majority's median is ahead of its clock, milliseconds; negative if behind.
    pub median_ahead_ms: i64,
    /// Since when.
    pub since: UnixMillis,
}
