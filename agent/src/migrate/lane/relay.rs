//! Copies bytes both ways between two streams, with a bounded buffer for each direction. Every copy can be given up at any
//! await and gone on with later, by another process too: what was read and not yet written is in its [`Flow`].

use bytes::BufMut;
use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Read at once. Large enough that a system call a buffer costs nothing, small enough that a hundred lanes fit.
pub const BUFFER: usize = 256 << 10;

/// One direction's two ends.
pub struct Way<R, W> {
    /// Where bytes come from.
    pub from: R,
    /// Where they go.
    pub to: W,
}

/// Bytes that were read on one side and are yet to be written on the other.
#[derive(Debug, Default)]
pub struct Flow {
    bytes: Vec<u8>,
    written: usize,
}

impl Flow {
    /// With what a predecessor had not written.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, written: 0 }
    }

    /// What is yet to be written.
    pub fn rest(&self) -> &[u8] {
        &self.bytes[self.written..]
    }

    /// Where more is put, once all was written or taken.
    pub fn fill(&mut self) -> &mut Vec<u8> {
        debug_assert!(self.rest().is_empty(), "what was not written would be lost");
        self.bytes.clear();
        self.written = 0;
        &mut self.bytes
    }

    /// So many of [`Flow::rest`] are dealt with.
    pub fn take(&mut self, count: usize) {
        self.written = self.written.saturating_add(count).min(self.bytes.len());
    }

    /// Reads once, when nothing is left; 0 at the end.
    ///
    /// # Errors
    /// The system's.
    pub async fn read(&mut self, from: &mut (impl AsyncRead + Unpin)) -> io::Result<usize> {
        let bytes = self.fill();
        bytes.reserve(BUFFER);
        from.read_buf(&mut bytes.limit(BUFFER)).await
    }

    /// Writes all that is left.
    ///
    /// # Errors
    /// The system's.
    pub async fn write(&mut self, to: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
        while !self.rest().is_empty() {
            let count = to.write(self.rest()).await?;
            if count == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.take(count);
        }
        Ok(())
    }
}

/// Copies until the end of `from`, and then says so to `to` (half-close). What a slow reader has not taken is not
/// read from the other side either.
///
/// # Errors
/// The system's, when either side breaks.
pub async fn copy<R, W>(way: &mut Way<R, W>, flow: &mut Flow, counter: &AtomicU64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    loop {
        flow.write(&mut way.to).await?;
        let count = flow.read(&mut way.from).await?;
        if count == 0 {
            return way.to.shutdown().await;
        }
        // Before the write: who has read the bytes finds them counted.
        counter.fetch_add(count as u64, Ordering::Relaxed);
    }
}

/// Both directions of a connection, as they stand.
#[derive(Debug, Default)]
pub struct Flows {
    /// Towards the lane on the source, from the lane on the target.
    pub out: Flow,
    /// The other way.
    pub back: Flow,
}

/// Both directions, until both have ended or one breaks. Whoever drops the ends afterwards breaks the other
/// direction too, so that nobody waits for a peer that is gone.
///
/// # Errors
/// As [`copy`].
pub async fn both<R1, W1, R2, W2>(
    out: &mut Way<R1, W1>,
    back: &mut Way<R2, W2>,
    flows: &mut Flows,
    counter: &AtomicU64,
) -> io::Result<()>
where
    R1: AsyncRead + Unpin,
    W1: AsyncWrite + Unpin,
    R2: AsyncRead + Unpin,
    W2: AsyncWrite + Unpin,
{
    let (there, back) = (copy(out, &mut flows.out, counter), copy(back, &mut flows.back, counter));
    tokio::try_join!(there, back).map(drop)
}
