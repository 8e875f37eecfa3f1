//! What processes say to each other. `PROTOCOL.md` beside this file tells the same for people.
//!
//! A QUIC connection between two processes carries many streams. The first bytes of every stream are a
//! [`StreamHeader`]: what the stream is for, and the version its opener speaks. Behind it come frames
//! ([`codec`]), except on consoles, which turn into plain bytes after their opening frame, and on lanes,
//! which have frames of their own.

mod agent;
pub mod backup;
pub mod codec;
mod exec;
mod gossip;
mod header;
mod join;
mod lane;
mod probe;

pub use agent::{
    AgentCommand, AgentReply, AttemptStart, ConsoleOpen, ControlRequest, Denial, DenialCode, Departed,
    Directory, ImageRequest, ImageResponse, Lease, LeasesGranted, LogChunk, PeerHost, SessionOpened, VmAct,
};
pub use exec::{EXEC_BYTES_MAX, ExecCommand, ExecEnd, ExecInput, ExecOpen, ExecOutput, FileCopy, WindowSize};
pub use gossip::GossipFrame;
pub use header::{
    HEADER_BYTES, HeaderError, ProtocolVersion, SPOKEN, Span, StreamHeader, StreamKind, choose,
};
pub use join::{
    BadJoinToken, CoordinatorAddress, Enrolled, JoinDenied, JoinPurpose, JoinRequest, JoinToken, RenewRequest,
};
pub use lane::{
    BadLaneFrame, LANE_DATA_MAX, LANE_FRAME_BYTES, LaneFrame, LaneId, LaneKind, LaneOpen, LaneVerdict,
};
pub use probe::{PROBE_BYTES_MAX, PROBE_MS_MAX, ProbeCount, ProbeOpen, ProbeVerdict};
