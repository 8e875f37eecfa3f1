//! Gossip frames: chitchat's own messages, carried opaquely over the authenticated transport.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

/// One gossip message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GossipFrame {
    /// Where the sender serves QUIC; checked against the directory, not trusted.
    pub from: SocketAddr,
    /// chitchat's serialized message.
    pub message: Vec<u8>,
}
