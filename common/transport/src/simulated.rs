//! What a simulated network provides in QUIC's place: connections whose peer is known, and streams of bytes on
//! them. Everything above that (headers, permissions, the gate, frames, the pool) is the same code for both. What
//! a network must keep to is `tests/sim/tests/link_contract.rs`, which QUIC passes too.

use crate::Role;
use async_trait::async_trait;
use std::{
    fmt::Debug,
    net::SocketAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite};

/// One machine's place in a simulated network.
#[async_trait]
pub trait SimulatedNet: Debug + Send + Sync + 'static {
    /// Connects to whoever is at `to`, or says why not.
    async fn dial(&self, to: SocketAddr) -> Result<Met, String>;
    /// The next connection that somebody else made; `None` once the machine is gone.
    async fn accept(&self) -> Option<Met>;
    /// Where this machine is.
    fn local_addr(&self) -> SocketAddr;
}

/// A new connection.
#[derive(Debug)]
pub struct Met {
    /// Who is at its other end.
    pub peer: Role,
    /// The connection.
    pub line: Arc<dyn SimulatedLine>,
}

/// One end of a simulated connection.
#[async_trait]
pub trait SimulatedLine: Debug + Send + Sync + 'static {
    /// Opens a stream, or says why the connection is over.
    async fn open(&self) -> Result<Halves, String>;
    /// The next stream that the peer opened, or why the connection is over.
    async fn accept(&self) -> Result<Halves, String>;
    /// Ends the connection.
    fn close(&self, reason: &str);
    /// Why it is over, if it is.
    fn close_reason(&self) -> Option<String>;
    /// Waits until it is over.
    async fn closed(&self) -> String;
    /// Where the peer is.
    fn remote_address(&self) -> SocketAddr;
    /// There and back.
    fn round_trip(&self) -> Duration;
}

/// Both halves of a stream.
pub type Halves = (Box<dyn SimulatedSend>, Box<dyn SimulatedRecv>);

/// The sending half of a stream.
pub trait SimulatedSend: AsyncWrite + Debug + Send + Sync + Unpin + 'static {
    /// A clean end.
    fn finish(&mut self);
    /// An end that the peer hears as a failure.
    fn reset(&mut self);
    /// Ready once the peer has everything, or does not want it.
    fn poll_acknowledged(&mut self, context: &mut Context<'_>) -> Poll<()>;
}

/// The receiving half: its end is a clean one, an error a broken one.
pub trait SimulatedRecv: AsyncRead + Debug + Send + Sync + Unpin + 'static {}
