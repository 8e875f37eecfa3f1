//! How fast lanes may send: a budget of the host for all its migrations, and one of a migration for itself, so that a move
//! leaves room for other traffic.
//!
//! A frame of memory or of a disk waits here for its turn before QUIC gets it; libvirt's control lane never waits, and
//! neither do acknowledgements. QUIC's own congestion control still holds below.

use novacron_common::record::bytes_per_second;
use novacron_transport::Sharing;
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
        Self { bytes_per_second: bytes_per_second(mbit) as f64, due: Mutex::new(Instant::now()) }
    }

    /// Books `bytes`, and says when they may go.
    fn book(&self, bytes: usize, now: Instant) -> Instant {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        let at = now.checked_sub(BURST).map_or(now, |earliest| earliest.max(*due));
        *due = at + Duration::from_secs_f64(bytes as f64 / self.bytes_per_second);
        at
    }
}

/// What a migration's lanes send by. Clones share the budgets; the default has none, and is as fast as the link.
#[derive(Debug, Clone, Default)]
pub struct Pacer {
    host: Option<Arc<Budget>>,
    own: Option<Arc<Budget>>,
    sharing: Sharing,
}

impl Pacer {
    /// Within the host's budget, beside other traffic as `sharing` says.
    pub fn of_host(budget: Option<Budget>, sharing: Sharing) -> Self {
        Self { host: budget.map(Arc::new), own: None, sharing }
    }

    /// What its links take of the way beside other traffic.
    pub fn sharing(&self) -> Sharing {
        self.sharing
    }

    /// As this one, and within a budget that is the migration's own.
    pub fn within(&self, budget: Option<Budget>) -> Self {
        Self { own: budget.map(Arc::new), ..self.clone() }
    }

    /// Waits until so many bytes may go.
    pub async fn take(&self, bytes: usize) {
        if let Some(at) = self.book(bytes, Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// When so many bytes may go, by all budgets; `None`: at once.
    fn book(&self, bytes: usize, now: Instant) -> Option<Instant> {
        [&self.host, &self.own].into_iter().flatten().map(|budget| budget.book(bytes, now)).max()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: usize = 100_000;

    /// When all budgets of a test are surely made: each is due from then on, less the burst.
    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

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
        let (budget, now) = (budget(), later());
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
        let took = through(&budget(), 11, later());
        assert!((980..=1000).contains(&took), "ten frames behind the first took {took} ms");
    }

    /// When two lanes that send frame after frame in turn are through with so many, milliseconds from `now`.
    fn both_through(lanes: [&Pacer; 2], frames: usize, now: Instant) -> [u128; 2] {
        let mut at = [now; 2];
        for frame in 0..frames {
            let lane = frame % 2;
            at[lane] = lanes[lane].book(FRAME, at[lane]).map_or(at[lane], |may| may.max(at[lane]));
        }
        at.map(|at| (at - now).as_millis())
    }

    #[test]
    fn a_migration_keeps_to_its_own_budget_within_that_of_its_host() {
        let (host, now) = (Pacer::of_host(Some(budget()), Sharing::Fair), later());
        let slow = || Some(Budget::of_mbit(NonZeroU32::new(2).unwrap()));
        let [one, _] = both_through([&host.within(slow()), &Pacer::default()], 10, now);
        assert!((1580..=1600).contains(&one), "four frames at 2 Mbit/s before the last took {one} ms");
        let host = Pacer::of_host(Some(budget()), Sharing::Fair);
        let wide = || Some(Budget::of_mbit(NonZeroU32::new(80).unwrap()));
        let [_, other] = both_through([&host.within(wide()), &host.within(wide())], 20, now);
        assert!((1880..=1900).contains(&other), "both share the host's 8 Mbit/s, and took {other} ms");
    }

    #[tokio::test]
    async fn without_a_budget_nobody_waits() {
        Pacer::default().take(usize::MAX).await;
    }
}
