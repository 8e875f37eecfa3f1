//! What can go wrong between two processes.

use crate::Role;
use novacron_common::wire::{HeaderError, StreamKind, codec::CodecError};
use std::net::SocketAddr;

/// A link or stream could not be had, or broke.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The socket could not be bound.
    #[error("could not bind UDP {address}")]
    Bind {
        /// To what.
        address: SocketAddr,
        /// The system's reason.
        #[source]
        cause: std::io::Error,
    },
    /// TLS could not be set up.
    #[error("could not set up TLS")]
    Tls(#[source] rustls::Error),
    /// Nobody answered, or the handshake failed.
    #[error("could not connect to {address}: {reason}")]
    Connect {
        /// To whom.
        address: SocketAddr,
        /// quinn's reason.
        reason: String,
    },
    /// Somebody else answered.
    #[error("{address} is {found}, not {expected}")]
    WrongPeer {
        /// Where.
        address: SocketAddr,
        /// Who answered.
        found: String,
        /// Who should have.
        expected: String,
    },
    /// The link is gone.
    #[error("the link to {address} is closed: {reason}")]
    Closed {
        /// To whom.
        address: SocketAddr,
        /// Why.
        reason: String,
    },
    /// The peer's certificate, or ours, has run out: dial again with a newer one.
    #[error("the certificate of this link has expired")]
    Expired,
    /// The gate is shut for this peer.
    #[error("{0} is no member (any more)")]
    NotAMember(Role),
    /// The peer may not open such a stream.
    #[error("{who} may not open {kind} streams here")]
    Forbidden {
        /// Who tried.
        who: String,
        /// What.
        kind: StreamKind,
    },
    /// The stream does not begin as it should.
    #[error("the stream's header is refused")]
    Header(#[from] HeaderError),
    /// The stream ended in the middle, or was reset.
    #[error("the stream broke while {doing}: {reason}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// quinn's reason.
        reason: String,
    },
    /// A frame is not what it should be.
    #[error("a frame is refused")]
    Codec(#[from] CodecError),
}
