//! QUIC's figures, in one place.

use quinn::{IdleTimeout, TransportConfig, VarInt};
use std::{sync::Arc, time::Duration};

/// A silent link is given up after this; a black hole is noticed within it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(8);
/// Often enough that two may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// What one stream may have in flight: 1 Gbit/s at 64 ms.
const STREAM_WINDOW: u32 = 8 << 20;
/// What all streams of a link may have in flight, and so the most a slow reader makes us hold.
const LINK_WINDOW: u32 = 32 << 20;
/// Streams that a peer may have open at once.
const STREAMS_MAX: u32 = 1024;
/// Kernel buffers of the UDP socket, so that a burst is not lost while another task runs.
pub(crate) const SOCKET_BUFFER: usize = 4 << 20;

pub(crate) fn transport() -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok())
        .keep_alive_interval(Some(KEEP_ALIVE))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .send_window(u64::from(LINK_WINDOW))
        .max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None);
    Arc::new(config)
}
