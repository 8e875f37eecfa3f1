//! The file: frames of a header and of rows, and a trailer with a checksum (`novacron_common::wire::backup`).

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use novacron_common::{
    ids::ClusterId,
    wire::{
        backup::{BackupHeader, MAGIC, TRAILER_BYTES, TRAILER_MAGIC},
        codec::{self, CodecError, LENGTH_BYTES},
    },
};
use novacron_core::{DecodeError, State, TableId};

/// Rows are gathered until a frame would be longer than this.
const CHUNK_BYTES: usize = 256 * 1024;

type Row = (TableId, Vec<u8>, Vec<u8>);

/// A file is no backup, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Cut off, damaged, or something else altogether.
    #[error("the checksum is wrong: the file is cut off, damaged, or no backup")]
    Checksum,
    /// Something else, with a right trailer.
    #[error("this is no backup that this version reads")]
    Format,
    /// A frame cannot be read.
    #[error("the backup cannot be read")]
    Codec(#[from] CodecError),
    /// A row cannot be read: it is of a newer version.
    #[error("a row of the backup cannot be read: was it made by a newer version?")]
    Row(#[from] DecodeError),
    /// The header promises another number of rows.
    #[error("the backup holds {found} rows, and should hold {promised}")]
    Rows {
        /// Found.
        found: u64,
        /// Promised.
        promised: u64,
    },
}

/// What a backup holds.
#[derive(Debug)]
pub struct Backup {
    /// What it says of itself.
    pub header: BackupHeader,
    /// The ledger.
    pub state: State,
}

impl Backup {
    /// Reads a whole file; the checksum comes first, so that nothing else is done with a damaged one.
    ///
    /// # Errors
    /// [`BackupError`] says what is wrong with it.
    pub fn read(file: &[u8]) -> Result<Self, BackupError> {
        let mut rest = checked(file)?;
        let header: BackupHeader = next(&mut rest)?;
        if header.magic != MAGIC {
            return Err(BackupError::Format);
        }
        let mut rows: Vec<Row> = Vec::new();
        while !rest.is_empty() {
            rows.extend(next::<Vec<Row>>(&mut rest)?);
        }
        let (found, promised) = (rows.len() as u64, header.rows);
        if found != promised {
            return Err(BackupError::Rows { found, promised });
        }
        Ok(Self { state: State::load(rows.into_iter())?, header })
    }
}

/// The file without its trailer.
fn checked(file: &[u8]) -> Result<&[u8], BackupError> {
    let content = file.len().checked_sub(TRAILER_BYTES).ok_or(BackupError::Checksum)?;
    let (content, trailer) = file.split_at(content);
    let (magic, sum) = trailer.split_at(TRAILER_MAGIC.len());
    let right = aws_lc_rs::digest::digest(&SHA256, content);
    if magic == TRAILER_MAGIC && sum == right.as_ref() { Ok(content) } else { Err(BackupError::Checksum) }
}

fn next<T: serde::de::DeserializeOwned>(rest: &mut &[u8]) -> Result<T, BackupError> {
    let (prefix, behind) = rest.split_first_chunk::<LENGTH_BYTES>().ok_or(BackupError::Format)?;
    let length = codec::frame_length(*prefix)?;
    let (frame, behind) = behind.split_at_checked(length).ok_or(BackupError::Format)?;
    *rest = behind;
    Ok(codec::decode(frame)?)
}

/// The pieces of a file, made as they are sent.
pub struct Frames {
    header: Option<BackupHeader>,
    rows: std::iter::Peekable<std::vec::IntoIter<Row>>,
    hash: Option<Context>,
}

impl Frames {
    /// Of this state, taken at `applied` by `node`.
    pub fn new(cluster: ClusterId, node: u64, applied: u64, state: &State) -> Self {
        let rows: Vec<Row> = state.rows().collect();
        let (at, count) = (state.now(), rows.len() as u64);
        let header = BackupHeader { magic: MAGIC, cluster, node, applied, at, rows: count };
        Self { header: Some(header), rows: rows.into_iter().peekable(), hash: Some(Context::new(&SHA256)) }
    }

    fn frame(&mut self) -> Option<Result<Vec<u8>, CodecError>> {
        if let Some(header) = self.header.take() {
            return Some(codec::encode_frame(&header));
        }
        let (mut chunk, mut length) = (Vec::new(), 0);
        while let Some(row) = self.rows.next_if(|row| chunk_fits(length, row)) {
            length += row.1.len() + row.2.len();
            chunk.push(row);
        }
        (!chunk.is_empty()).then(|| codec::encode_frame(&chunk))
    }
}

fn chunk_fits(length: usize, row: &Row) -> bool {
    length == 0 || length + row.1.len() + row.2.len() <= CHUNK_BYTES
}

impl Iterator for Frames {
    type Item = Result<Bytes, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.hash.as_ref()?;
        match self.frame() {
            Some(Ok(frame)) => {
                self.hash.as_mut()?.update(&frame);
                Some(Ok(frame.into()))
            }
            Some(Err(error)) => {
                // The file ends here without its trailer: whoever reads it notices.
                self.hash = None;
                Some(Err(error))
            }
            None => {
                let sum = self.hash.take()?.finish();
                Some(Ok([TRAILER_MAGIC.as_slice(), sum.as_ref()].concat().into()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use novacron_common::{api::TokenRole, ids::TokenId, spec::Sha256Digest, units::UnixMillis};
    use novacron_core::{Command, CommandBody, command::TokenPut};

    fn state(tokens: u128) -> State {
        let mut state = State::default();
        for number in 0..tokens {
            let put = TokenPut {
                id: TokenId::from_u128(number),
                name: "t".parse().unwrap(),
                role: TokenRole::Admin,
                secret_sha256: Sha256Digest([7; 32]),
            };
            state.apply(1, Command { at: UnixMillis(5), body: CommandBody::TokenPut(put) });
        }
        state.take_changes();
        state
    }

    fn file(state: &State) -> Vec<u8> {
        Frames::new(ClusterId::from_u128(1), 2, 42, state).flat_map(|frame| frame.unwrap()).collect()
    }

    #[test]
    fn what_was_written_is_read_back() {
        for tokens in [0, 1, 9000] {
            let state = state(tokens);
            let backup = Backup::read(&file(&state)).unwrap();
            assert_eq!(backup.state, state);
            assert_eq!((backup.header.applied, backup.header.node), (42, 2));
        }
    }

    #[test]
    fn a_file_that_is_cut_or_damaged_anywhere_is_refused() {
        let whole = file(&state(3));
        for at in 0..whole.len() {
            assert!(matches!(Backup::read(&whole[..at]), Err(BackupError::Checksum)), "cut at {at}");
            let mut damaged = whole.clone();
            damaged[at] ^= 0x40;
            assert!(matches!(Backup::read(&damaged), Err(BackupError::Checksum)), "damaged at {at}");
        }
    }

    #[test]
    fn a_right_checksum_over_something_else_is_refused() {
        let content = codec::encode_frame(&"hello").unwrap();
        let sum = aws_lc_rs::digest::digest(&SHA256, &content);
        let file = [content.as_slice(), &TRAILER_MAGIC, sum.as_ref()].concat();
        assert!(Backup::read(&file).is_err());
    }
}
