//! The one bincode configuration, with its limit, and frames with a length before any allocation.
//!
//! `bincode::deserialize_from` without a limit allocates whatever length the peer claims, and
//! `bincode::serialize` and `DefaultOptions` disagree on integers: neither is used anywhere else.

use bincode::Options;
use serde::{Serialize, de::DeserializeOwned};

/// Longest frame on any stream. Larger things are cut into several.
pub const FRAME_MAX: usize = 4 << 20;

/// Bytes of the length before a frame (u32, little endian).
pub const LENGTH_BYTES: usize = 4;

/// What [`encode_behind`] allocates at first: most rows are shorter.
const ROOM: usize = 128;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The frame claims, or would need, more than allowed.
    #[error("a frame of {length} bytes is longer than the {max} allowed")]
    TooLong {
        /// Claimed or needed.
        length: usize,
        /// Allowed.
        max: usize,
    },
    /// bincode refused.
    #[error("could not {doing} a {what}")]
    Malformed {
        /// "encode" or "decode".
        doing: &'static str,
        /// The type.
        what: &'static str,
        /// bincode's reason.
        #[source]
        cause: bincode::Error,
    },
}

fn options(limit: usize) -> impl Options {
    bincode::DefaultOptions::new().with_limit(limit as u64).with_varint_encoding()
}

/// Encodes within [`FRAME_MAX`].
///
/// # Errors
/// [`CodecError`] if the value is too long.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    options(FRAME_MAX).serialize(value).map_err(|cause| CodecError::Malformed {
        doing: "encode",
        what: std::any::type_name::<T>(),
        cause,
    })
}

/// Encodes behind one byte, in one pass: for what its writer knows to be short, such as a row of a table.
///
/// # Errors
/// [`CodecError`] if the value cannot be encoded.
pub fn encode_behind<T: Serialize>(first: u8, value: &T) -> Result<Vec<u8>, CodecError> {
    let mut bytes = Vec::with_capacity(ROOM);
    bytes.push(first);
    let unlimited = bincode::DefaultOptions::new().with_no_limit().with_varint_encoding();
    match unlimited.serialize_into(&mut bytes, value) {
        Ok(()) => Ok(bytes),
        Err(cause) => Err(CodecError::Malformed { doing: "encode", what: std::any::type_name::<T>(), cause }),
    }
}

/// Encodes whatever its length: for what stays on this host.
///
/// # Errors
/// [`CodecError`] if the value cannot be encoded.
pub fn encode_unbounded<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let unlimited = bincode::DefaultOptions::new().with_no_limit().with_varint_encoding();
    let malformed =
        |cause| CodecError::Malformed { doing: "encode", what: std::any::type_name::<T>(), cause };
    unlimited.serialize(value).map_err(malformed)
}

/// As [`decode`], of at most `max` bytes.
///
/// # Errors
/// As [`decode`].
pub fn decode_within<T: DeserializeOwned>(bytes: &[u8], max: usize) -> Result<T, CodecError> {
    if bytes.len() > max {
        return Err(CodecError::TooLong { length: bytes.len(), max });
    }
    let malformed =
        |cause| CodecError::Malformed { doing: "decode", what: std::any::type_name::<T>(), cause };
    options(max).deserialize(bytes).map_err(malformed)
}

/// Decodes all of `bytes`; anything left over is an error.
///
/// # Errors
/// [`CodecError`] if the bytes are too many, too few or not a `T`.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    if bytes.len() > FRAME_MAX {
        return Err(CodecError::TooLong { length: bytes.len(), max: FRAME_MAX });
    }
    options(FRAME_MAX).deserialize(bytes).map_err(|cause| CodecError::Malformed {
        doing: "decode",
        what: std::any::type_name::<T>(),
        cause,
    })
}

/// A whole frame: length and payload.
///
/// # Errors
/// [`CodecError`] if the value is too long.
pub fn encode_frame<T: Serialize>(value: &T) -> Result<Vec<u8>, CodecError> {
    let payload = encode(value)?;
    let mut frame = Vec::with_capacity(LENGTH_BYTES + payload.len());
    #[allow(clippy::cast_possible_truncation)] // FRAME_MAX fits u32
    frame.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    frame.extend_from_slice(&payload);
    Ok(frame)
}

/// Checks a frame's length before anything is allocated for it.
///
/// # Errors
/// [`CodecError::TooLong`].
pub fn frame_length(prefix: [u8; LENGTH_BYTES]) -> Result<usize, CodecError> {
    let length = u32::from_le_bytes(prefix) as usize;
    if length > FRAME_MAX { Err(CodecError::TooLong { length, max: FRAME_MAX }) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claimed_length_is_refused_before_it_is_allocated() {
        let mut bytes = encode(&vec![1u8; 8]).unwrap();
        bytes[0] = 253; // varint marker: a u64 length follows
        bytes.splice(1..1, u64::MAX.to_le_bytes());
        assert!(decode::<Vec<u8>>(&bytes).is_err());
        assert!(frame_length(u32::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn one_pass_gives_the_same_bytes() {
        let value = (7u8, vec![300u32, 70_000], Some("text".to_owned()), i64::MIN);
        let whole = [vec![9], encode(&value).unwrap()].concat();
        assert_eq!(encode_behind(9, &value).unwrap(), whole);
    }

    #[test]
    fn left_over_bytes_are_an_error() {
        let mut bytes = encode(&7u32).unwrap();
        bytes.push(0);
        assert!(decode::<u32>(&bytes).is_err());
    }
}
