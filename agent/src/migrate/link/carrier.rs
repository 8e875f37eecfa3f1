//! Moves frames between a lane and one stream, until the lane is over or the stream is.

use super::{
    Lie,
    lane::{Lane, Step},
    pace::Pacer,
};
use bytes::{Bytes, BytesMut};
use novacron_common::wire::{BadLaneFrame, LANE_FRAME_BYTES, LaneFrame, LaneId, LaneKind};
use novacron_transport::{RecvHalf, SendHalf, Stream, was_cut};
use std::io;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Of the lanes on one link libvirt's control lane goes first: a keep-alive that waits behind gigabytes of memory would
/// end the migration.
const CONTROL_PRIORITY: i32 = 2;

/// Of the memory lanes the main channel can wait: on post-copy's own a guest waits for each page.
const AWAITED_PRIORITY: i32 = 1;

/// Why a turn ended before the lane was over.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    /// The link was lost: another turn may go on.
    #[error("the link was lost")]
    Cut(#[source] io::Error),
    /// Another turn has begun.
    #[error("the lane was taken up again elsewhere")]
    Overtaken,
    /// The lane was broken off on this side.
    #[error("the lane was broken off here: {0}")]
    Broken(String),
    /// The peer dropped the stream, or ended it too early.
    #[error("the other side broke the lane off")]
    Stream(#[source] io::Error),
    /// It does not speak the protocol.
    #[error("the peer sent what is no frame")]
    Frame(#[from] BadLaneFrame),
    /// It cannot be telling the truth.
    #[error("the lane is refused")]
    Lie(#[from] Lie),
}

impl From<io::Error> for CarryError {
    fn from(error: io::Error) -> Self {
        if was_cut(&error) { Self::Cut(error) } else { Self::Stream(error) }
    }
}

/// Carries `lane` in `turn` over `stream`, whose opening is done, no faster than `pacer` lets it. `Ok` when both directions
/// are over on both sides.
///
/// # Errors
/// [`CarryError`].
pub async fn carry(lane: &Lane, turn: u32, stream: Stream, pacer: &Pacer) -> Result<(), CarryError> {
    let (send, recv) = stream.split();
    match lane.id() {
        LaneId { kind: LaneKind::Control, .. } => send.set_priority(CONTROL_PRIORITY),
        LaneId { kind: LaneKind::Memory, number: 1.. } => send.set_priority(AWAITED_PRIORITY),
        _ => {}
    }
    tokio::try_join!(send_frames(lane, turn, send, pacer), take_frames(lane, turn, recv)).map(drop)
}

async fn send_frames(lane: &Lane, turn: u32, mut to: SendHalf, pacer: &Pacer) -> Result<(), CarryError> {
    loop {
        match lane.next_step(turn).await {
            Step::Frame(frame, bytes) => {
                if lane.id().kind != LaneKind::Control {
                    pacer.take(bytes.len()).await;
                }
                let header = Bytes::copy_from_slice(&frame.to_bytes());
                to.write_chunks(&mut [header, bytes]).await?;
            }
            Step::Complete => {
                to.finish();
                return Ok(());
            }
            Step::Broken => return Err(CarryError::Broken(lane.broken().unwrap_or_default())),
            Step::Overtaken => return Err(CarryError::Overtaken),
            Step::Wait => {}
        }
    }
}

async fn take_frames(lane: &Lane, turn: u32, mut from: RecvHalf) -> Result<(), CarryError> {
    while let Some((frame, bytes)) = read_frame(&mut from).await? {
        lane.take(turn, frame, bytes)?;
    }
    // The peer ends the stream once it has heard everything and knows the same of this side.
    if lane.is_agreed() { Ok(()) } else { Err(CarryError::Stream(io::ErrorKind::UnexpectedEof.into())) }
}

/// The next frame with its bytes; `None` at a clean end.
///
/// # Errors
/// As [`carry`].
pub(super) async fn read_frame(
    from: &mut (impl AsyncRead + Unpin),
) -> Result<Option<(LaneFrame, Bytes)>, CarryError> {
    let mut header = [0; LANE_FRAME_BYTES];
    let first = from.read(&mut header).await?;
    if first == 0 {
        return Ok(None);
    }
    from.read_exact(&mut header[first..]).await?;
    let frame = LaneFrame::parse(header)?;
    let LaneFrame::Data { length, .. } = frame else { return Ok(Some((frame, Bytes::new()))) };
    let length = length as usize;
    let mut bytes = BytesMut::with_capacity(length);
    while bytes.len() < length {
        let missing = (length - bytes.len()) as u64;
        if (&mut *from).take(missing).read_buf(&mut bytes).await? == 0 {
            return Err(CarryError::Stream(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Ok(Some((frame, bytes.freeze())))
}
