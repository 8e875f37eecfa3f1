//! A lane of a migration: how it is opened, how it is taken up again after a cut, and its frames.
//!
//! A lane is two sequences of bytes, one each way, that outlive the stream which carries them. Every position in a
//! sequence has an offset; the end of a direction takes up one offset behind its last byte, so that it is
//! acknowledged like a byte (RFC 9293, section 3.4, treats FIN so).

use super::Denial;
use crate::record::Ticket;
use serde::{Deserialize, Serialize};

/// Bytes of a [`LaneFrame`] on the wire, little endian:
///
/// ```text
/// | kind u8 | zero u8 × 3 | length u32 | offset u64 |   length bytes of a Data frame follow; kind 0 is never sent
/// ```
pub const LANE_FRAME_BYTES: usize = 16;
/// Most bytes in one [`LaneFrame::Data`].
pub const LANE_DATA_MAX: u32 = 256 << 10;

/// What flows on a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LaneKind {
    /// libvirt's RPC between the two libvirtd, filtered on the target.
    Control,
    /// QEMU's main migration channel, or a multifd or post-copy one: in order of connection.
    Memory,
    /// The disks' NBD connections.
    Disk,
    /// What the target holds of the machine's memory already, told to the source.
    Held,
}

/// One of a migration's lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LaneId {
    /// What flows.
    pub kind: LaneKind,
    /// Which of its kind, from 0, in order of connection.
    pub number: u8,
}

/// First frame of a stream that carries a lane, from the source agent. The first one opens the lane, each later one
/// takes it up again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneOpen {
    /// The right to it.
    pub ticket: Ticket,
    /// Which lane.
    pub lane: LaneId,
    /// Higher each time the lane is taken up: an opening that was overtaken is refused.
    pub turn: u32,
    /// The offset up to which the source has everything that the target sent.
    pub received: u64,
}

/// First frame back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LaneVerdict {
    /// Go on: [`LaneFrame`]s follow both ways.
    Open {
        /// The offset up to which the target has everything that the source sent.
        received: u64,
    },
    /// Both directions had ended, and the target has all of it.
    Over,
    /// Not with this ticket, or not from there.
    Refused(Denial),
}

/// What goes over a lane, after the opening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaneFrame {
    /// Bytes of the sequence.
    Data {
        /// Where the first one belongs.
        offset: u64,
        /// How many follow the header: 1 to [`LANE_DATA_MAX`].
        length: u32,
    },
    /// The sender's sequence ends.
    End {
        /// Behind its last byte.
        offset: u64,
    },
    /// The peer's sequence has been passed on.
    Ack {
        /// Up to here, and so need not be kept any more.
        offset: u64,
    },
}

/// Sixteen bytes that are no frame of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadLaneFrame {
    /// Its kind is unknown, or a reserved byte is set.
    #[error("a lane has no frames of kind {0}")]
    Kind(u32),
    /// More bytes than allowed, none at all, or some where none belong.
    #[error("a lane's frame of kind {kind} cannot have {length} bytes")]
    Length {
        /// The frame's kind.
        kind: u32,
        /// What it claims.
        length: u32,
    },
}

const DATA: u32 = 1;
const END: u32 = 2;
const ACK: u32 = 3;

impl LaneFrame {
    /// As sent.
    pub fn to_bytes(self) -> [u8; LANE_FRAME_BYTES] {
        let (kind, length, offset) = match self {
            Self::Data { offset, length } => (DATA, length, offset),
            Self::End { offset } => (END, 0, offset),
            Self::Ack { offset } => (ACK, 0, offset),
        };
        let mut bytes = [0; LANE_FRAME_BYTES];
        bytes[..4].copy_from_slice(&kind.to_le_bytes());
        bytes[4..8].copy_from_slice(&length.to_le_bytes());
        bytes[8..].copy_from_slice(&offset.to_le_bytes());
        bytes
    }

    /// Reads a header; a length above the limit is refused before anybody makes room for it.
    ///
    /// # Errors
    /// [`BadLaneFrame`].
    pub fn parse(bytes: [u8; LANE_FRAME_BYTES]) -> Result<Self, BadLaneFrame> {
        let word = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let (kind, length) = (word(0), word(4));
        let offset = u64::from(word(12)) << 32 | u64::from(word(8));
        match (kind, length) {
            (DATA, 1..=LANE_DATA_MAX) => Ok(Self::Data { offset, length }),
            (END, 0) => Ok(Self::End { offset }),
            (ACK, 0) => Ok(Self::Ack { offset }),
            (DATA | END | ACK, _) => Err(BadLaneFrame::Length { kind, length }),
            _ => Err(BadLaneFrame::Kind(kind)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_survive_the_wire() {
        let frames = [
            LaneFrame::Data { offset: u64::MAX - 3, length: 1 },
            LaneFrame::Data { offset: 0, length: LANE_DATA_MAX },
            LaneFrame::End { offset: 1 << 40 },
            LaneFrame::Ack { offset: 7 },
        ];
        for frame in frames {
            assert_eq!(LaneFrame::parse(frame.to_bytes()), Ok(frame));
        }
    }

    #[test]
    fn lengths_kinds_and_reserved_bytes_out_of_range_are_refused() {
        let mut data = LaneFrame::Data { offset: 0, length: LANE_DATA_MAX }.to_bytes();
        data[4] = 1;
        assert!(matches!(LaneFrame::parse(data), Err(BadLaneFrame::Length { kind: 1, .. })));
        let empty = LaneFrame::Data { offset: 0, length: 0 }.to_bytes();
        assert!(LaneFrame::parse(empty).is_err());
        let mut ack = LaneFrame::Ack { offset: 0 }.to_bytes();
        ack[4] = 1;
        assert!(LaneFrame::parse(ack).is_err());
        for (at, value) in [(0, 0), (0, 4), (1, 1), (3, 1)] {
            let mut other = LaneFrame::End { offset: 0 }.to_bytes();
            other[at] = value;
            assert!(matches!(LaneFrame::parse(other), Err(BadLaneFrame::Kind(_))));
        }
    }
}
