//! How far a copy is, from the hypervisor's figures and the relay's own counts; and whether it moves at all. Pure.

use super::ports::Copied;
use novacron_common::record::{MigrationProgress, TransferCounts};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The rate is taken over this long.
const RATE_OVER: Duration = Duration::from_secs(1);
/// A copy of which no byte has moved for so long is given up: longer than a link's own limit, and than libvirt's
/// keep-alive takes (6 × 5 s).
pub const STALL: Duration = Duration::from_secs(40);

/// Turns counts into progress.
#[derive(Debug, Default)]
pub struct Meter {
    samples: VecDeque<(Instant, u64)>,
    moved: Option<(Instant, u64)>,
    permille: u16,
    /// The last figures that the hypervisor gave.
    last: Copied,
}

impl Meter {
    /// The progress at `now`.
    pub fn read(
        &mut self,
        now: Instant,
        counts: TransferCounts,
        copied: Option<Copied>,
    ) -> MigrationProgress {
        self.last = copied.unwrap_or(self.last);
        self.count(now, counts);
        let rate = self.rate(now);
        let whole = self.last.processed.saturating_add(self.last.remaining);
        let permille = (u128::from(self.last.processed) * 1000).checked_div(u128::from(whole)).unwrap_or(0);
        // Until memory begins nobody knows how much of it there is: disks alone take the first tenth.
        let permille = if self.last.iteration == 0 { permille / 10 } else { permille };
        // A guest that dirties faster than it is copied does not turn the bar back.
        self.permille = self.permille.max(u16::try_from(permille).unwrap_or(1000).min(999));
        MigrationProgress {
            permille: self.permille,
            counts,
            remaining_bytes: self.last.remaining,
            rate,
            iteration: self.last.iteration,
            dirty_pages_per_second: self.last.dirty_pages_per_second,
            remaining_ms: (u128::from(self.last.remaining) * 1000)
                .checked_div(u128::from(rate))
                .and_then(|ms| u64::try_from(ms).ok()),
            ..MigrationProgress::default()
        }
    }

    /// Whether the copy had begun and then nothing moved for [`STALL`].
    pub fn is_stalled(&self, now: Instant) -> bool {
        self.moved.is_some_and(|(at, bytes)| bytes > 0 && now.duration_since(at) > STALL)
    }

    /// The hypervisor's last figures.
    pub fn last(&self) -> Copied {
        self.last
    }

    fn count(&mut self, now: Instant, counts: TransferCounts) {
        let bytes = counts.memory_bytes + counts.disk_bytes; // keep-alives on the control lane are no progress
        if self.moved.is_none_or(|(_, before)| before != bytes) {
            self.moved = Some((now, bytes));
        }
        self.samples.push_back((now, counts.total()));
        while self.samples.len() > 2 && now.duration_since(self.samples[1].0) >= RATE_OVER {
            self.samples.pop_front();
        }
    }

    fn rate(&self, now: Instant) -> u64 {
        let (Some((since, before)), Some((_, after))) = (self.samples.front(), self.samples.back()) else {
            return 0;
        };
        let millis = now.duration_since(*since).as_millis();
        let rate = u128::from(after - before) * 1000;
        rate.checked_div(millis).and_then(|rate| u64::try_from(rate).ok()).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(memory_bytes: u64, control_bytes: u64) -> TransferCounts {
        TransferCounts { memory_bytes, control_bytes, ..TransferCounts::default() }
    }

    #[test]
    fn rate_and_remaining_time_follow_the_last_second() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        let copied = Some(Copied { processed: 100, remaining: 300, iteration: 1, ..Copied::default() });
        meter.read(start, counts(0, 0), copied);
        meter.read(start + Duration::from_millis(500), counts(50, 0), copied);
        let progress = meter.read(start + Duration::from_secs(1), counts(100, 0), copied);
        assert_eq!((progress.rate, progress.remaining_ms, progress.permille), (100, Some(3000), 250));
        let progress = meter.read(start + Duration::from_secs(2), counts(400, 0), None);
        assert_eq!((progress.rate, progress.remaining_bytes), (300, 300));
    }

    #[test]
    fn the_bar_does_not_run_backwards_nor_reach_the_end_early() {
        let (mut meter, now) = (Meter::default(), Instant::now());
        let mut at = |iteration, processed, remaining| {
            let copied = Copied { processed, remaining, iteration, ..Copied::default() };
            meter.read(now, counts(0, 0), Some(copied)).permille
        };
        assert_eq!([at(0, 90, 10), at(1, 50, 50), at(2, 10, 90), at(3, 100, 0)], [90, 500, 500, 999]);
    }

    #[test]
    fn keep_alives_do_not_hide_a_stall_and_a_long_preparation_is_none() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        meter.read(start, counts(0, 10), None);
        assert!(!meter.is_stalled(start + STALL * 2), "nothing has begun");
        meter.read(start, counts(1, 10), None);
        meter.read(start + STALL, counts(1, 99), None);
        assert!(meter.is_stalled(start + STALL + Duration::from_secs(1)));
    }
}
