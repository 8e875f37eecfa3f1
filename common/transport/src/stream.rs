//! One bidirectional stream of a link: frames, or plain bytes.

use crate::{
    LinkError,
    connection::{Receiver, Sender, Short, is_cut},
};
use bytes::Bytes;
use novacron_common::wire::{
    HEADER_BYTES, StreamHeader,
    codec::{self, LENGTH_BYTES},
};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The sending half, as plain bytes. Dropping it without [`SendHalf::finish`] resets the stream, so that the
/// peer never takes a broken stream for a complete one.
#[derive(Debug)]
pub struct SendHalf {
    inner: Sender,
    finished: bool,
}

/// The receiving half, as plain bytes.
#[derive(Debug)]
pub struct RecvHalf(Receiver);

/// A stream.
#[derive(Debug)]
pub struct Stream {
    send: SendHalf,
    recv: RecvHalf,
}

fn broken(doing: &'static str) -> impl Fn(String) -> LinkError {
    move |reason| LinkError::Broken { doing, reason }
}

impl Stream {
    pub(crate) fn new((send, recv): (Sender, Receiver)) -> Self {
        Self { send: SendHalf { inner: send, finished: false }, recv: RecvHalf(recv) }
    }

    pub(crate) async fn send_header(&mut self, header: StreamHeader) -> Result<(), LinkError> {
        let written = self.send.inner.write_all(&header.to_bytes()).await;
        written.map_err(broken("writing the header"))
    }

    pub(crate) async fn recv_header(&mut self) -> Result<StreamHeader, LinkError> {
        let mut bytes = [0; HEADER_BYTES];
        let read = self.recv.0.read_exact(&mut bytes).await;
        read.map_err(|short| broken("reading the header")(short.reason()))?;
        Ok(StreamHeader::parse(bytes)?)
    }

    /// Sends one frame.
    ///
    /// # Errors
    /// [`LinkError`] if it is too long or the stream broke.
    pub async fn send<T: Serialize + ?Sized + Sync>(&mut self, value: &T) -> Result<(), LinkError> {
        self.send.send(value).await
    }

    /// Receives one frame.
    ///
    /// # Errors
    /// [`LinkError`] if the stream ended or broke, or the frame is not a `T`.
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        self.recv.recv().await
    }

    /// Receives one frame, or `None` at a clean end.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub async fn recv_opt<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        self.recv.recv_opt().await
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        self.send.finish();
    }

    /// Both halves as plain bytes.
    pub fn split(self) -> (SendHalf, RecvHalf) {
        (self.send, self.recv)
    }
}

impl SendHalf {
    /// Sends one frame.
    ///
    /// # Errors
    /// As [`Stream::send`].
    pub async fn send<T: Serialize + ?Sized + Sync>(&mut self, value: &T) -> Result<(), LinkError> {
        let frame = codec::encode_frame(&value)?;
        self.inner.write_all(&frame).await.map_err(broken("writing a frame"))
    }

    /// Sends chunks of plain bytes, which are kept until the peer has them, not copied.
    ///
    /// # Errors
    /// If the stream or its link is over; [`was_cut`] tells which.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        self.inner.write_chunks(chunks).await
    }

    /// Says that nothing more will be sent.
    pub fn finish(&mut self) {
        self.finished = true;
        self.inner.finish();
    }

    /// Waits until the peer has received everything, or has stopped listening.
    pub async fn acknowledged(&mut self) {
        self.inner.acknowledged().await;
    }

    /// Of several streams on one link, the highest goes first (default 0).
    pub fn set_priority(&self, priority: i32) {
        self.inner.set_priority(priority);
    }
}

/// Whether reading or writing a stream failed because its whole link was lost, and not because either side ended the
/// stream or the link: then the same may be tried on another link.
pub fn was_cut(error: &io::Error) -> bool {
    is_cut(error)
}

impl Drop for SendHalf {
    fn drop(&mut self) {
        if !self.finished {
            self.inner.reset();
        }
    }
}

impl RecvHalf {
    /// Receives one frame.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub async fn recv<T: DeserializeOwned>(&mut self) -> Result<T, LinkError> {
        let frame = self.recv_opt().await?;
        frame.ok_or_else(|| broken("waiting for a frame")("the peer ended the stream".into()))
    }

    /// Receives one frame, or `None` at a clean end.
    ///
    /// # Errors
    /// As [`Stream::recv`].
    pub async fn recv_opt<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        let mut prefix = [0; LENGTH_BYTES];
        match self.0.read_exact(&mut prefix).await {
            Ok(()) => {}
            Err(Short::Ended) => return Ok(None),
            Err(short) => return Err(broken("reading a frame's length")(short.reason())),
        }
        let mut frame = vec![0; codec::frame_length(prefix)?];
        let read = self.0.read_exact(&mut frame).await;
        read.map_err(|short| broken("reading a frame")(short.reason()))?;
        Ok(Some(codec::decode(&frame)?))
    }
}

impl AsyncWrite for SendHalf {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        AsyncWrite::poll_write(Pin::new(&mut self.inner), cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        AsyncWrite::poll_flush(Pin::new(&mut self.inner), cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for RecvHalf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        AsyncRead::poll_read(Pin::new(&mut self.0), cx, buf)
    }
}
