//! A connection and the halves of its streams, over QUIC or in a simulated network: the only place where the two
//! differ.

use crate::simulated::{SimulatedLine, SimulatedRecv, SimulatedSend};
use bytes::Bytes;
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A connection. Clones are the same one.
#[derive(Clone)]
pub(crate) enum Connection {
    Quic(quinn::Connection),
    Simulated(Arc<dyn SimulatedLine>),
}

/// The sending half of a stream.
#[derive(Debug)]
pub(crate) enum Sender {
    Quic(quinn::SendStream),
    Simulated(Box<dyn SimulatedSend>),
}

/// The receiving half of a stream.
#[derive(Debug)]
pub(crate) enum Receiver {
    Quic(quinn::RecvStream),
    Simulated(Box<dyn SimulatedRecv>),
}

/// Fewer bytes came than were asked for.
pub(crate) enum Short {
    /// None: a clean end.
    Ended,
    /// Why.
    Broken(String),
}

impl Connection {
    pub async fn open(&self) -> Result<(Sender, Receiver), String> {
        match self {
            Self::Quic(quic) => match quic.open_bi().await {
                Ok((send, recv)) => Ok((Sender::Quic(send), Receiver::Quic(recv))),
                Err(error) => Err(error.to_string()),
            },
            Self::Simulated(line) => {
                line.open().await.map(|(send, recv)| (Sender::Simulated(send), Receiver::Simulated(recv)))
            }
        }
    }

    pub async fn accept(&self) -> Result<(Sender, Receiver), String> {
        match self {
            Self::Quic(quic) => match quic.accept_bi().await {
                Ok((send, recv)) => Ok((Sender::Quic(send), Receiver::Quic(recv))),
                Err(error) => Err(error.to_string()),
            },
            Self::Simulated(line) => {
                line.accept().await.map(|(send, recv)| (Sender::Simulated(send), Receiver::Simulated(recv)))
            }
        }
    }

    pub fn close(&self, code: u32, reason: &str) {
        match self {
            Self::Quic(quic) => {
                tell_how_it_was(quic, reason);
                quic.close(quinn::VarInt::from_u32(code), reason.as_bytes());
            }
            Self::Simulated(line) => line.close(reason),
        }
    }

    pub fn is_closed(&self) -> bool {
        match self {
            Self::Quic(quic) => quic.close_reason().is_some(),
            Self::Simulated(line) => line.close_reason().is_some(),
        }
    }

    pub async fn closed(&self) -> String {
        match self {
            Self::Quic(quic) => quic.closed().await.to_string(),
            Self::Simulated(line) => line.closed().await,
        }
    }

    /// Whether it ended because one side wanted it so; false while it lives, too.
    pub fn is_closed_on_purpose(&self) -> bool {
        match self {
            Self::Quic(quic) => quic.close_reason().is_some_and(|reason| is_on_purpose(&reason)),
            // A simulated line says of neither end why.
            Self::Simulated(line) => line.close_reason().is_some(),
        }
    }

    pub fn remote_address(&self) -> SocketAddr {
        match self {
            Self::Quic(quic) => quic.remote_address(),
            Self::Simulated(line) => line.remote_address(),
        }
    }

    pub fn round_trip(&self) -> Duration {
        match self {
            Self::Quic(quic) => quic.rtt(),
            Self::Simulated(line) => line.round_trip(),
        }
    }

    /// Different for connections that exist at the same time.
    pub fn stable_id(&self) -> usize {
        match self {
            Self::Quic(quic) => quic.stable_id(),
            Self::Simulated(line) => Arc::as_ptr(line).cast::<()>() as usize,
        }
    }
}

impl Sender {
    pub async fn write_all(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self {
            Self::Quic(quic) => quic.write_all(bytes).await.map_err(|e| e.to_string()),
            Self::Simulated(send) => AsyncWriteExt::write_all(send, bytes).await.map_err(|e| e.to_string()),
        }
    }

    /// Writes all of it without copying where the connection can keep the chunks themselves.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> io::Result<()> {
        match self {
            Self::Quic(quic) => Ok(quic.write_all_chunks(chunks).await?),
            Self::Simulated(send) => {
                for chunk in chunks {
                    AsyncWriteExt::write_all(send, chunk).await?;
                }
                Ok(())
            }
        }
    }

    pub fn finish(&mut self) {
        match self {
            // It fails only on a stream that is over.
            Self::Quic(quic) => drop(quic.finish()),
            Self::Simulated(send) => send.finish(),
        }
    }

    pub fn reset(&mut self) {
        match self {
            Self::Quic(quic) => drop(quic.reset(quinn::VarInt::from_u32(1))),
            Self::Simulated(send) => send.reset(),
        }
    }

    pub async fn acknowledged(&mut self) {
        match self {
            Self::Quic(quic) => drop(quic.stopped().await),
            Self::Simulated(send) => std::future::poll_fn(|context| send.poll_acknowledged(context)).await,
        }
    }

    pub fn set_priority(&self, priority: i32) {
        match self {
            Self::Quic(quic) => drop(quic.set_priority(priority)),
            // Its streams do not compete.
            Self::Simulated(_) => {}
        }
    }
}

impl Receiver {
    pub async fn read_exact(&mut self, bytes: &mut [u8]) -> Result<(), Short> {
        match self {
            Self::Quic(quic) => quic.read_exact(bytes).await.map_err(|error| match error {
                quinn::ReadExactError::FinishedEarly(0) => Short::Ended,
                error => Short::Broken(error.to_string()),
            }),
            Self::Simulated(recv) => read_exact(recv, bytes).await,
        }
    }
}

async fn read_exact(from: &mut Box<dyn SimulatedRecv>, bytes: &mut [u8]) -> Result<(), Short> {
    let mut have = 0;
    while have < bytes.len() {
        match from.read(&mut bytes[have..]).await {
            Ok(0) if have == 0 => return Err(Short::Ended),
            Ok(0) => return Err(Short::Broken(format!("stream finished early ({have} bytes read)"))),
            Ok(more) => have += more,
            Err(error) => return Err(Short::Broken(error.to_string())),
        }
    }
    Ok(())
}

impl Short {
    pub fn reason(self) -> String {
        match self {
            Self::Ended => "the peer ended the stream".into(),
            Self::Broken(reason) => reason,
        }
    }
}

/// What the path did to a link's packets, for who looks why it was slow.
fn tell_how_it_was(quic: &quinn::Connection, reason: &str) {
    let quinn::ConnectionStats { path, udp_tx, .. } = quic.stats();
    tracing::debug!(
        reason,
        peer = %quic.remote_address(),
        round_trip = ?path.rtt,
        window = path.cwnd,
        mtu = path.current_mtu,
        packets = path.sent_packets,
        lost = path.lost_packets,
        lost_bytes = path.lost_bytes,
        sent_bytes = udp_tx.bytes,
        "link closes"
    );
}

/// QUIC's code for links of a process that is started again in a moment: they were not ended, they are to be dialled again.
pub(crate) const RESTARTING: u32 = 3;

fn is_on_purpose(reason: &quinn::ConnectionError) -> bool {
    use quinn::ConnectionError::{ApplicationClosed, LocallyClosed};
    match reason {
        ApplicationClosed(close) => close.error_code != quinn::VarInt::from_u32(RESTARTING),
        reason => matches!(reason, LocallyClosed),
    }
}

/// Whether a stream broke because its connection did, and nobody wanted that: it may be had again.
pub(crate) fn is_cut(error: &io::Error) -> bool {
    let Some(cause) = error.get_ref() else { return false };
    let lost = match (cause.downcast_ref::<quinn::ReadError>(), cause.downcast_ref::<quinn::WriteError>()) {
        (Some(quinn::ReadError::ConnectionLost(reason)), _) => reason,
        (_, Some(quinn::WriteError::ConnectionLost(reason))) => reason,
        _ => return false,
    };
    !is_on_purpose(lost)
}

impl AsyncWrite for Sender {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Quic(quic) => AsyncWrite::poll_write(Pin::new(quic), context, bytes),
            Self::Simulated(send) => Pin::new(send).poll_write(context, bytes),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Quic(quic) => AsyncWrite::poll_flush(Pin::new(quic), context),
            Self::Simulated(send) => Pin::new(send).poll_flush(context),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Receiver {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Quic(quic) => AsyncRead::poll_read(Pin::new(quic), context, buffer),
            Self::Simulated(recv) => Pin::new(recv).poll_read(context, buffer),
        }
    }
}
