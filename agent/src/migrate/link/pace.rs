//! How fast lanes may send: a budget of the host for all its migrations, so that a move leaves room for other traffic.
//!
//! A frame of memory or of a disk waits here for its turn before QUIC gets it; libvirt's control lane never waits, and
//! neither do acknowledgements. QUIC's own congestion control still holds below.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::{Instant, sleep_until};

/// What was not used may be made up for so long: as much as a sender that wakes up late needs, and little enough that no
/// switch's queue fills.
const BURST: Duration = Duration::from_millis(10);

/// So many bytes a second, for all who share it: the generic cell rate algorithm (ITU-T I.371, annex A), which keeps nothing
/// but the instant at which the next byte is due.
#[derive(Debug)]
pub struct Budget {
    bytes_per_second: f64,
    due: Mutex<Instant>,
}

impl Budget {
    /// So many Mbit (10⁶ bits) a second.
    pub fn of_mbit(mbit: NonZeroU32) -> Self {
        Self { bytes_per_second: f64::from(mbit.get()) * 1e6 / 8.0, due: Mutex::new(Instant::now()) }
    }

    /// Books `bytes`, and says when they may go.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.checked_sub(BURST).map_or(now, |earliest| earliest.max(*due));
        *due = at + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        at
    }
}

/// What a migration's lanes send by. Clones share the budget; the default has none.
#[derive(Debug, Clone, Default)]
pub struct Pacer(Option<Arc<Budget>>);

impl Pacer {
    /// Within this budget; without one, as fast as the link is.
    pub fn new(budget: Option<Budget>) -> Self {
        Self(budget.map(Arc::new))
    }

    /// Waits until so many bytes may go.
    pub async fn take(&self, bytes: usize) {
        if let Some(budget) = &self.0 {
            sleep_until(budget.book(bytes, Instant::now())).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 100_000;

    /// 100 kB each 100 ms.
    fn budget() -> Budget {
        Budget::of_mbit(NonZeroU32::new(8).unwrap())
    }

    /// When a sender who asks at `now` for one frame after the other is through with so many, milliseconds from then.
    fn through(budget: &Budget, frames: usize, now: Instant) -> u128 {
        let end = (0..frames).fold(now, |now, _| budget.book(FRAME, now).max(now));
        (end - now).as_millis()
    }

    #[test]
    fn lanes_share_a_budget_and_together_send_no_faster() {
        let (budget, now) = (budget(), Instant::now());
        let mut lanes = [now; 2];
        for turn in 0..20 {
            let lane = &mut lanes[turn % 2];
            *lane = budget.book(FRAME, *lane).max(*lane);
        }
        let took = (lanes[1] - now).as_millis();
        assert!((1880..=1900).contains(&took), "19 frames before the last at ten a second took {took} ms");
    }

    #[test]
    fn what_was_not_used_is_gone() {
        let (budget, now) = (budget(), Instant::now());
        let took = through(&budget, 11, now + Duration::from_secs(60));
        assert!((980..=1000).contains(&took), "ten frames behind the first took {took} ms");
    }

    #[tokio::test]
    async fn without_a_budget_nobody_waits() {
        Pacer::default().take(usize::MAX).await;
    }
}
