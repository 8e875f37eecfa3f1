//! A lane as it stands, for the agent that is started in place of this one: what each direction has under way, and how far
//! either side has it. The stream that carried it is not part of it: it is taken up again as after a cut.

use super::window::FRAME_COST;
use bytes::Bytes;
use novacron_common::wire::LaneId;
use serde::{Deserialize, Serialize};

/// What this side says, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedOutgoing {
    /// What the receiver has passed on.
    pub acked: u64,
    /// What it was sent.
    pub sent: u64,
    /// Behind the last byte, and behind the end if that was said.
    pub end: u64,
    /// Whether it was.
    pub ended: bool,
    /// The bytes from `acked` on, as they were framed: the receiver counts frames, too.
    pub chunks: Vec<Bytes>,
}

/// What the peer says, as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedIncoming {
    /// What the reader has taken, the end included.
    pub passed: u64,
    /// Whether it has the end.
    pub end_passed: bool,
    /// Whether the peer has said everything.
    pub ended: bool,
    /// What came and was not taken yet, as it was framed.
    pub chunks: Vec<Bytes>,
}

/// A lane as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedLane {
    /// Which one.
    pub id: LaneId,
    /// The newest turn.
    pub turn: u32,
    /// Both directions are over, on both sides.
    pub complete: bool,
    /// This side's direction.
    pub out: SavedOutgoing,
    /// The peer's.
    pub incoming: SavedIncoming,
}

impl SavedLane {
    /// Whether both sides have said everything: only acknowledgements may be outstanding.
    pub fn is_all_said(&self) -> bool {
        self.out.ended && self.incoming.end_passed
    }
}

/// What was saved contradicts itself, or does not fit this lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("what was saved of a lane contradicts itself")]
pub struct BadLane;

/// What chunks have of bytes, and what they cost.
pub(super) fn size_and_cost(chunks: &[Bytes]) -> (u64, usize) {
    let bytes: usize = chunks.iter().map(Bytes::len).sum();
    (bytes as u64, bytes + chunks.len() * FRAME_COST)
}
