//! One round of a copy: a pass over memory, or as many bytes as one would take.

use super::Look;
use novacron_common::record::MoveLimits;
use std::time::Duration;

/// Shorter ones say nothing.
const ROUND_MIN: Duration = Duration::from_millis(MoveLimits::ROUND_MIN_MS);

/// What was seen of it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    began: Look,
    peak: u64,
    looks: u32,
}

impl Round {
    /// Begins with a look.
    pub(super) fn begin(look: Look) -> Self {
        Self { began: look, peak: look.remaining, looks: 1 }
    }

    /// Goes on.
    pub(super) fn see(&mut self, look: Look) {
        self.peak = self.peak.max(look.remaining);
        self.looks += 1;
    }

    /// Whether `look` belongs to the next one. While nothing moves, as on a link that is lost, none ends; and one look alone
    /// may have come at the very end of a pass, when next to nothing is left.
    pub(super) fn ends_with(&self, look: Look) -> bool {
        let sent = look.sent.saturating_sub(self.began.sent);
        let whole = look.iteration > self.began.iteration || sent > self.began.remaining;
        let long = self.looks > 1 && look.at >= self.began.at + ROUND_MIN;
        whole && sent > 0 && long || self.is_of_disks() && look.iteration > 0
    }

    /// The most that was left at any time, bytes.
    pub(super) fn peak(&self) -> u64 {
        self.peak
    }

    /// Whether memory had not begun yet.
    pub(super) fn is_of_disks(&self) -> bool {
        self.began.iteration == 0
    }

    /// Bytes a second up to `end`.
    pub(super) fn rate(&self, end: Look) -> u64 {
        let millis = end.at.saturating_sub(self.began.at).as_millis();
        let sent = u128::from(end.sent.saturating_sub(self.began.sent));
        (sent * 1000).checked_div(millis).and_then(|rate| u64::try_from(rate).ok()).unwrap_or(0)
    }
}
