//! Commands about requests themselves: idempotency keys, tickets, and alarms about coordinators.

use super::CommandBody;
use crate::record::{Answer, RequestKey};
use novacron_common::{api::TokenRole, spec::Sha256Digest, units::UnixMillis};
use serde::{Deserialize, Serialize};

/// See [`CommandBody::Keyed`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyed {
    /// What the key is filed under.
    pub key: RequestKey,
    /// SHA-256 of the whole request.
    pub fingerprint: Sha256Digest,
    /// What the request asks for.
    pub body: CommandBody,
}

/// See [`CommandBody::RequestAnswered`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RequestAnswered {
    /// Which request.
    pub key: RequestKey,
    /// What was answered.
    pub answer: Answer,
}

/// See [`CommandBody::TicketPut`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketPut {
    /// SHA-256 of the ticket.
    pub digest: Sha256Digest,
    /// The rights of whoever asks for it.
    pub role: TokenRole,
    /// After this it is worth nothing.
    pub expires_at: UnixMillis,
}

/// See [`CommandBody::ClockAlarm`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockAlarm {
    /// Whose clock.
    pub node: u64,
    /// How far the majority's median is ahead of it, milliseconds; `None` if it is right again.
    pub median_ahead_ms: Option<i64>,
}
