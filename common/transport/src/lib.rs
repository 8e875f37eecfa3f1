//! The one transport between processes: QUIC (RFC 9000) with TLS 1.3 and a certificate on both sides.
//!
//! * [`CertificateAuthority`] issues certificates that carry a [`Role`]; [`Identity`] is a process's own.
//! * [`Endpoint`] is one UDP socket that dials and listens; a [`Link`] is an authenticated connection.
//! * Every stream of a link begins with a header that says what it is for. [`permitted`] is the whole table of
//!   who may open what; a stream outside it never reaches its handler.
//!
//! An [`Endpoint`] can also stand in a [`SimulatedNet`], for the simulation in `tests/sim`.
//!
//! quinn's and rustls' types stop here.

mod ca;
mod connection;
mod endpoint;
mod error;
mod fair;
mod gossip;
mod identity;
mod link;
mod restart;
mod role;
mod scavenger;
mod settings;
mod simulated;
mod stream;
mod tls;

pub use ca::{CertificateAuthority, IssueError, certificate_request};
pub use endpoint::Endpoint;
pub use error::LinkError;
pub use gossip::{Gossip, GossipPeer, GossipSettings};
pub use identity::{Identity, IdentityCell, IdentityError};
pub use link::Link;
pub use role::{Role, RoleKind, permitted};
pub use scavenger::TARGET as QUEUE_TARGET;
pub use settings::{LINK_WINDOW, STREAM_WINDOW, Sharing};
pub use simulated::{Halves, Met, SimulatedLine, SimulatedNet, SimulatedRecv, SimulatedSend};
pub use stream::{RecvHalf, SendHalf, Stream, was_cut};
pub use tls::crypto_provider;

#[cfg(test)]
mod tests;
