//! What processes say to each other. `PROTOCOL.md` beside this file tells the same for people.
//!
//! A QUIC connection between two processes carries many streams. The first bytes of every stream are a
//! [`StreamHeader`]: what the stream is for, and the version its opener speaks. Behind it come frames
//! ([`codec`]), except on lanes and consoles, which turn into plain bytes after their opening frame.

mod agent;
pub mod backup;
pub mod codec;
mod gossip;
mod header;
mod join;

pub use agent::{
    AgentCommand, AgentReply, AttemptStart, ConsoleOpen, ControlRequest, Denial, DenialCode, Directory,
    ImageRequest, ImageResponse, LaneKind, LaneOpen, LaneVerdict, Lease, LeasesGranted, LogChunk, PeerHost,
    SessionOpened,
};
pub use gossip::GossipFrame;
pub use header::{
    HEADER_BYTES, HeaderError, ProtocolVersion, SPOKEN, Span, StreamHeader, StreamKind, choose,
};
pub use join::{
    BadJoinToken, CoordinatorAddress, Enrolled, JoinDenied, JoinPurpose, JoinRequest, JoinToken, RenewRequest,
};
