//! QUIC's figures, in one place.

use crate::{fair::Fair, scavenger::Scavenger};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use std::{sync::Arc, time::Duration};

/// A silent link is given up after this; a black hole is noticed within it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// Often enough that two may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// The same for a link that a migration waits for. The smaller of both sides' limits holds (RFC 9000, section 10.1), so
/// it is enough that the dialler has it. Silence may be older than a limit by one keep-alive: 2.5 s in all.
const BRISK_IDLE_TIMEOUT: Duration = Duration::from_secs(2);
const BRISK_KEEP_ALIVE: Duration = Duration::from_millis(500);
/// Bytes that one stream may have in flight: 1 Gbit/s at 64 ms.
pub const STREAM_WINDOW: u32 = 8 << 20;
/// Bytes that all streams of a link may have in flight, and so the most a slow reader makes us hold.
pub const LINK_WINDOW: u32 = 48 << 20;
/// The first congestion window of a link, bytes (RFC 9002, section 7.2).
pub(crate) const INITIAL_WINDOW: u64 = 14_720;
/// Streams that a peer may have open at once.
const STREAMS_MAX: u32 = 1024;
/// Kernel buffers of the UDP socket, so that a burst is not lost while another task runs.
pub(crate) const SOCKET_BUFFER: usize = 4 << 20;

/// How soon a link that has gone silent is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Within [`IDLE_TIMEOUT`].
    Usual,
    /// Within 2.5 s.
    Brisk,
}

/// What a link takes of the way beside other traffic.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Sharing {
    /// Its part, as anybody else.
    #[default]
    Fair,
    /// What the others leave: it gives way when the round trip is longer than its shortest by [`crate::QUEUE_TARGET`].
    Yielding,
}

pub(crate) fn transport(patience: Patience, sharing: Sharing) -> Arc<TransportConfig> {
    let (idle, keep_alive) = match patience {
        Patience::Usual => (IDLE_TIMEOUT, KEEP_ALIVE),
        Patience::Brisk => (BRISK_IDLE_TIMEOUT, BRISK_KEEP_ALIVE),
    };
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IdleTimeout::try_from(idle).ok())
        .keep_alive_interval(Some(keep_alive))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .send_window(u64::from(LINK_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    match sharing {
        Sharing::Fair => config.congestion_controller_factory(Arc::new(Fair)),
        Sharing::Yielding => config.congestion_controller_factory(Arc::new(Scavenger)),
    };
    Arc::new(config)
}
