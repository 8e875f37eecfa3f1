//! How a machine is asked to end, and when it is ended unasked.

use super::Signal;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What a machine's command is sent, and how long it may take to end on that. A KVM machine is asked by its power button.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopTerms {
    /// What the command of a namespace machine is sent; where nothing is said, what its image names, or else TERM.
    pub signal: Option<Signal>,
    /// Milliseconds between that and the end of it; without any, it is not asked at all.
    pub grace_ms: u64,
}

impl StopTerms {
    /// The power is cut.
    pub const AT_ONCE: Self = Self::within_ms(0);

    /// The machine's own signal, and so long.
    pub const fn within_ms(grace_ms: u64) -> Self {
        Self { signal: None, grace_ms }
    }

    /// These, with a signal where they name none.
    #[must_use]
    pub fn or_signal(self, usual: Signal) -> Self {
        Self { signal: self.signal.or(Some(usual)), ..self }
    }

    /// How long it may take.
    pub const fn grace(self) -> Duration {
        Duration::from_millis(self.grace_ms)
    }

    /// These, with no more than so much of grace.
    #[must_use]
    pub fn at_most_ms(self, most: u64) -> Self {
        Self { grace_ms: self.grace_ms.min(most), ..self }
    }
}

impl From<Duration> for StopTerms {
    fn from(grace: Duration) -> Self {
        Self::within_ms(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX))
    }
}
