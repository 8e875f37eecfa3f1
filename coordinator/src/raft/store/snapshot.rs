//! A snapshot's bytes: frames of rows of at most [`CHUNK_BYTES`], then one frame that says how many rows there
//! were, so that a snapshot cut short is not taken for a small one. openraft cuts the whole into requests.

use super::{StoreFault, rows::Row};
use novacron_common::{
    planted::{self, Mistake},
    wire::codec::{self, LENGTH_BYTES},
};
use serde::{Deserialize, Serialize};

/// Rows are gathered until a frame would be longer than this; a single row may be a little longer.
const CHUNK_BYTES: usize = 60 * 1024;

#[derive(Serialize, Deserialize)]
enum Frame {
    Rows(Vec<Row>),
    End { rows: u64 },
}

/// The bytes of these rows.
pub(super) fn write(rows: impl Iterator<Item = Result<Row, StoreFault>>) -> Result<Vec<u8>, StoreFault> {
    let (mut bytes, mut chunk, mut length, mut total) = (Vec::new(), Vec::new(), 0, 0);
    for row in rows {
        let row = row?;
        if planted::is(Mistake::SnapshotSkipsRows) && row.1.last().is_some_and(|byte| byte % 4 == 1) {
            continue;
        }
        let added = row.1.len() + row.2.len();
        if length + added > CHUNK_BYTES && !chunk.is_empty() {
            bytes.extend(codec::encode_frame(&Frame::Rows(std::mem::take(&mut chunk)))?);
            length = 0;
        }
        length += added;
        total += 1;
        chunk.push(row);
    }
    bytes.extend(codec::encode_frame(&Frame::Rows(chunk))?);
    bytes.extend(codec::encode_frame(&Frame::End { rows: total })?);
    Ok(bytes)
}

/// The rows in a snapshot's bytes.
pub(super) fn read(bytes: &[u8]) -> Result<Vec<Row>, StoreFault> {
    let (mut rest, mut rows) = (bytes, Vec::new());
    loop {
        let (frame, behind) = next(rest)?;
        match frame {
            Frame::Rows(chunk) => rows.extend(chunk),
            Frame::End { rows: total } if total == rows.len() as u64 && behind.is_empty() => return Ok(rows),
            Frame::End { .. } => return Err(StoreFault::Snapshot("its count of rows is wrong")),
        }
        rest = behind;
    }
}

fn next(bytes: &[u8]) -> Result<(Frame, &[u8]), StoreFault> {
    let cut = || StoreFault::Snapshot("it was cut off");
    let (prefix, rest) = bytes.split_first_chunk::<LENGTH_BYTES>().ok_or_else(cut)?;
    let (frame, behind) = rest.split_at_checked(codec::frame_length(*prefix)?).ok_or_else(cut)?;
    Ok((codec::decode(frame)?, behind))
}
