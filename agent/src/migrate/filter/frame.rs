//! Frames of libvirt's RPC: `u32 length | u32 program | u32 version | i32 procedure | u32 type | u32 serial |
//! u32 status | payload`, all big endian, the length counting itself.

/// Bytes of the header, length included (`VIR_NET_MESSAGE_HEADER_MAX` and the length word).
pub const HEADER: usize = 28;

/// The longest frame that passes. libvirt itself would take 32 MiB (`VIR_NET_MESSAGE_MAX`); a migration's longest
/// message, a domain document in a cookie, has some ten KiB.
pub const FRAME_MAX: usize = 4 << 20;

/// A frame that no libvirt sends, or that is longer than we pass on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadFrame {
    /// Longer than [`FRAME_MAX`].
    #[error("a message of {length} bytes is longer than the {FRAME_MAX} allowed")]
    TooLong {
        /// What it claims.
        length: usize,
    },
    /// Shorter than a header.
    #[error("a message of {length} bytes is shorter than its header")]
    TooShort {
        /// What it claims.
        length: usize,
    },
}

/// One frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which protocol.
    pub program: u32,
    /// Its version.
    pub version: u32,
    /// Which call, reply or event.
    pub procedure: i32,
    /// `virNetMessageType`.
    pub kind: u32,
    /// Pairs a reply with its call.
    pub serial: u32,
    /// `virNetMessageStatus`.
    pub status: u32,
    /// What follows the header.
    pub payload: &'a [u8],
    /// The whole frame, as it is passed on.
    pub bytes: &'a [u8],
}

/// The first frame in `bytes`; `None` if it is not complete yet.
///
/// # Errors
/// [`BadFrame`] as soon as its length is known to be wrong, however little of it is here.
pub fn parse_frame(bytes: &[u8]) -> Result<Option<Frame<'_>>, BadFrame> {
    let Some(length) = word(bytes, 0) else { return Ok(None) };
    let length = length as usize;
    if length > FRAME_MAX {
        return Err(BadFrame::TooLong { length });
    }
    if length < HEADER {
        return Err(BadFrame::TooShort { length });
    }
    let Some(bytes) = bytes.get(..length) else { return Ok(None) };
    Ok(frame(bytes))
}

fn frame(bytes: &[u8]) -> Option<Frame<'_>> {
    Some(Frame {
        program: word(bytes, 4)?,
        version: word(bytes, 8)?,
        procedure: word(bytes, 12)?.cast_signed(),
        kind: word(bytes, 16)?,
        serial: word(bytes, 20)?,
        status: word(bytes, 24)?,
        payload: bytes.get(HEADER..)?,
        bytes,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_length_is_judged_before_the_rest_arrives() {
        assert_eq!(
            parse_frame(&u32::MAX.to_be_bytes()),
            Err(BadFrame::TooLong { length: u32::MAX as usize })
        );
        assert_eq!(parse_frame(&27u32.to_be_bytes()), Err(BadFrame::TooShort { length: 27 }));
        assert_eq!(parse_frame(&28u32.to_be_bytes()), Ok(None));
        assert_eq!(parse_frame(&[0, 0, 0]), Ok(None));
    }

    #[test]
    fn a_frame_ends_where_its_length_says() {
        let mut bytes = Vec::new();
        for word in [30u32, 1, 2, 3, 4, 5, 6] {
            bytes.extend(word.to_be_bytes());
        }
        bytes.extend(b"xyNEXT");
        let frame = parse_frame(&bytes).unwrap().unwrap();
        assert_eq!((frame.program, frame.version, frame.procedure, frame.kind), (1, 2, 3, 4));
        assert_eq!((frame.serial, frame.status, frame.payload, frame.bytes.len()), (5, 6, &b"xy"[..], 30));
    }
}
