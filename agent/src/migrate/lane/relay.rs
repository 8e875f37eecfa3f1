//! Copies bytes both ways between two streams, with a bounded buffer for each direction.

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

/// Copies until the end of `from`, and then says so to `to` (half-close). What a slow reader has not taken is not
/// read from the other side either.
///
/// # Errors
/// The system's, when either side breaks.
pub async fn copy<R, W>(way: &mut Way<R, W>, counter: &AtomicU64) -> io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER];
    loop {
        let count = way.from.read(&mut buffer).await?;
        if count == 0 {
            return way.to.shutdown().await;
        }
        // Before the write: who has read the bytes finds them counted.
        counter.fetch_add(count as u64, Ordering::Relaxed);
        way.to.write_all(&buffer[..count]).await?;
    }
}

/// Both directions, until both have ended or one breaks. Whoever drops the ends afterwards breaks the other
/// direction too, so that nobody waits for a peer that is gone.
///
/// # Errors
/// As [`copy`].
pub async fn both<R1, W1, R2, W2>(
    out: &mut Way<R1, W1>,
    back: &mut Way<R2, W2>,
    counter: &AtomicU64,
) -> io::Result<()>
where
    R1: AsyncRead + Unpin,
    W1: AsyncWrite + Unpin,
    R2: AsyncRead + Unpin,
    W2: AsyncWrite + Unpin,
{
    tokio::try_join!(copy(out, counter), copy(back, counter)).map(drop)
}
