//! How fast the way to another host is: a few bytes at full speed, counted where they arrive.

use super::Denial;
use serde::{Deserialize, Serialize};

/// Most bytes in a probe: a tenth of a second at 400 Mbit/s, and long enough that QUIC's slow start is over by its end
/// (RFC 9002, section 7.3.1).
pub const PROBE_BYTES_MAX: u32 = 4 << 20;
/// How long the receiver counts at most, milliseconds. A slow link is known by then, too.
pub const PROBE_MS_MAX: u64 = 2000;

/// First frame of a `Probe` stream, from the agent that would send a machine. Behind the verdict come that many plain bytes,
/// which mean nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeOpen {
    /// How many bytes will follow: 1 to [`PROBE_BYTES_MAX`].
    pub bytes: u32,
}

/// First frame back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProbeVerdict {
    /// Send.
    Go,
    /// Not now (moves are under way, or enough other probes), or not so many.
    Refused(Denial),
}

/// Second frame back, when all has come or [`PROBE_MS_MAX`] have passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeCount {
    /// Bytes behind the first quarter, at whose end the sender is up to speed.
    pub bytes: u64,
    /// How long they took, microseconds.
    pub micros: u64,
}

impl ProbeCount {
    /// Bytes a second; `None` if too little came to say.
    pub fn rate(self) -> Option<u64> {
        let rate = (u128::from(self.bytes) * 1_000_000).checked_div(self.micros.into())?;
        u64::try_from(rate).ok().filter(|rate| *rate > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_bytes_by_time_and_nothing_without_either() {
        assert_eq!(ProbeCount { bytes: 3 << 20, micros: 250_000 }.rate(), Some(12 << 20));
        assert_eq!(ProbeCount { bytes: u64::MAX, micros: 1 }.rate(), None);
        for (bytes, micros) in [(0, 5), (5, 0), (0, 0)] {
            assert_eq!(ProbeCount { bytes, micros }.rate(), None);
        }
    }
}
