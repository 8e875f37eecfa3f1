//! The first bytes of a stream, which roles may open it, and the choice of a version.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Bytes of a [`StreamHeader`] on the wire: magic `NVCR`, kind u8, zero u8, version u16 little endian.
pub const HEADER_BYTES: usize = 8;
const MAGIC: [u8; 4] = *b"NVCR";

/// A version of the wire protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ProtocolVersion(pub u16);

/// The versions from `min` to `max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Oldest that is understood.
    pub min: ProtocolVersion,
    /// Newest that is understood.
    pub max: ProtocolVersion,
}

/// What this build speaks: the current version and, from version 2 on, the one before.
pub const SPOKEN: Span = Span { min: ProtocolVersion(1), max: ProtocolVersion(1) };

/// The best version that both sides speak.
pub fn choose(ours: Span, theirs: Span) -> Option<ProtocolVersion> {
    let best = ours.max.min(theirs.max);
    (best >= ours.min && best >= theirs.min).then_some(best)
}

macro_rules! stream_kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal),* $(,)?) => {
        /// What a stream is for. Numbers are append-only; 0 is never sent.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum StreamKind { $($(#[$doc])* $name = $number),* }

        impl StreamKind {
            /// Every kind.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
            fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

stream_kinds! {
    /// A process without a certificate asks for one, with a token.
    Join = 1,
    /// A process asks for a certificate in place of its own.
    Renew = 2,
    /// An agent's session: hello, then periodic status; the coordinator answers with its directory.
    Session = 3,
    /// One request of an agent to the coordinator.
    Control = 4,
    /// One request of the coordinator to an agent.
    Command = 5,
    /// One Raft RPC between coordinators.
    Raft = 6,
    /// A write that a follower passes to the leader.
    Forward = 7,
    /// Gossip between agents (and coordinators, who listen).
    Gossip = 8,
    /// A lane of a migration: an opening frame, then lane frames.
    Lane = 9,
    /// An image file, from an agent that has it.
    Image = 10,
    /// A guest's serial console: an opening frame, then plain bytes.
    Console = 11,
    /// How fast the way to another agent is: an opening frame, then bytes that are counted.
    Probe = 12,
    /// A command inside a machine: an opening frame, then what it reads and prints.
    Exec = 13,
}

/// The first bytes of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHeader {
    /// What it is for.
    pub kind: StreamKind,
    /// The version its opener speaks on it.
    pub version: ProtocolVersion,
}

/// A stream that does not begin as ours do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Not our protocol.
    #[error("the stream does not begin with NovaCron's magic bytes")]
    Magic,
    /// A kind that this build does not know.
    #[error("stream kind {0} is unknown to this version: is the peer newer?")]
    Kind(u8),
    /// A version that this build does not speak.
    #[error("the peer speaks protocol version {theirs}, this process {min} to {max}: upgrade the older one",
            min = SPOKEN.min.0, max = SPOKEN.max.0)]
    Version {
        /// What the peer speaks.
        theirs: u16,
    },
}

impl StreamHeader {
    /// A header of the current version.
    pub const fn new(kind: StreamKind) -> Self {
        Self { kind, version: SPOKEN.max }
    }

    /// As sent.
    pub const fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let v = self.version.0.to_le_bytes();
        [MAGIC[0], MAGIC[1], MAGIC[2], MAGIC[3], self.kind as u8, 0, v[0], v[1]]
    }

    /// As received.
    ///
    /// # Errors
    /// [`HeaderError`] if this build cannot serve the stream.
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Self, HeaderError> {
        let [a, b, c, d, kind, zero, v0, v1] = bytes;
        if [a, b, c, d] != MAGIC || zero != 0 {
            return Err(HeaderError::Magic);
        }
        let kind = StreamKind::from_number(kind).ok_or(HeaderError::Kind(kind))?;
        let theirs = u16::from_le_bytes([v0, v1]);
        let one = Span { min: ProtocolVersion(theirs), max: ProtocolVersion(theirs) };
        let version = choose(SPOKEN, one).ok_or(HeaderError::Version { theirs })?;
        Ok(Self { kind, version })
    }
}

impl fmt::Display for StreamKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", format!("{self:?}").to_ascii_lowercase())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_survives_its_header() {
        for kind in StreamKind::ALL {
            let header = StreamHeader::new(*kind);
            assert_eq!(StreamHeader::parse(header.to_bytes()), Ok(header));
        }
    }

    #[test]
    fn foreign_newer_and_unknown_streams_are_told_apart() {
        let good = StreamHeader::new(StreamKind::Raft).to_bytes();
        let with = |i: usize, b: u8| {
            let mut bytes = good;
            bytes[i] = b;
            StreamHeader::parse(bytes)
        };
        assert_eq!(with(0, b'X'), Err(HeaderError::Magic));
        assert_eq!(with(4, 0), Err(HeaderError::Kind(0)));
        assert_eq!(with(4, 200), Err(HeaderError::Kind(200)));
        assert_eq!(with(6, 9), Err(HeaderError::Version { theirs: 9 }));
    }

    #[test]
    fn the_newest_common_version_is_chosen() {
        let span = |min, max| Span { min: ProtocolVersion(min), max: ProtocolVersion(max) };
        assert_eq!(choose(span(1, 2), span(2, 3)), Some(ProtocolVersion(2)));
        assert_eq!(choose(span(1, 1), span(2, 3)), None);
    }
}
