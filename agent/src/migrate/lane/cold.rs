//! A stopped machine's disk: its qcow2 overlay as a file. The image below it is on the target already.
//!
//! On a `Disk` lane, behind the verdict: an [`Offer`] frame, that many bytes, the end of the direction; back a
//! [`Taken`] frame once the bytes are on stable storage. What arrives comes from a host that may have been taken
//! over, so its header is read before the file is used: it may name the expected backing file and no other.

use crate::{
    hypervisor::MachineFiles,
    image::qcow2::{self, Qcow2Fault},
    migrate::link::lane::{LaneReader, LaneWriter},
};
use aws_lc_rs::digest::{Context, SHA256};
use novacron_common::{
    spec::VmSpec,
    units::ByteCount,
    wire::codec::{self, CodecError, LENGTH_BYTES},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
};

const CHUNK: usize = 1 << 20;
/// Room for qcow2's tables beside a full disk.
const TABLES: ByteCount = ByteCount::mib(64);

/// What comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offer {
    /// Bytes that follow; `None` if the machine has no disk.
    pub length: Option<u64>,
    /// Whether the machine ran before it was stopped for the move, and so is started again.
    pub ran: bool,
}

/// SHA-256 of what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken(pub [u8; 32]);

/// A disk that did not cross.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    /// What comes over the lane is not what belongs there.
    #[error("the disk lane carries something else")]
    Frame(#[from] CodecError),
    /// The lane.
    #[error("the disk lane broke")]
    Lane(#[source] io::Error),
    /// The file.
    #[error("could not {doing} {}", path.display())]
    File {
        /// "read" or "write".
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// The kernel's reason.
        #[source]
        cause: io::Error,
    },
    /// It is longer than the machine's disk can be, or there should be none.
    #[error("a disk of {0} bytes does not belong to this machine")]
    Length(u64),
    /// It changed on the way.
    #[error("the disk that was written is not the one that was sent")]
    Digest,
    /// The file is not an overlay of this machine.
    #[error("the disk that arrived is refused")]
    Header(#[source] Qcow2Fault),
}

/// Where a disk is to land.
#[derive(Debug, Clone)]
pub struct Landing {
    disk: Option<PathBuf>,
    backing: Option<String>,
    length_max: u64,
}

impl Landing {
    /// For a machine whose files are prepared.
    pub fn new(files: &MachineFiles, spec: &VmSpec) -> Self {
        let storage = if spec.storage.0 == 0 { VmSpec::STORAGE_MAX } else { spec.storage };
        let backing = files.backing.as_ref().map(|(path, _)| path.display().to_string());
        let length_max = storage.saturating_add(ByteCount(storage.0 / 10)).saturating_add(TABLES).0;
        Self { disk: files.disk.clone(), backing, length_max }
    }
}

/// What is sent.
pub struct Cargo<'a> {
    /// The disk, if the machine has one.
    pub disk: Option<&'a Path>,
    /// Whether the machine ran.
    pub ran: bool,
    /// Counts what has been sent.
    pub counter: &'a AtomicU64,
}

/// Sends a machine's disk; returns once the target has it on stable storage.
///
/// # Errors
/// [`ColdError`].
pub async fn send((mut from, mut to): (LaneReader, LaneWriter), cargo: Cargo<'_>) -> Result<(), ColdError> {
    let Cargo { disk, ran, counter } = cargo;
    let Some(path) = disk else {
        put(&mut to, &Offer { length: None, ran }).await?;
        return expect(&mut from, Context::new(&SHA256)).await;
    };
    let failed = |cause| ColdError::File { doing: "read", path: path.to_owned(), cause };
    let mut file = File::open(path).await.map_err(failed)?;
    let length = file.metadata().await.map_err(failed)?.len();
    put(&mut to, &Offer { length: Some(length), ran }).await?;
    let (mut digest, mut buffer, mut left) = (Context::new(&SHA256), vec![0; CHUNK], length);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        file.read_exact(&mut buffer[..want]).await.map_err(failed)?;
        digest.update(&buffer[..want]);
        to.write_all(&buffer[..want]).await.map_err(ColdError::Lane)?;
        counter.fetch_add(want as u64, Ordering::Relaxed);
        left -= want as u64;
    }
    to.shutdown().await.map_err(ColdError::Lane)?;
    expect(&mut from, digest).await
}

async fn put<T: Serialize>(to: &mut LaneWriter, value: &T) -> Result<(), ColdError> {
    to.write_all(&codec::encode_frame(value)?).await.map_err(ColdError::Lane)
}

async fn get<T: DeserializeOwned>(from: &mut LaneReader) -> Result<T, ColdError> {
    let mut prefix = [0; LENGTH_BYTES];
    from.read_exact(&mut prefix).await.map_err(ColdError::Lane)?;
    let mut frame = vec![0; codec::frame_length(prefix)?];
    from.read_exact(&mut frame).await.map_err(ColdError::Lane)?;
    Ok(codec::decode(&frame)?)
}

async fn expect(from: &mut LaneReader, digest: Context) -> Result<(), ColdError> {
    let Taken(written) = get(from).await?;
    if written == digest.finish().as_ref() { Ok(()) } else { Err(ColdError::Digest) }
}

/// Receives a disk into the prepared file, in place of the empty overlay there; says whether the machine ran.
///
/// # Errors
/// [`ColdError`].
pub async fn receive(
    (mut from, mut to): (LaneReader, LaneWriter),
    landing: &Landing,
) -> Result<bool, ColdError> {
    let Offer { length, ran } = get(&mut from).await?;
    let mut digest = Context::new(&SHA256);
    match (length, &landing.disk) {
        (None, None) => {}
        (Some(length), Some(path)) if length <= landing.length_max => {
            write(&mut from, path, length, &mut digest).await?;
            check_header(path, length, landing.backing.as_deref()).await?;
        }
        (length, _) => return Err(ColdError::Length(length.unwrap_or(0))),
    }
    let mut taken = [0; 32];
    taken.copy_from_slice(digest.finish().as_ref());
    put(&mut to, &Taken(taken)).await?;
    to.shutdown().await.map_err(ColdError::Lane)?;
    to.delivered().await;
    Ok(ran)
}

async fn write(
    from: &mut LaneReader,
    path: &Path,
    length: u64,
    digest: &mut Context,
) -> Result<(), ColdError> {
    let failed = |cause| ColdError::File { doing: "write", path: path.to_owned(), cause };
    // Not made anew: the prepared file has the right owner already.
    let mut file = File::options().write(true).truncate(true).open(path).await.map_err(failed)?;
    let (mut buffer, mut left) = (vec![0; CHUNK], length);
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        from.read_exact(&mut buffer[..want]).await.map_err(ColdError::Lane)?;
        digest.update(&buffer[..want]);
        file.write_all(&buffer[..want]).await.map_err(failed)?;
        left -= want as u64;
    }
    file.sync_all().await.map_err(failed)
}

async fn check_header(path: &Path, length: u64, backing: Option<&str>) -> Result<(), ColdError> {
    let failed = |cause| ColdError::File { doing: "read", path: path.to_owned(), cause };
    let mut head = Vec::with_capacity(qcow2::HEADER_MAX);
    let file = File::open(path).await.map_err(failed)?;
    file.take(qcow2::HEADER_MAX as u64).read_to_end(&mut head).await.map_err(failed)?;
    overlay(&mut head, length, backing).map_err(ColdError::Header)
}

/// Holds an overlay's header to what an image's is held to, but for the one backing file that it may name.
fn overlay(head: &mut [u8], length: u64, backing: Option<&str>) -> Result<(), Qcow2Fault> {
    const OFFSET: std::ops::Range<usize> = 8..16;
    const SIZE: std::ops::Range<usize> = 16..20;
    let word = |range: std::ops::Range<usize>| {
        let bytes = head.get(range).ok_or(Qcow2Fault::NotQcow2)?;
        Ok(bytes.iter().fold(0u64, |word, byte| word << 8 | u64::from(*byte)))
    };
    let (offset, size) = (word(OFFSET)?, word(SIZE)?);
    if offset != 0 {
        let absurd = |_| Qcow2Fault::Absurd("backing file");
        let start = usize::try_from(offset).map_err(absurd)?;
        let end = start.saturating_add(usize::try_from(size).map_err(absurd)?);
        let named = head.get(start..end).ok_or(Qcow2Fault::Truncated("backing file's name"))?;
        if Some(named) != backing.map(str::as_bytes) {
            return Err(Qcow2Fault::BackingFile);
        }
        head[OFFSET].fill(0);
        head[SIZE].fill(0);
    }
    qcow2::parse(head, ByteCount(length)).map(drop)
}
